//! A real Kubernetes of several nodes on one machine, with Weir in it. `cargo xtask cluster` builds
//! what it needs and calls it.

mod absent;
mod api;
mod args;
mod bench;
mod cgroup;
mod containerd;
mod control_plane;
mod count;
mod down;
mod e2e;
mod fabric;
mod forward;
mod install;
mod kit;
mod kubelet;
mod live;
mod node;
mod pki;
mod plan;
mod process;
mod progress;
mod scenario;
mod smoke;
mod state;
mod status;
mod up;
mod world;

use std::{os::unix::process::CommandExt, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    api::Cluster,
    args::{Cli, Command, Dirs, ExecArgs, Output, StatusArgs, Which},
    count::Count,
};

/// The exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// The exit code of tests that could not be run, as 1 is for tests that failed.
const NOT_RUN: u8 = 3;

/// The exit code of `status` for a cluster that is not as it was made.
const NOT_UP: u8 = 3;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        // Hold and forward need a process with a single thread.
        Command::Hold { hold } => node::hold(&hold)?,
        Command::Forward { netns, to } => forward::forward(&netns, to)?,
        Command::World { netns } => world::serve(&netns)?,
        Command::Up(args) => return runtime()?.block_on(up::up(&args)),
        Command::Down(which) => take_down(&which)?,
        Command::Status(args) => return show_status(&args),
        Command::Exec(args) => return exec(&args),
        Command::Smoke(which) => {
            let cluster = Cluster::open(&Dirs::of(&which)?.state)?;
            return tested(true, smoke::run(&cluster));
        }
        Command::Scenario(args) => return tested(true, scenario::run(&args)),
        Command::E2e(args) => return tested(!args.json(), e2e::run(&args)),
        Command::Timed(args) => return bench::timed(&args),
        Command::Bench(args) => return tested(false, bench::run(&args)),
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

fn take_down(which: &Which) -> Result<()> {
    let dir = Dirs::of(which)?.state;
    down::down(&dir, &which.name)?;
    println!(
        "cluster {}: down; its logs are in {}/logs",
        which.name,
        dir.display()
    );
    Ok(())
}

fn show_status(args: &StatusArgs) -> Result<ExitCode> {
    let cluster = Cluster::open(&Dirs::of(&args.which)?.state)?;
    let status = runtime()?.block_on(status::status(&cluster))?;
    match args.output {
        Output::Text => println!("{}", status.text()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
    }
    Ok(if status.up {
        ExitCode::SUCCESS
    } else {
        NOT_UP.into()
    })
}

/// Becomes the program: its exit code is ours.
fn exec(args: &ExecArgs) -> Result<ExitCode> {
    let cluster = Cluster::open(&Dirs::of(&args.which)?.state)?;
    let (program, rest) = args.program.split_first().context("no program is named")?;
    let error = cluster.command_in(&args.node, program)?.args(rest).exec();
    Err(error).with_context(|| format!("cannot run {program} on {}", args.node))
}

/// Runs tests; their count is the last line, where `counted`.
fn tested(counted: bool, tests: impl Future<Output = Result<Count>>) -> Result<ExitCode> {
    // What is dropped takes its programs along.
    let until_told = async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = tests => Ok(Some(result)),
            interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| None),
            _ = terminate.recv() => Ok(None),
        }
    };
    let Some(result) = runtime()?.block_on(until_told)? else {
        return Ok(INTERRUPTED.into());
    };
    match result {
        Ok(count) => {
            if counted {
                println!("\n{count}");
            }
            Ok(u8::from(count.failed > 0).into())
        }
        Err(error) => {
            eprintln!("weir-cluster: {error:#}");
            Ok(NOT_RUN.into())
        }
    }
}
