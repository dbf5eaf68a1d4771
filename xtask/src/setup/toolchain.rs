//! A compiler for the BPF target, which needs the source of `core` and bpf-linker.
//!
//! Two ways, in this order:
//! 1. a rustup toolchain (`nightly`) with the component rust-src, and a bpf-linker on `PATH`;
//! 2. Debian's `rustc-web cargo-web rust-web-src`, and a bpf-linker that we build against the same
//!    LLVM, into the cache.
//!
//! `WEIR_EBPF_TOOLCHAIN` overrides: a rustup toolchain's name, or `system` for the second way.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::context::{self, Context, field};
use crate::setup::{apt, which};
use crate::step;

/// The release that goes with aya-ebpf 0.2 and rustc 1.95 and 1.96 (LLVM 22).
const LINKER_VERSION: &str = "0.13.0";
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";
const SYSTEM_CARGO: &str = "/usr/bin/cargo";
const SYSTEM_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// A way to build for BPF.
pub enum Toolchain {
    /// A rustup toolchain.
    Rustup { name: String, linker: PathBuf },
    /// The distribution's compiler.
    System {
        release: String,
        linker: PathBuf,
        llvm_lib: PathBuf,
    },
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup { name, linker } => write!(f, "rustup's {name}, {}", linker.display()),
            Self::System {
                release, linker, ..
            } => {
                write!(f, "{SYSTEM_RUSTC} {release}, {}", linker.display())
            }
        }
    }
}

impl Toolchain {
    /// Cargo for the BPF target, without its arguments.
    pub fn cargo(&self, ctx: &Context, target: &str) -> Command {
        let linker_key = format!(
            "CARGO_TARGET_{}_LINKER",
            target.to_uppercase().replace('-', "_")
        );
        let (mut cmd, linker) = match self {
            Self::Rustup { name, linker } => {
                let mut cmd = context::clean(Command::new("rustup"));
                cmd.args(["run", name, "cargo"]).env_remove("RUSTC");
                (cmd, linker)
            }
            Self::System {
                linker, llvm_lib, ..
            } => {
                let mut cmd = context::clean(Command::new(SYSTEM_CARGO));
                cmd.env("RUSTC", SYSTEM_RUSTC)
                    .env("LD_LIBRARY_PATH", llvm_lib);
                (cmd, linker)
            }
        };
        cmd.current_dir(&ctx.root)
            .env_remove("RUSTFLAGS")
            .env_remove("RUSTC_WRAPPER")
            // -Z build-std, and `core_intrinsics` for compare-and-exchange.
            .env("RUSTC_BOOTSTRAP", "1")
            .env(linker_key, linker);
        cmd
    }
}

/// Finds or installs a toolchain for BPF.
///
/// # Errors
/// There is none, and this machine is not one we can install it on; the error says how to.
pub fn ensure(ctx: &Context) -> Result<Toolchain> {
    match env::var("WEIR_EBPF_TOOLCHAIN")
        .ok()
        .filter(|v| !v.is_empty())
        .as_deref()
    {
        Some("system") => system(ctx),
        Some(name) => match rustup(name) {
            Some(found) => Ok(found),
            None => bail!(
                "WEIR_EBPF_TOOLCHAIN={name}: rustup has no such toolchain with rust-src, or there \
                 is no bpf-linker on PATH\n{}",
                by_hand()
            ),
        },
        None => match rustup("nightly") {
            Some(found) => Ok(found),
            None => system(ctx),
        },
    }
}

fn rustup(name: &str) -> Option<Toolchain> {
    let linker = which("bpf-linker").filter(|linker| answers(linker))?;
    let sysroot = step::output_of(
        context::clean(Command::new("rustup"))
            .args(["run", name, "rustc", "--print", "sysroot"])
            .env("RUSTUP_AUTO_INSTALL", "0"),
    )?;
    let source = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core");
    source.is_dir().then(|| Toolchain::Rustup {
        name: name.to_owned(),
        linker,
    })
}

