//! Weir's chores. `cargo xtask help` lists them; `docs/development.md` explains them.

mod bench;
mod build;
mod cluster;
mod context;
mod count;
mod demo;
mod lint;
mod manifests;
mod setup;
mod signals;
mod step;
mod test;
mod traces;
mod vm;

use std::ffi::OsString;
use std::path::PathBuf;
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
        /// An eBPF object that logs each dropped packet, for `weir-agent --ebpf-object`
        #[arg(long, requires = "ebpf")]
        log: bool,
    },
    /// Build, then show two nodes with pods, Services and policies, and what they may reach
    ///
    /// Everything after `demo` goes to `weir-lab demo`, which runs as root; see `demo --help`.
    #[command(disable_help_flag = true)]
    Demo {
        /// Arguments of `weir-lab demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Build the image of Weir into target/images/weir.tar, without a container engine
    Image {
        /// Import it into the containerd that listens on this socket, for kubelet to find
        #[arg(long, value_name = "SOCKET")]
        import: Option<PathBuf>,
    },
    /// A real Kubernetes of several nodes on this machine: `cluster up`, `status`, `down`, `test`
    ///
    /// Builds its programs (Go, cached) and images, then everything after `cluster` goes to
    /// `weir-cluster`, which runs as root; see `cluster --help`. `cluster test` takes the arguments
    /// of `up` and brings a cluster of its own up, smoke-tests it and takes it down.
    #[command(disable_help_flag = true)]
    Cluster {
        /// Arguments of `weir-cluster`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run the upstream tests of Kubernetes and of network policies in the cluster that is up
    ///
    /// Everything after `e2e` goes to `weir-cluster e2e`, which runs as root; see `e2e --help`.
    #[command(disable_help_flag = true)]
    E2e {
        /// Arguments of `weir-cluster e2e`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run the tests: the pure ones as you, those in network namespaces as root
    Test {
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Measure what things cost: `bench policy`, `bench services`, `bench network`
    ///
    /// Everything after `bench` goes to `weir-bench`, which runs as root; see `bench --help`.
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments of `weir-bench`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Check formatting, clippy, warnings, licences and advisories
    Lint,
    /// Write manifests/weir.yaml and the Helm chart from manifests/kustomize/base
    Manifests,
    /// Load every eBPF program into the kernels that Weir supports, in QEMU, and run a small lab there
    VmTest {
        /// Only load and attach
        #[arg(long)]
        load_only: bool,
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
        Chore::Build { ebpf: true, log } => {
            let variant = if log {
                build::Object::Log
            } else {
                build::Object::Plain
            };
            let object = build::ebpf(&ctx, variant)?;
            step::line(&format!("  built: {}", object.display()));
        }
        Chore::Build { ebpf: false, .. } => build::dist(&ctx)?,
        Chore::Demo { args } => return demo::run(&ctx, &args),
        Chore::Bench { args } => return bench::run(&ctx, &args),
        Chore::Image { import } => cluster::image(&ctx, import.as_deref())?,
        Chore::Cluster { args } => return cluster::run(&ctx, &args),
        Chore::E2e { args } => return cluster::e2e(&ctx, &args),
        Chore::VmTest { load_only } => test::verdict(vm::run(&ctx, load_only)?)?,
        Chore::Manifests => manifests::run(&ctx)?,
        Chore::Lint => test::verdict(lint::run(&ctx)?)?,
        Chore::Test { filter } => test::verdict(test::run(&ctx, filter.as_deref())?)?,
    }
    Ok(ExitCode::SUCCESS)
}
