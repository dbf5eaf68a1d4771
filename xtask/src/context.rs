//! Where things are, and how to call cargo.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

use crate::setup::which;
use crate::step;

/// Paths and names that every command needs.
pub struct Context {
    /// The workspace.
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// What `setup` builds and downloads: `WEIR_CACHE`, else `~/.cache/weir`.
    pub cache: PathBuf,
    /// Logs of steps.
    pub logs: PathBuf,
    /// The host's triple, as the compiler in use names it.
    pub host: String,
    cargo: OsString,
}

impl Context {
    /// # Errors
    /// The workspace cannot be found, or no compiler answers.
    pub fn new() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .parent()
            .context("xtask is not inside the workspace")?
            .to_owned();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => root.join(dir),
            None => root.join("target"),
        };
        let cache = match (env::var_os("WEIR_CACHE"), env::var_os("XDG_CACHE_HOME")) {
            (Some(dir), _) => root.join(dir),
            (None, Some(dir)) if !dir.is_empty() => Path::new(&dir).join("weir"),
            (None, _) => {
                PathBuf::from(env::var_os("HOME").context("neither WEIR_CACHE nor HOME is set")?)
                    .join(".cache/weir")
            }
        };
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let version = step::output_of(Command::new(&rustc).arg("-vV"))
            .with_context(|| format!("{} does not answer", rustc.to_string_lossy()))?;
        let host = field(&version, "host: ").context("rustc -vV names no host")?;
        Ok(Self {
            logs: target.join("xtask"),
            cargo: env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            root,
            target,
            cache,
            host,
        })
    }

    /// Cargo for the host, in the workspace.
    pub fn cargo(&self) -> Command {
        let mut cmd = clean(Command::new(&self.cargo));
        // Cargo names the toolchain it was started with; the children must use the same one.
        if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
            cmd.env("RUSTUP_TOOLCHAIN", toolchain);
        }
        cmd.current_dir(&self.root);
        cmd
    }

    /// Runs a program and shows `name` meanwhile.
    ///
    /// # Errors
    /// See [`step::run`].
    pub fn step(&self, name: &str, cmd: &mut Command) -> Result<()> {
        step::run(&self.logs, name, cmd)
    }

    /// Where cargo-deny keeps known vulnerabilities (`deny.toml` names the same place).
    pub fn advisory_db(&self) -> PathBuf {
        let home = env::var_os("CARGO_HOME").map_or_else(
            || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
            PathBuf::from,
        );
        home.join("advisory-dbs")
    }

    /// Where `cargo xtask build` puts the binaries.
    pub fn dist(&self) -> PathBuf {
        self.target.join("dist")
    }
}

/// `program` as root: itself where we are root, else through sudo, which is said.
pub fn as_root(program: impl AsRef<std::ffi::OsStr>, env: &[(&str, OsString)]) -> Command {
    if geteuid().is_root() {
        let mut cmd = clean(Command::new(program));
        cmd.envs(env.iter().cloned());
        return cmd;
    }
    let mut cmd = clean(Command::new("sudo"));
    // sudo drops the environment: what the program needs goes through env(1).
    cmd.arg("env");
    for (key, value) in env {
        let mut pair = OsString::from(key);
        pair.push("=");
        pair.push(value);
        cmd.arg(pair);
    }
    cmd.arg(program.as_ref());
    cmd
}

/// Says that the next step needs root, and makes sure that it will get it.
///
/// # Errors
/// We are not root, and sudo is missing or refuses.
pub fn ensure_root(what: &str) -> Result<()> {
    if geteuid().is_root() {
        step::line(&format!("  ({what}: needs root, and this is root)"));
        return Ok(());
    }
    if which("sudo").is_none() {
        bail!("{what}: needs root, and there is no sudo: run this command as root");
    }
    step::line(&format!(
        "  {what}: needs root, so this step runs through sudo"
    ));
    // Asks for the password now, before output is captured.
    if step::attached("sudo", clean(Command::new("sudo")).arg("-v"))? != 0 {
        bail!("{what}: needs root, and sudo refused: run this command as root");
    }
    Ok(())
}

/// `command` without what the running `cargo xtask` put into the environment: another toolchain's
/// cargo must not see it, and it would make cargo rebuild what is fresh.
pub fn clean(mut command: Command) -> Command {
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        let of_package = name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_BIN_");
        let single = [
            "CARGO",
            "CARGO_MANIFEST_DIR",
            "CARGO_MANIFEST_PATH",
            "CARGO_CRATE_NAME",
        ];
        if of_package || single.contains(&&*name) || name == "RUSTUP_TOOLCHAIN" {
            command.env_remove(&key);
        }
    }
    command
}

/// The rest of the line of `text` that starts with `key`.
pub fn field(text: &str, key: &str) -> Option<String> {
    text.lines()
        .find_map(|l| l.strip_prefix(key))
        .map(|v| v.trim().to_owned())
}
