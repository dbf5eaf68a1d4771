//! `weir-lab`: the demo, and the processes a lab consists of.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use weir_lab::demo;
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
    /// Runs an application's manifests on a small cluster and compares what the network lets pass
    /// with what the policies say. Exit code 0: as expected in every cell; 1: not; 2: nothing to
    /// show, or the lab could not be made.
    Demo(DemoArgs),
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

#[derive(Args)]
struct DemoArgs {
    /// Kubernetes manifests: a file, or a directory with all below it.
    #[arg(long, default_value = "manifests/shop")]
    manifests: PathBuf,
    /// Number of nodes, 1 to 9.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// `text`, or `json` for one document at the end.
    #[arg(long, short, default_value = "text", value_parser = ["text", "json"])]
    output: String,
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
        Command::Demo(args) => {
            let options = demo::Options {
                manifests: args.manifests,
                nodes: args.nodes,
                json: args.output == "json",
            };
            return demo::run(&options);
        }
        Command::Hold(Hold::Fabric) => weir_lab::hold::run(&Role::Fabric)?,
        Command::Hold(Hold::Node { name }) => weir_lab::hold::run(&Role::Node(name))?,
        Command::PodServer { name, bind } => weir_lab::server::run(&name, bind)?,
    }
    Ok(ExitCode::SUCCESS)
}
