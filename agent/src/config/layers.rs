//! Gathers raw values from the layers and remembers where each came from.

use std::{collections::BTreeMap, ffi::OsString, fmt, io, path::Path, path::PathBuf};

use clap::{Arg, ArgAction, Command, error::ErrorKind};

use super::keys::{KEYS, Key};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Given as a flag.
    Flag,
    /// An environment variable, by name.
    Env(String),
    /// A key of the configuration file.
    File(PathBuf),
    /// Nobody said anything else.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A raw value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// As written; a list of the file joined by commas.
    pub text: String,
    /// Where from.
    pub origin: Origin,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// From clap: an unknown flag, `--help`, `--version`.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The file cannot be read.
    #[error("configuration file {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not a YAML mapping of scalars and lists.
    #[error("configuration file {path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where known.
        message: String,
    },
    /// A key that does not exist.
    #[error("configuration file {path}: unknown key {key:?}{}", nearest(.hint.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// As written.
        key: String,
        /// The existing key that is written most alike.
        hint: Option<String>,
    },
    /// A value that does not parse.
    #[error("{key} = {text:?} (from {origin}): {message}")]
    Value {
        /// The key.
        key: String,
        /// As written.
        text: String,
        /// Where from.
        origin: Origin,
        /// What was expected.
        message: String,
    },
    /// A required key without a value.
    #[error("{key} is required: give --{key}, {env}, or `{key}:` in the file that --config names")]
    Missing {
        /// The key.
        key: String,
        /// Its variable.
        env: String,
    },
}

fn nearest(hint: Option<&str>) -> String {
    hint.map(|h| format!("; the nearest known key is {h:?}"))
        .unwrap_or_default()
}

/// Every key that has a value.
#[derive(Debug, Default)]
pub struct Layers {
    values: BTreeMap<&'static str, Value>,
}

impl Layers {
    /// Reads all layers. The second value is whether `--print-config` was given.
    pub(super) fn gather(
        args: impl Iterator<Item = OsString>,
        env: impl Fn(&str) -> Option<String>,
        read: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<(Self, bool), ConfigError> {
        let matches = command().try_get_matches_from(args)?;
        let config: Option<PathBuf> = matches
            .get_one::<String>("config")
            .cloned()
            .or_else(|| env("WEIR_CONFIG"))
            .map(Into::into);
        let mut file = match &config {
            Some(path) => read_file(path, read)?,
            None => BTreeMap::new(),
        };
        let mut values = BTreeMap::new();
        for key in KEYS {
            let flag = matches.get_one::<String>(key.name).cloned();
            let value = flag
                .map(|text| Value {
                    text,
                    origin: Origin::Flag,
                })
                .or_else(|| {
                    let name = key.env();
                    env(&name).map(|text| Value {
                        text,
                        origin: Origin::Env(name),
                    })
                })
                .or_else(|| {
                    let text = file.remove(key.name)?;
                    Some(Value {
                        text,
                        origin: Origin::File(config.clone()?),
                    })
                })
                .or_else(|| {
                    let text = key.default?.to_owned();
                    Some(Value {
                        text,
                        origin: Origin::Default,
                    })
                });
            if let Some(value) = value {
                values.insert(key.name, value);
            }
        }
        Ok((Self { values }, matches.get_flag("print-config")))
    }

    /// Each key in the order of the help, with its value if it has one.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static Key, Option<&Value>)> {
        KEYS.iter().map(|key| (key, self.values.get(key.name)))
    }

    pub(super) fn optional<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(Value { text, origin }) = self.values.get(key) else {
            return Ok(None);
        };
        parse(text).map(Some).map_err(|message| ConfigError::Value {
            key: key.to_owned(),
            text: text.clone(),
            origin: origin.clone(),
            message,
        })
    }

    pub(super) fn require<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        self.optional(key, parse)?
            .ok_or_else(|| ConfigError::Missing {
                key: key.to_owned(),
                env: KEYS
                    .iter()
                    .find(|k| k.name == key)
                    .map(Key::env)
                    .unwrap_or_default(),
            })
    }
}

fn command() -> Command {
    let keys = KEYS.iter().map(|key| {
        let help = match key.default {
            Some(default) => format!("{} [default: {default}] [env: {}]", key.help, key.env()),
            None => format!("{} [env: {}]", key.help, key.env()),
        };
        Arg::new(key.name)
            .long(key.name)
            .value_name(key.value_name)
            .help(help)
    });
    Command::new("weir-agent")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Weir's agent: wires pods, balances Services, enforces network policies")
        .args(keys)
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .help("YAML file with the same keys; flags and variables win [env: WEIR_CONFIG]"),
        )
        .arg(
            Arg::new("print-config")
                .long("print-config")
                .action(ArgAction::SetTrue)
                .help("Print every value and where it came from, then leave"),
        )
}

fn read_file(
    path: &Path,
    read: impl Fn(&Path) -> io::Result<String>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let text = read(path).map_err(|error| ConfigError::Read {
        path: path.into(),
        error,
    })?;
    let syntax = |message: String| ConfigError::Syntax {
        path: path.into(),
        message,
    };
    let mut document = serde_json::Map::new();
    for part in weir_manifests::yaml::documents(&text) {
        let value = part
            .value
            .map_err(|(line, message)| syntax(format!("line {line}: {message}")))?;
        match serde_json::Value::from(value) {
            serde_json::Value::Object(map) => document.extend(map),
            serde_json::Value::Null => {}
            _ => return Err(syntax(format!("line {}: expected a mapping", part.line))),
        }
    }
    let mut values = BTreeMap::new();
    for (key, value) in document {
        if !KEYS.iter().any(|k| k.name == key) {
            return Err(ConfigError::UnknownKey {
                path: path.into(),
                hint: hint(&key),
                key,
            });
        }
        let text = scalar(&value)
            .ok_or_else(|| syntax(format!("{key}: expected a scalar or a list of scalars")))?;
        values.insert(key, text);
    }
    Ok(values)
}

fn scalar(value: &serde_json::Value) -> Option<String> {
    use serde_json::Value as V;
    match value {
        V::String(text) => Some(text.clone()),
        V::Number(number) => Some(number.to_string()),
        V::Bool(b) => Some(b.to_string()),
        V::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(scalar).collect();
            Some(items?.join(","))
        }
        V::Null | V::Object(_) => None,
    }
}

/// The known key that is written most alike.
fn hint(key: &str) -> Option<String> {
    let known = KEYS.iter().map(|k| k.name);
    let (score, name) = known
        .map(|name| {
            (
                strsim::jaro_winkler(&key.replace('_', "-").to_lowercase(), name),
                name,
            )
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    (score > 0.6).then(|| name.to_owned())
}

impl ConfigError {
    /// The exit code of a command line that fails so: 0 for `--help` and `--version`, else 2.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(e)
                if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) =>
            {
                0
            }
            _ => 2,
        }
    }
}
