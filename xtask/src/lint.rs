//! `cargo xtask lint`: formatting, clippy, warnings of the BPF build, licences and advisories.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::context::{Context, clean};
use crate::count::Count;
use crate::{build, step, test};

/// Needs rustc 1.88.
const DENY_VERSION: &str = "0.20.2";

/// Runs every check, also after one has failed; the count has one for each.
///
/// # Errors
/// A tool cannot be installed, or a signal asks us to stop.
pub fn run(ctx: &Context) -> Result<Count> {
    let object = build::ebpf(ctx, build::Object::Plain)?;
    let mut total = Count::default();
    total += check(
        ctx,
        "rustfmt",
        ctx.cargo().args(["fmt", "--all", "--check"]),
    )?;
    let mut clippy = ctx.cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"]);
    test::object_for_agent(ctx, &mut clippy, &object);
    total += check(ctx, "clippy", &mut clippy)?;
    // Debian's compiler has no clippy, and clippy above saw the host's half of weir-ebpf only: what
    // is left for the BPF half is the compiler's own warnings.
    let mut ebpf = build::ebpf_command(ctx, build::Object::Lint)?;
    total += check(ctx, "warnings of the eBPF build", &mut ebpf)?;
    let deny = ensure_deny(ctx)?;
    let mut rules = deny_command(ctx, &deny);
    rules.args(["check", "licenses", "bans", "sources"]);
    total += check(ctx, "cargo-deny licenses bans sources", &mut rules)?;
    total += advisories(ctx, &deny)?;
    Ok(total)
}

fn check(ctx: &Context, name: &str, cmd: &mut Command) -> Result<Count> {
    let done = step::observe(&ctx.logs, name, cmd, None, |_| ())?;
    if !done.ok {
        step::line(&step::failure(name, &done));
    }
    let word = if done.ok { "passed" } else { "FAILED" };
    step::line(&format!("  {name}: {word} in {}", step::seconds(done.took)));
    Ok(Count::one(done.ok))
}

/// Known vulnerabilities. Their database is a git repository, which some machines cannot reach:
/// then a copy fetched earlier is used, and without one the check is skipped, and says so.
fn advisories(ctx: &Context, deny: &Path) -> Result<Count> {
    let name = "cargo-deny advisories";
    let fetched = step::observe(
        &ctx.logs,
        "fetch the advisory database",
        deny_command(ctx, deny).args(["fetch", "db"]),
        None,
        |_| (),
    )?;
    let mut cmd = deny_command(ctx, deny);
    cmd.args(["check"]);
    if !fetched.ok {
        if !has_copy(&ctx.advisory_db()) {
            let why = fetched.tail.iter().rfind(|l| !l.trim().is_empty());
            step::line(&format!(
                "  {name}: SKIPPED, as the advisory database cannot be fetched from here: {}",
                why.map_or("no reason given", String::as_str)
            ));
            return Ok(Count {
                skipped: 1,
                ..Count::default()
            });
        }
        step::line("  the advisory database cannot be fetched: using the copy in the cache");
        cmd.arg("--disable-fetch");
    }
    check(ctx, name, cmd.arg("advisories"))
}

/// Whether a database was fetched once: each is a folder (a failed fetch leaves an empty place).
fn has_copy(place: &Path) -> bool {
    std::fs::read_dir(place)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.path().is_dir())
}

fn deny_command(ctx: &Context, deny: &Path) -> Command {
    let mut cmd = clean(Command::new(deny));
    cmd.current_dir(&ctx.root)
        .args(["--workspace", "--log-level", "warn"]);
    cmd
}

/// Finds or builds cargo-deny.
///
/// # Errors
/// It cannot be built.
pub fn ensure_deny(ctx: &Context) -> Result<PathBuf> {
    let root = ctx.cache.join("cargo-deny");
    let deny = root.join("bin/cargo-deny");
    let version = step::output_of(Command::new(&deny).arg("--version"));
    if version.is_some_and(|v| v.ends_with(DENY_VERSION)) {
        return Ok(deny);
    }
    let mut cmd = ctx.cargo();
    cmd.args([
        "install",
        "cargo-deny",
        "--locked",
        "--force",
        "--version",
        DENY_VERSION,
        "--root",
    ])
    .arg(&root)
    .env("CARGO_TARGET_DIR", ctx.cache.join("build"))
    .env_remove("RUSTFLAGS");
    ctx.step(&format!("build cargo-deny {DENY_VERSION} (once)"), &mut cmd)?;
    // Cargo's intermediate files are of no more use.
    let _ = std::fs::remove_dir_all(ctx.cache.join("build"));
    Ok(deny)
}
