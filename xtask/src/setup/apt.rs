//! Debian and Ubuntu packages.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::context::{Context, as_root, ensure_root};
use crate::setup::which;
use crate::step;

/// Whether this machine installs packages with apt-get.
pub fn available() -> bool {
    which("apt-get").is_some() && which("dpkg-query").is_some()
}

/// Which of `packages` are not installed.
pub fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    packages.iter().copied().filter(|p| !installed(p)).collect()
}

fn installed(package: &str) -> bool {
    step::output_of(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]))
        .is_some_and(|status| status.contains("installed") && !status.contains("not-installed"))
}

/// The version of `package` that apt-get would install.
pub fn candidate(package: &str) -> Option<String> {
    let policy = step::output_of(
        Command::new("apt-cache")
            .env("LC_ALL", "C")
            .args(["policy", package]),
    )?;
    let version = policy
        .lines()
        .find_map(|l| l.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Installs what is missing of `packages`; the package lists are fetched only if an install does
/// not work without (`apt-get update` is slow, and a fresh image has no lists at all).
///
/// # Errors
/// apt-get fails, or would have to remove something.
pub fn install(ctx: &Context, packages: &[&str]) -> Result<()> {
    let wanted = missing(packages);
    if wanted.is_empty() {
        return Ok(());
    }
    ensure_root(&format!("installing {}", wanted.join(" ")))?;
    if wanted.iter().any(|p| candidate(p).is_none()) {
        update(ctx)?;
        return try_install(ctx, &wanted).with_context(|| remedy(&wanted));
    }
    if try_install(ctx, &wanted).is_ok() {
        return Ok(());
    }
    update(ctx)?;
    try_install(ctx, &wanted).with_context(|| remedy(&wanted))
}

/// Fetches the package lists.
///
/// # Errors
/// apt-get fails.
pub fn update(ctx: &Context) -> Result<()> {
    ctx.step(
        "apt-get update",
        as_root("apt-get", &[]).args(["-q", "update"]),
    )
}

fn try_install(ctx: &Context, packages: &[&str]) -> Result<()> {
    let env = [("DEBIAN_FRONTEND", "noninteractive".into())];
    let mut cmd = as_root("apt-get", &env);
    // Nothing of the user's may go: rustc-web conflicts with Debian's own rustc and rustup.
    cmd.args([
        "-q",
        "-y",
        "--no-install-recommends",
        "--no-remove",
        "install",
    ])
    .args(packages);
    ctx.step("apt-get install", &mut cmd)?;
    let left = missing(packages);
    if !left.is_empty() {
        bail!(
            "apt-get succeeded, but these are not installed: {}",
            left.join(" ")
        );
    }
    Ok(())
}

fn remedy(packages: &[&str]) -> String {
    format!(
        "cannot install {}: run `apt-get install {}` by hand and see what it says",
        packages.join(" "),
        packages.join(" ")
    )
}
