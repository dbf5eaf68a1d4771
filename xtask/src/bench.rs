//! `cargo xtask bench`: builds as for a release, then hands over to `weir-bench` as root.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::context::{Context, as_root, ensure_root};
use crate::{build, setup, step};

/// Runs a benchmark; its exit code is ours.
///
/// # Errors
/// Something does not build, or root cannot be had.
pub fn run(ctx: &Context, args: &[OsString]) -> Result<ExitCode> {
    setup::lab(ctx)?;
    setup::bench(ctx)?;
    let program = build::bench(ctx)?;
    ensure_root("the benchmark (network namespaces, eBPF)")?;
    let mut cmd = as_root(program, &[]);
    cmd.args(args);
    let code = step::attached("bench", &mut cmd)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
