//! Weir's chores. `cargo xtask help` lists them; `docs/development.md` explains them.

mod build;
mod context;
mod lint;
mod setup;
mod signals;
mod step;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use context::Context;

/// Every chore of the project; each installs what it needs by itself.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Find or install everything that the other commands need
    Setup,
    /// Build the static binaries into target/dist, the eBPF object embedded in the agent
    Build {
        /// Only the eBPF object
        #[arg(long)]
        ebpf: bool,
    },
}

fn main() -> ExitCode {
    match signals::listen().and_then(|()| chore(Cli::parse().command)) {
        Ok(code) => code,
        Err(_) if signals::stopped() => {
            step::line("interrupted");
            ExitCode::from(130)
        }
        Err(err) => {
            step::line(&format!("error: {err:#}"));
            ExitCode::FAILURE
        }
    }
}

fn chore(command: Chore) -> Result<ExitCode> {
    let ctx = Context::new()?;
    match command {
        Chore::Setup => setup::all(&ctx)?,
        Chore::Build { ebpf: true } => {
            let object = build::ebpf(&ctx)?;
            step::line(&format!("  built: {}", object.display()));
        }
        Chore::Build { ebpf: false } => build::dist(&ctx)?,
    }
    Ok(ExitCode::SUCCESS)
}
