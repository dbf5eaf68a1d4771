//! The command line, and where things are (the environment says so; `cargo xtask cluster` sets it).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{
    bench::{BenchArgs, TimedArgs},
    e2e::E2eArgs,
    node::Hold,
    plan::MAX_NODES,
    scenario::ScenarioArgs,
};

/// Makes, shows and removes a real Kubernetes of several nodes on this machine.
///
/// Exit codes: 0 done; 1 it failed, the message says what and how to go on; 2 wrong arguments;
/// 3 `status` of a cluster that is not up as it was made, or `e2e` that could not be run; 130 interrupted (and taken down).
#[derive(Debug, Parser)]
#[command(name = "weir-cluster", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cluster and return once it is ready; it goes on in the background
    Up(UpArgs),
    /// End a cluster and remove all of it but its logs; also one that is half made, or dead
    Down(Which),
    /// Show the cluster's nodes and processes
    Status(StatusArgs),
    /// Run a program on a node, in its namespaces and cgroup
    Exec(ExecArgs),
    /// Run the upstream test suites against the cluster
    E2e(Box<E2eArgs>),
    /// Check that a fresh cluster works: nodes, names, a Service of each kind, a policy, a restart
    Smoke(Which),
    /// Run scenarios: what a cluster goes through while connections are made
    Scenario(ScenarioArgs),
    /// Measure
    Bench(BenchArgs),
    /// Run a CNI plugin and write down how long it took; called by containerd in `bench pod-start`
    #[command(hide = true)]
    Timed(TimedArgs),
    /// Hold a node's (or the wire's) namespaces; started by `up`
    #[command(hide = true)]
    Hold {
        /// What to hold, as JSON.
        #[arg(value_parser = parse_hold)]
        hold: Hold,
    },
    /// Forward connections into a node; started by `up`
    #[command(hide = true)]
    Forward {
        /// The namespace to connect in.
        netns: PathBuf,
        /// The address to connect to.
        to: std::net::SocketAddr,
    },
    /// Stand for the world outside; started by `up`
    #[command(hide = true)]
    World {
        /// The namespace to listen in.
        netns: PathBuf,
    },
}

/// Which cluster.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// The cluster's name: several can run at a time
    #[arg(long, default_value = "weir", value_parser = parse_name)]
    pub name: String,
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Which cluster.
    #[command(flatten)]
    pub which: Which,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

/// Arguments of `exec`.
#[derive(Args, Debug)]
pub struct ExecArgs {
    /// Which cluster.
    #[command(flatten)]
    pub which: Which,
    /// The node: n1, n2, …
    pub node: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub program: Vec<String>,
}

/// Arguments of `up`.
#[derive(Args, Clone, Debug)]
pub struct UpArgs {
    /// Which cluster.
    #[command(flatten)]
    pub which: Which,
    /// What it is to be.
    #[command(flatten)]
    pub options: Options,
}

/// What a cluster is to be.
#[derive(Args, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// How many nodes; the control plane is on the first, as on any other
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_NODES)))]
    pub nodes: u8,
    /// What wires the pods: Weir, nothing, or the reference plugins bridge and host-local
    #[arg(long, value_enum, default_value = "weir")]
    pub cni: Cni,
    /// Both address families, IPv4 first
    #[arg(long, conflicts_with = "ipv6")]
    pub dual_stack: bool,
    /// IPv6 only
    #[arg(long)]
    pub ipv6: bool,
    /// Which containerd
    #[arg(long, value_enum, default_value = "2")]
    pub containerd: Containerd,
    /// Who gives the nodes their pod CIDRs: kube-controller-manager, or Weir
    #[arg(long, value_enum, default_value = "controller")]
    pub node_cidrs: NodeCidrs,
}

/// What wires the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cni {
    /// Weir, by the shipped manifest; Services and CoreDNS.
    Weir,
    /// Nothing: nodes stay NotReady.
    None,
    /// The reference plugins; no Services, as nothing serves them.
    Bridge,
}