fn system(ctx: &Context) -> Result<Toolchain> {
    if !apt::available() {
        bail!(
            "no toolchain for BPF, and this machine has no apt-get\n{}",
            by_hand()
        );
    }
    let missing = apt::missing(&SYSTEM_PACKAGES);
    if !missing.is_empty() {
        if apt::candidate(missing[0]).is_none() {
            apt::update(ctx)?;
        }
        if let Some(unknown) = missing.iter().find(|p| apt::candidate(p).is_none()) {
            bail!(
                "no toolchain for BPF: apt-get knows no package {unknown}\n{}",
                by_hand()
            );
        }
        apt::install(ctx, &SYSTEM_PACKAGES)?;
    }
    let version = step::output_of(Command::new(SYSTEM_RUSTC).arg("-vV")).unwrap_or_default();
    let release = field(&version, "release: ").unwrap_or_default();
    if !at_least(&release, 1, 95) {
        bail!(
            "{SYSTEM_RUSTC} is {release}, but Weir needs 1.95\n{}",
            by_hand()
        );
    }
    let llvm = field(&version, "LLVM version: ").unwrap_or_default();
    let llvm = llvm.split('.').next().unwrap_or_default().to_owned();
    let llvm_lib = PathBuf::from(format!("/usr/lib/llvm-{llvm}/lib"));
    let linker = linker(ctx, &llvm, &llvm_lib)?;
    Ok(Toolchain::System {
        release,
        linker,
        llvm_lib,
    })
}

/// A bpf-linker for the same LLVM as the system's rustc (bitcode of a newer LLVM is not readable).
fn linker(ctx: &Context, llvm: &str, llvm_lib: &Path) -> Result<PathBuf> {
    let root = ctx.cache.join("bpf-linker");
    let linker = root.join("bin/bpf-linker");
    let version = step::output_of(
        Command::new(&linker)
            .arg("--version")
            .env("LD_LIBRARY_PATH", llvm_lib),
    );
    if version.is_some_and(|v| v.ends_with(LINKER_VERSION)) {
        return Ok(linker);
    }
    let packages = [
        format!("llvm-{llvm}-dev"),
        format!("libpolly-{llvm}-dev"),
        "zlib1g-dev".to_owned(),
        "libzstd-dev".to_owned(),
        "g++".to_owned(),
    ];
    apt::install(ctx, &packages.each_ref().map(String::as_str))?;
    let mut cmd = context::clean(Command::new(SYSTEM_CARGO));
    cmd.args([
        "install",
        "bpf-linker",
        "--force",
        "--version",
        LINKER_VERSION,
    ])
    .args([
        "--no-default-features",
        "--features",
        &format!("llvm-{llvm}"),
    ])
    .arg("--root")
    .arg(&root)
    .env("CARGO_TARGET_DIR", ctx.cache.join("build"))
    .env("RUSTC", SYSTEM_RUSTC)
    .env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"))
    .env_remove("RUSTFLAGS")
    .env_remove("LD_LIBRARY_PATH");
    ctx.step(
        &format!("build bpf-linker {LINKER_VERSION} (once)"),
        &mut cmd,
    )?;
    // Cargo's intermediate files are of no more use.
    let _ = std::fs::remove_dir_all(ctx.cache.join("build"));
    Ok(linker)
}

fn answers(linker: &Path) -> bool {
    step::output_of(Command::new(linker).arg("--version")).is_some()
}

fn at_least(release: &str, major: u32, minor: u32) -> bool {
    let mut parts = release
        .split(['.', '-'])
        .map(|p| p.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
}

fn by_hand() -> String {
    format!(
        "install these by hand and try again:\n  \
         rustup toolchain install nightly --component rust-src\n  \
         cargo install cargo-binstall && cargo binstall bpf-linker@{LINKER_VERSION}   (prebuilt; \
         or, with LLVM 22's development files:\n  \
         cargo install bpf-linker --version {LINKER_VERSION} --no-default-features --features llvm-22)"
    )
}

/// The flags for the BPF target, as `CARGO_ENCODED_RUSTFLAGS` wants them.
pub fn rustflags(deny_warnings: bool) -> OsString {
    // v3 instructions are in every kernel from 5.13 on; v4 would need 6.6, above our floor.
    let mut flags = vec!["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"];
    if deny_warnings {
        flags.push("-Dwarnings");
    }
    flags.join("\x1f").into()
}

#[cfg(test)]
mod tests {
    use super::at_least;

    #[test]
    fn releases_compare_by_number_not_by_text() {
        assert!(at_least("1.95.0", 1, 95));
        assert!(at_least("1.100.0-nightly", 1, 95));
        assert!(at_least("2.0.0", 1, 95));
        assert!(!at_least("1.85.1", 1, 95));
        assert!(!at_least("", 1, 95));
    }
}
