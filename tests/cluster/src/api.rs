//! A running cluster, for what is done with one: its state, its API, programs on its nodes.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    process::Place,
    state::{Node, State},
};

/// A cluster that `up` has made.
#[derive(Clone, Debug)]
pub struct Cluster {
    dir: PathBuf,
    state: State,
}

impl Cluster {
    /// Opens the cluster whose state is in `dir`.
    ///
    /// # Errors
    /// There is none, or it is of an earlier boot.
    pub fn open(dir: &Path) -> Result<Self> {
        let state = State::load(dir)?.with_context(|| {
            format!(
                "there is no cluster in {}; start one: cargo xtask cluster up",
                dir.display()
            )
        })?;
        ensure!(
            state.of_this_boot()?,
            "the cluster in {} did not survive a reboot; take it down: cargo xtask cluster down",
            dir.display()
        );
        Ok(Self {
            dir: dir.to_owned(),
            state,
        })
    }

    /// Its state, as `up` left it.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The folder of its files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its nodes, the one with the control plane first.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.state.nodes
    }

    /// The administrator's kubeconfig for the machine's own shell, through the forwarder.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        kubeconfig(&self.dir)
    }

    /// A client with all rights.
    ///
    /// # Errors
    /// The kubeconfig cannot be read.
    pub async fn client(&self) -> Result<Client> {
        client(&self.kubeconfig()).await
    }

    /// A program that will run on a node: in its namespaces, in the cgroup of its host processes.
    ///
    /// # Errors
    /// There is no such node, or it is not up any more.
    pub fn command_in(&self, node: &str, program: &str) -> Result<Command> {
        command_in(&self.dir, self.state.node(node)?, &self.state.bin, program)
    }
}

/// Where the administrator's kubeconfig is.
#[must_use]
pub fn kubeconfig(dir: &Path) -> PathBuf {
    dir.join("kubeconfig")
}

/// Where the administrator's kubeconfig for programs on the nodes is.
#[must_use]
pub fn node_kubeconfig(dir: &Path) -> PathBuf {
    dir.join("kubeconfig-node")
}

/// The cgroup of a node's host processes.
#[must_use]
pub fn host_cgroup(node: &Node) -> PathBuf {
    node.cgroup.join("host")
}

/// A program on a node; the cluster's own programs come first in its `PATH`.
///
/// # Errors
/// The node is not up any more.
pub fn command_in(dir: &Path, node: &Node, bin: &Path, program: &str) -> Result<Command> {
    ensure!(
        node.holder.alive(),
        "the node {} is not up any more; take the cluster down and up again",
        node.name
    );
    let place = Place::new(node.holder.pid, &host_cgroup(node))?;
    let mut command = place.command(program);
    command
        .env("PATH", path_with(bin))
        .env("KUBECONFIG", node_kubeconfig(dir));
    Ok(command)
}

/// `PATH` with `folder` first.
#[must_use]
pub fn path_with(folder: &Path) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    let mut all = vec![folder.to_owned()];
    all.extend(std::env::split_paths(&path));
    all.extend(usual);
    // Only a folder with a colon in its name cannot be joined.
    std::env::join_paths(all).unwrap_or(path)
}

/// A client by a kubeconfig.
///
/// # Errors
/// It cannot be read.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let wrong = || format!("cannot use {}", kubeconfig.display());
    let file = Kubeconfig::read_from(kubeconfig).with_context(wrong)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(wrong)?;
    Client::try_from(config).with_context(wrong)
}
