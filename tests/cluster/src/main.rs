//! A real Kubernetes of several nodes on one machine, with Weir in it. `cargo xtask cluster` builds
//! what it needs and calls it.

mod client;
mod count;
mod e2e;
mod live;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Exit codes: 0 done, all passed; 1 a test failed; 2 wrong arguments; 3 it could not be run.
#[derive(Debug, Parser)]
#[command(name = "weir-cluster", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the upstream test suites against the cluster
    E2e(Box<e2e::E2eArgs>),
}

fn folder(variable: &str, default: Option<&str>) -> Result<PathBuf> {
    let value = std::env::var_os(variable).map(PathBuf::from);
    let path = value
        .or_else(|| default.map(PathBuf::from))
        .with_context(|| format!("{variable} is not set: `cargo xtask` sets it"))?;
    std::path::absolute(&path).with_context(|| format!("cannot find {}", path.display()))
}

async fn run(cli: Cli) -> Result<count::Count> {
    let dir = folder("WEIR_CLUSTER_DIR", Some("target/cluster"))?;
    match cli.command {
        Command::E2e(args) => {
            let places = e2e::Places {
                bin: folder("WEIR_CLUSTER_BIN", None)?,
                kubeconfig: dir.join("kubeconfig"),
                dir,
            };
            let count = e2e::run(&args, &places).await?;
            if !args.json() {
                println!("\n{count}");
            }
            Ok(count)
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(count) if count.failed == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}