/// Which containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Containerd {
    /// 2.x: CNI 1.1, with STATUS and GC.
    #[value(name = "2")]
    #[serde(rename = "2")]
    Two,
    /// 1.6, the distribution's: CNI 1.0.
    #[value(name = "1.6")]
    #[serde(rename = "1.6")]
    OneSix,
}

/// Who gives the nodes their pod CIDRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodeCidrs {
    /// kube-controller-manager.
    Controller,
    /// Weir, by `cluster-cidr`.
    Weir,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The longest name: it is part of cgroup and interface paths.
const MAX_NAME: usize = 20;

fn parse_name(text: &str) -> Result<String, String> {
    let good = !text.is_empty()
        && text.len() <= MAX_NAME
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if good {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not 1 to {MAX_NAME} of a-z, 0-9 and `-`"
        ))
    }
}

fn parse_hold(text: &str) -> Result<Hold, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

/// Where the files of a cluster are.
#[derive(Clone, Debug)]
pub struct Dirs {
    /// State: `WEIR_CLUSTER_DIR` (`target/cluster`), with `-NAME` behind it for a name of one's own.
    pub state: PathBuf,
}

impl Dirs {
    /// Finds them; the state's folder need not exist.
    ///
    /// # Errors
    /// The current folder is gone.
    pub fn of(which: &Which) -> Result<Self> {
        Ok(Self {
            state: state_dir(&Self::default_state()?, &which.name),
        })
    }

    /// The state of the cluster that was given no name.
    ///
    /// # Errors
    /// The current folder is gone.
    pub fn default_state() -> Result<PathBuf> {
        let base =
            std::env::var_os("WEIR_CLUSTER_DIR").map_or("target/cluster".into(), PathBuf::from);
        std::path::absolute(&base).with_context(|| format!("cannot find {}", base.display()))
    }
}

fn state_dir(base: &Path, name: &str) -> PathBuf {
    if name == "weir" {
        return base.to_owned();
    }
    let mut path = base.as_os_str().to_owned();
    path.push("-");
    path.push(name);
    path.into()
}

/// A folder that the environment names.
///
/// # Errors
/// It does not, or there is no such folder.
pub fn folder(variable: &str) -> Result<PathBuf> {
    let value = std::env::var_os(variable).with_context(|| {
        format!("{variable} is not set; `cargo xtask cluster` builds what is needed and sets it")
    })?;
    let path = std::path::absolute(PathBuf::from(value))?;
    ensure!(
        path.is_dir(),
        "{variable} names {}, which is no folder",
        path.display()
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Result<UpArgs, clap::Error> {
        let all = ["weir-cluster", "up"].iter().chain(args);
        match Cli::try_parse_from(all)?.command {
            Command::Up(up) => Ok(up),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn up_without_arguments_is_two_nodes_with_weir() {
        let up = options(&[]).unwrap();
        assert_eq!(up.which.name, "weir");
        assert_eq!((up.options.nodes, up.options.cni), (2, Cni::Weir));
        assert_eq!(up.options.containerd, Containerd::Two);
    }

    #[test]
    fn one_cannot_ask_for_both_and_for_ipv6_only() {
        assert!(options(&["--dual-stack", "--ipv6"]).is_err());
        assert!(options(&["--ipv6"]).unwrap().options.ipv6);
    }

    #[test]
    fn node_counts_and_names_that_have_no_address_or_path_are_refused() {
        for wrong in [
            &["--nodes", "0"],
            &["--nodes", "10"],
            &["--name", "a/b"],
            &["--name", ""],
        ] {
            assert!(options(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(
            options(&["--containerd", "1.6"])
                .unwrap()
                .options
                .containerd,
            Containerd::OneSix
        );
    }

    #[test]
    fn a_name_of_ones_own_has_a_folder_of_its_own() {
        assert_eq!(state_dir(Path::new("/x/c"), "weir"), Path::new("/x/c"));
        assert_eq!(state_dir(Path::new("/x/c"), "b"), Path::new("/x/c-b"));
    }
}
