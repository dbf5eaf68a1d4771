//! `weir-lab`: the demo, and the processes a lab consists of.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use weir_lab::hold::Role;
use weir_lab::{demo, keep};

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
    /// Opens a shell, or runs a program, in a node (`n1`) or pod (`namespace/name`) of a lab that
    /// was kept.
    Enter {
        /// Node or pod.
        name: String,
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<String>,
    },
    /// Takes down labs that were kept.
    Down,
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
    /// Kubernetes manifests: a file, or a directory with all below it. Without it, the shop that
    /// comes with Weir.
    #[arg(long)]
    manifests: Option<PathBuf>,
    /// Leave the lab up afterwards, and say how to enter it.
    #[arg(long)]
    keep: bool,
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
        Command::Demo(args) => return run_demo(args),
        Command::Enter { name, program } => return keep::enter(&name, &program),
        Command::Down => println!("{} labs taken down", keep::down()?),
        Command::Hold(Hold::Fabric) => weir_lab::hold::run(&Role::Fabric)?,
        Command::Hold(Hold::Node { name }) => weir_lab::hold::run(&Role::Node(name))?,
        Command::PodServer { name, bind } => weir_lab::server::run(&name, bind)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_demo(args: DemoArgs) -> Result<ExitCode> {
    let manifests = match args.manifests {
        Some(path) => path,
        None => demo::shop()?,
    };
    let options = demo::Options {
        manifests,
        nodes: args.nodes,
        json: args.output == "json",
    };
    if !args.keep {
        return demo::run(&options);
    }
    match keep::detach()? {
        Ok(detached) => demo::run_and_stay(&options, detached),
        Err(code) => Ok(code),
    }
}
