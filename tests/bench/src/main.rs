//! `weir-bench`: what things cost. Run by `cargo xtask bench`, as root.
//!
//! Times are those of this machine, which the header names; what counts are the ratios, each of two
//! measurements of one run.

mod change;
mod compile;
mod flow;
mod machine;
mod network;
mod pins;
mod services;
mod stats;
mod world;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "weir-bench", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Compiling policies, changing one, and judging new flows
    Policy(PolicyArgs),
    /// Requests through Services, programming them, and memory, beside kube-proxy's rules
    Services(services::ServicesArgs),
    /// Packets between pods, on one node and across nodes, beside plain routing and a bridge
    Network(network::NetworkArgs),
    /// Answers requests (internal)
    #[command(hide = true)]
    ServicesServer {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        cpu: usize,
    },
    /// Makes requests (internal)
    #[command(hide = true)]
    ServicesClient {
        #[arg(long)]
        cpu: usize,
    },
    /// Compiles once and says what it took (internal: memory is that of a process)
    #[command(hide = true)]
    PolicyCompile(world::Size),
}

#[derive(Args)]
struct PolicyArgs {
    #[command(flatten)]
    size: world::Size,
    /// Changes to time
    #[arg(long, default_value_t = 600)]
    changes: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let result = match Cli::parse().bench {
        Bench::Policy(args) => policy(&args),
        Bench::PolicyCompile(size) => compile::child(&size),
        Bench::Services(args) => show(&services::runs(&args), args.json),
        Bench::Network(args) => show(&network::runs(&args), args.json),
        Bench::ServicesServer { port, cpu } => services::serve(port, cpu),
        Bench::ServicesClient { cpu } => services::ask(cpu),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn policy(args: &PolicyArgs) -> Result<()> {
    let size = &args.size;
    let parts: [services::Run<'_>; 3] = [
        (
            "compiling from nothing …",
            Box::new(|emit| {
                emit(compile::run(size)?);
                Ok(())
            }),
        ),
        (
            "one change at a time …",
            Box::new(|emit| {
                emit(change::run(size, args.changes)?);
                Ok(())
            }),
        ),
        (
            "new flows in the kernel …",
            Box::new(|emit| {
                emit(flow::run(size)?);
                Ok(())
            }),
        ),
    ];
    show(&parts, args.json)
}

/// Runs parts and prints what each found, at once or as one JSON document at the end.
fn show(parts: &[services::Run<'_>], json: bool) -> Result<()> {
    if !json {
        println!("{}", machine::line());
    }
    let mut sections = Vec::new();
    for (name, run) in parts {
        eprintln!("{name}");
        run(&mut |section| {
            if !json {
                println!("\n{section}");
            }
            sections.push(section);
        })?;
    }
    if json {
        let document = serde_json::json!({"machine": machine::line(), "sections": sections});
        println!("{document:#}");
    }
    Ok(())
}
