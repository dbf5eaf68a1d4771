//! What a command leaves: text for both streams, and an exit status.

use serde::Serialize;

use super::args::VersionArgs;

/// Exit status of errors.
pub(super) const ERROR: u8 = 2;

/// The result of a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// For standard output.
    pub stdout: String,
    /// For standard error.
    pub stderr: String,
    /// Exit status.
    pub code: u8,
}

impl Done {
    /// Success with this output.
    pub(super) fn ok(stdout: String) -> Self {
        Self {
            stdout,
            ..Self::default()
        }
    }

    pub(super) fn failed(error: &anyhow::Error) -> Self {
        Self {
            stderr: format!("weir: {error:#}\n"),
            code: ERROR,
            ..Self::default()
        }
    }

    /// What clap has to say: help and version on standard output, the rest is an error.
    pub(super) fn usage(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        if error.use_stderr() {
            Self {
                stderr: text,
                code: ERROR,
                ..Self::default()
            }
        } else {
            Self::ok(text)
        }
    }

    /// A line on standard error.
    pub(super) fn complain(&mut self, line: &str) {
        self.stderr.push_str("weir: ");
        self.stderr.push_str(line);
        self.stderr.push('\n');
    }

    /// Raises the exit status.
    pub(super) fn at_least(&mut self, code: u8) {
        self.code = self.code.max(code);
    }
}

/// A value as indented JSON and a line end.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// `weir version`.
pub(super) fn version(args: &VersionArgs) -> Done {
    let version = env!("CARGO_PKG_VERSION");
    if args.output.is_json() {
        Done::ok(format!("{}\n", serde_json::json!({"version": version})))
    } else {
        Done::ok(format!("weir {version}\n"))
    }
}
