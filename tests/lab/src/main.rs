//! `weir-lab`: the demo, and the processes a lab consists of.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use weir_lab::hold::Role;

/// Nodes and pods as network namespaces on this machine.
#[derive(Parser)]
#[command(name = "weir-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Holds namespaces for a lab (internal).
    #[command(hide = true, subcommand)]
    Hold(Hold),
    /// Serves and probes in a pod (internal).
    #[command(hide = true)]
    PodServer {
        /// `namespace/pod`.
        name: String,
        /// The one address to listen on and to probe from.
        #[arg(long)]
        bind: Option<std::net::IpAddr>,
    },
}

#[derive(Subcommand)]
enum Hold {
    /// The fabric.
    Fabric,
    /// A node.
    Node {
        /// Its name.
        name: String,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir-lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Hold(Hold::Fabric) => weir_lab::hold::run(&Role::Fabric)?,
        Command::Hold(Hold::Node { name }) => weir_lab::hold::run(&Role::Node(name))?,
        Command::PodServer { name, bind } => weir_lab::server::run(&name, bind)?,
    }
    Ok(ExitCode::SUCCESS)
}
