//! `weir-bench`: what things cost. Run by `cargo xtask bench`, as root.
//!
//! Times are those of this machine, which the header names; what counts are the ratios, each of two
//! measurements of one run.

mod change;
mod compile;
mod flow;
mod machine;
mod pins;
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
    if !args.json {
        println!("{}", machine::line());
    }
    let parts: [Part<'_>; 3] = [
        ("compiling from nothing …", &|| compile::run(size)),
        ("one change at a time …", &|| {
            change::run(size, args.changes)
        }),
        ("new flows in the kernel …", &|| flow::run(size)),
    ];
    let mut sections = Vec::new();
    for (name, run) in parts {
        eprintln!("{name}");
        let section = run()?;
        if !args.json {
            println!("\n{section}");
        }
        sections.push(section);
    }
    if args.json {
        let document = serde_json::json!({"machine": machine::line(), "sections": sections});
        println!("{document:#}");
    }
    Ok(())
}

/// A part of a benchmark: what is said of it while it runs, and how it is run.
type Part<'a> = (&'static str, &'a dyn Fn() -> Result<stats::Section>);
