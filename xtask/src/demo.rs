//! `cargo xtask demo`: builds, then hands over to `weir-lab demo` as root.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::context::{Context, as_root, ensure_root};
use crate::traces::Traces;
use crate::{build, setup, step};

/// Runs the demo; its exit code is ours.
///
/// # Errors
/// Something does not build, or root cannot be had.
pub fn run(ctx: &Context, args: &[OsString]) -> Result<ExitCode> {
    setup::lab(ctx)?;
    build::dist(ctx)?;
    ensure_root("the demo (network namespaces, eBPF)")?;
    let before = Traces::now();
    let env: Vec<(&str, OsString)> = [
        ("WEIR_BIN_DIR", ctx.dist().into()),
        ("TERM", std::env::var_os("TERM").unwrap_or_default()),
        ("NO_COLOR", std::env::var_os("NO_COLOR").unwrap_or_default()),
        (
            "RUST_BACKTRACE",
            std::env::var_os("RUST_BACKTRACE").unwrap_or_default(),
        ),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .collect();
    let mut cmd = as_root(ctx.dist().join("weir-lab"), &env);
    // Paths in `args` are the caller's: the demo runs where the caller stands.
    cmd.arg("demo").args(args);
    let code = step::attached("demo", &mut cmd)?;
    let kept = args.iter().any(|arg| arg == "--keep");
    let left = before.new_since();
    if !kept && !left.is_empty() {
        step::line(&format!("the demo left behind:\n  {}", left.join("\n  ")));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
