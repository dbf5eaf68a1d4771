//! `cargo xtask lint`.
use std::path::PathBuf;

use anyhow::Result;

use crate::context::Context;

/// Finds or builds cargo-deny.
///
/// # Errors
/// It cannot be built.
pub fn ensure_deny(ctx: &Context) -> Result<PathBuf> {
    Ok(ctx.cache.join("cargo-deny/bin/cargo-deny"))
}
