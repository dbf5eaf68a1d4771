//! `status`: what runs, and what the API says of the nodes.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, api::ListParams};
use serde::Serialize;

use crate::{api::Cluster, process::Process, state};

/// How long the API may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// A cluster's status; the shape of `--output json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The cluster's name.
    pub name: String,
    /// Whether it is as `up` left it: everything runs and the API answers.
    pub up: bool,
    /// The kubeconfig for the machine's own shell.
    pub kubeconfig: std::path::PathBuf,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// Processes that have ended, by name.
    pub ended: Vec<String>,
    /// Running pods, and all.
    pub pods: Option<[usize; 2]>,
    /// Why the API does not answer.
    pub api_error: Option<String>,
}

/// A node's status.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// The process that holds its namespaces: `nsenter -t PID -n -m -u`.
    pub holder: u32,
    /// Its condition Ready; none while the API does not know it.
    pub ready: Option<bool>,
    /// Its pod CIDRs.
    pub pod_cidrs: Vec<String>,
}

/// Asks processes and API.
///
/// # Errors
/// The client cannot be made.
pub async fn status(cluster: &Cluster) -> Result<Status> {
    let state = cluster.state();
    let ended: Vec<String> = state
        .dead()
        .into_iter()
        .map(|p: &Process| p.name.clone())
        .collect();
    let asked = tokio::time::timeout(LIMIT, ask(cluster))
        .await
        .context("the API server does not answer")
        .and_then(|answer| answer);
    let (nodes, pods, api_error) = match asked {
        Ok((nodes, pods)) => (nodes, Some(pods), None),
        Err(error) => (Vec::new(), None, Some(format!("{error:#}"))),
    };
    Ok(Status {
        name: state.name.clone(),
        up: state.ready && ended.is_empty() && api_error.is_none(),
        kubeconfig: cluster.kubeconfig(),
        nodes: cluster
            .nodes()
            .iter()
            .map(|node| node_status(node, &nodes))
            .collect(),
        ended,
        pods: pods.map(|(running, all)| [running, all]),
        api_error,
    })
}

async fn ask(cluster: &Cluster) -> Result<(Vec<Node>, (usize, usize))> {
    let client = cluster.client().await?;
    let everything = ListParams::default();
    let nodes = Api::<Node>::all(client.clone()).list(&everything).await?;
    let pods = Api::<Pod>::all(client).list(&everything).await?;
    let running = pods.iter().filter(|pod| {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        phase == Some("Running")
    });
    let counts = (running.count(), pods.items.len());
    Ok((nodes.items, counts))
}

fn node_status(node: &state::Node, known: &[Node]) -> NodeStatus {
    let object = known
        .iter()
        .find(|object| object.metadata.name.as_deref() == Some(&node.name));
    NodeStatus {
        name: node.name.clone(),
        addresses: node.addresses.clone(),
        holder: node.holder.pid,
        ready: object.map(is_ready),
        pod_cidrs: object.map(pod_cidrs).unwrap_or_default(),
    }
}

/// Whether a node's condition Ready is true.
#[must_use]
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// A node's pod CIDRs, as they are written.
#[must_use]
pub fn pod_cidrs(node: &Node) -> Vec<String> {
    let spec = node.spec.as_ref();
    spec.and_then(|s| s.pod_cidrs.clone()).unwrap_or_default()
}

impl Status {
    /// The same for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![format!(
            "cluster {}: {}",
            self.name,
            if self.up { "up" } else { "not as it was made" }
        )];
        for node in &self.nodes {
            let ready = match node.ready {
                Some(true) => "Ready",
                Some(false) => "NotReady",
                None => "unknown",
            };
            let addresses = crate::plan::commas(&node.addresses);
            lines.push(format!(
                "  {}  {ready:8}  {addresses}  pods {}  nsenter -t {} -n -m -u",
                node.name,
                node.pod_cidrs.join(","),
                node.holder
            ));
        }
        lines.extend(
            self.ended
                .iter()
                .map(|name| format!("  ended: {name} (see logs/{name}.log)")),
        );
        lines.extend(
            self.pods
                .map(|[running, all]| format!("  pods: {running} of {all} running")),
        );
        lines.extend(self.api_error.iter().map(|e| format!("  {e}")));
        lines.push(format!("  export KUBECONFIG={}", self.kubeconfig.display()));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(status: &str) -> Node {
        let object = serde_json::json!({
            "metadata": {"name": "n1"},
            "spec": {"podCIDRs": ["10.244.0.0/24"]},
            "status": {"conditions": [{"type": "Ready", "status": status}]},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_node_is_ready_by_its_condition_only() {
        assert!(is_ready(&node("True")));
        assert!(!is_ready(&node("Unknown")));
        assert!(!is_ready(&Node::default()));
    }
}
