//! What a node's containerd knows, asked on the node itself: also while no API server answers.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::kit::World;

/// Where libcni keeps what plugins answered.
const RESULTS: &str = "/var/lib/cni/results";
/// The network's name in Weir's conflist.
const NETWORK: &str = "weir";

/// A node.
#[derive(Clone)]
pub struct NodeView<'a> {
    world: &'a World,
    node: &'a str,
}

impl<'a> NodeView<'a> {
    /// Of the node of that name.
    pub fn new(world: &'a World, node: &'a str) -> Self {
        Self { world, node }
    }

    async fn ctr(&self, args: &[&str]) -> Result<String> {
        let all = [&["ctr", "-n", "k8s.io"][..], args].concat();
        self.world.on_node(self.node, &all).await
    }

    /// The process of a container that runs.
    ///
    /// # Errors
    /// None of that id runs.
    pub async fn pid(&self, container: &str) -> Result<u32> {
        let tasks = self.ctr(&["tasks", "ls"]).await?;
        pid_of(&tasks, container).with_context(|| format!("no container {container} runs"))
    }

    /// Kills a container.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&self, container: &str) -> Result<()> {
        self.ctr(&["tasks", "kill", "-s", "KILL", container])
            .await?;
        Ok(())
    }

    /// The sandbox of a pod that runs, other than `old`.
    ///
    /// # Errors
    /// It has none.
    pub async fn sandbox(&self, namespace: &str, pod: &str, old: Option<&str>) -> Result<String> {
        let filter = format!(
            "labels.\"io.kubernetes.pod.namespace\"=={namespace},labels.\"io.kubernetes.pod.name\"=={pod},\
             labels.\"io.cri-containerd.kind\"==sandbox"
        );
        let ids = self.ctr(&["containers", "ls", "-q", &filter]).await?;
        for id in ids.lines().filter(|id| Some(*id) != old) {
            if self.pid(id).await.is_ok() {
                return Ok(id.to_owned());
            }
        }
        bail!("{namespace}/{pod} has no sandbox on {}", self.node)
    }

    /// What libcni has kept of the ADD for a sandbox.
    ///
    /// # Errors
    /// Nothing, as ADD has not succeeded.
    pub async fn kept(&self, sandbox: &str) -> Result<Value> {
        let file = format!("{RESULTS}/{NETWORK}-{sandbox}-eth0");
        let text = self.world.on_node(self.node, &["cat", &file]).await?;
        serde_json::from_str(&text).with_context(|| format!("{file} on {}", self.node))
    }

    /// The first address of a sandbox.
    ///
    /// # Errors
    /// ADD has not succeeded.
    pub async fn address(&self, sandbox: &str) -> Result<String> {
        let kept = self.kept(sandbox).await?;
        let address = kept["result"]["ips"][0]["address"].as_str();
        let address = address.context("the result has no address")?;
        Ok(address.split('/').next().unwrap_or(address).to_owned())
    }

    /// What a URL answers a process's network namespace, within `limit` seconds.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn get_as(&self, pid: u32, limit: &str, url: &str) -> Result<String> {
        let net = format!("--net=/proc/{pid}/ns/net");
        let curl = ["curl", "-gsSf", "--noproxy", "*", "--max-time", limit, url];
        let all = [&["nsenter", &net][..], &curl].concat();
        self.world.on_node(self.node, &all).await
    }
}

/// Reads `ctr tasks ls`: TASK, PID, STATUS.
fn pid_of(tasks: &str, container: &str) -> Option<u32> {
    tasks.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (id, pid, status) = (fields.next()?, fields.next()?, fields.next()?);
        let runs = id == container && status == "RUNNING";
        runs.then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_container_that_runs_has_a_process() {
        let tasks = "TASK    PID      STATUS\nab      29931    RUNNING\ncd      29953    STOPPED\n";
        assert_eq!(pid_of(tasks, "ab"), Some(29931));
        assert_eq!(pid_of(tasks, "cd"), None);
        assert_eq!(pid_of(tasks, "TASK"), None);
    }
}
