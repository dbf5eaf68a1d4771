//! `cargo xtask build`: the eBPF object, and the static binaries that embed it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::setup::toolchain;
use crate::step;

/// What `target/dist` holds: package and binary.
const BINARIES: &[(&str, &str)] = &[
    ("weir-agent", "weir-agent"),
    ("weir-agent", "weir"),
    ("weir-cni", "weir-cni"),
    ("weir-lab", "weir-lab"),
];

/// The BPF target of this machine's byte order.
#[cfg(target_endian = "little")]
const BPF: &str = "bpfel-unknown-none";
#[cfg(target_endian = "big")]
const BPF: &str = "bpfeb-unknown-none";

/// Builds the eBPF object and returns where it is.
///
/// # Errors
/// The toolchain is missing, or the build fails.
pub fn ebpf(ctx: &Context, variant: Object) -> Result<PathBuf> {
    ctx.step("eBPF object", &mut ebpf_command(ctx, variant)?)?;
    Ok(ctx
        .target
        .join(variant.dir())
        .join(BPF)
        .join("ebpf/weir-ebpf"))
}

/// Which eBPF object. Each has a folder of its own, as other flags would make cargo build the one
/// object again each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// What the agent embeds.
    Plain,
    /// The same, built with warnings as errors.
    Lint,
    /// One that logs each dropped packet, for debugging.
    Log,
}

impl Object {
    fn dir(self) -> &'static str {
        match self {
            Self::Plain => "bpf",
            Self::Lint => "bpf-lint",
            Self::Log => "bpf-log",
        }
    }
}

/// The command that builds an object.
///
/// # Errors
/// The toolchain is missing.
pub fn ebpf_command(ctx: &Context, variant: Object) -> Result<Command> {
    let found = toolchain::ensure(ctx)?;
    let dir = ctx.target.join(variant.dir());
    let mut cmd = found.cargo(ctx, BPF);
    cmd.args([
        "build",
        "--package",
        "weir-ebpf",
        "--bin",
        "weir-ebpf",
        "--profile",
        "ebpf",
    ])
    .args(["-Z", "build-std=core", "--target", BPF, "--target-dir"])
    .arg(&dir)
    .env(
        "CARGO_ENCODED_RUSTFLAGS",
        toolchain::rustflags(variant == Object::Lint),
    );
    if variant == Object::Log {
        cmd.args(["--features", "log"]);
    }
    Ok(cmd)
}

/// Builds everything that `target/dist` holds.
///
/// # Errors
/// The toolchain is missing, or a build fails.
pub fn dist(ctx: &Context) -> Result<()> {
    let from = static_build(ctx, "static binaries", &[])?;
    for (_, binary) in BINARIES {
        install(&from.join(binary), &ctx.dist().join(binary))?;
    }
    step::line(&format!("  built: {}", ctx.dist().display()));
    Ok(())
}

/// The first program of `vm-test`'s machines, as the kernel looks for it.
pub const INIT: &str = "init";

/// Builds what is in `vm-test`'s machines: name there, and file. Their init always with the other binaries,
/// so that cargo chooses the same features and builds each dependency once.
///
/// # Errors
/// The toolchain is missing, or a build fails.
pub fn vm_programs(ctx: &Context) -> Result<Vec<(&'static str, PathBuf)>> {
    let extra = [("weir-tests", "weir-vm-init")];
    let built = static_build(ctx, "init of the test machine", &extra)?;
    let lab = ["weir-agent", "weir-cni", "weir-lab"].map(|name| (name, built.join(name)));
    Ok(std::iter::once((INIT, built.join("weir-vm-init")))
        .chain(lab)
        .collect())
}

/// Builds the benchmarks as a release is built.
///
/// # Errors
/// The toolchain is missing, or a build fails.
pub fn bench(ctx: &Context) -> Result<PathBuf> {
    let extra = [("weir-bench", "weir-bench")];
    Ok(static_build(ctx, "benchmarks", &extra)?.join("weir-bench"))
}

fn static_build(ctx: &Context, name: &str, extra: &[(&str, &str)]) -> Result<PathBuf> {
    let object = ebpf(ctx, Object::Plain)?;
    let mut cmd = ctx.cargo();
    cmd.args([
        "build",
        "--profile",
        "static",
        "--target",
        &ctx.host,
        "--target-dir",
    ])
    .arg(&ctx.target);
    for (package, binary) in BINARIES.iter().chain(extra) {
        cmd.args(["--package", package, "--bin", binary]);
    }
    static_binaries(&mut cmd);
    crate::test::object_for_agent(ctx, &mut cmd, &object);
    ctx.step(name, &mut cmd)?;
    Ok(ctx.target.join(&ctx.host).join("static"))
}

/// Links the C library in, so that the binaries run on any distribution and in an empty image.
fn static_binaries(cmd: &mut Command) {
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    if !flags.is_empty() {
        flags.push(' ');
    }
    flags.push_str("-Ctarget-feature=+crt-static");
    cmd.env("RUSTFLAGS", flags);
}

/// Puts `from` at `to` by rename, so that a running program is never written into.
fn install(from: &Path, to: &Path) -> Result<()> {
    let dir = to.parent().context("no parent directory")?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let new = to.with_extension("new");
    std::fs::copy(from, &new)
        .and_then(|_| std::fs::rename(&new, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}
