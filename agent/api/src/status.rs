//! `GET /v1/status`.

use serde::{Deserialize, Serialize};

/// How the agent is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// Whether the source has delivered a complete picture.
    pub synced: bool,
    /// Whether ADD can be served now: synced, programs loaded and attached.
    pub ready: bool,
    /// What is wrong, each naming its object and the remedy; empty when all is well.
    pub degraded: Vec<String>,
    /// What may be or become trouble on this node, with the remedy; the agent leaves it as it is.
    pub notes: Vec<String>,
    /// Kernel features, sorted by name.
    pub features: Vec<Feature>,
    /// This node's pod CIDRs.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    /// Endpoints, services, policies, peers that the agent knows of.
    pub counts: Counts,
    /// What the agent has done since it started.
    pub activity: Activity,
}

/// What the agent has done to the kernel since it started. All zero after a restart that found
/// everything right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Activity {
    /// Writes to pinned maps.
    pub map_writes: u64,
    /// Programs loaded and pinned.
    pub programs_replaced: usize,
    /// Links attached, or given another program.
    pub links_changed: u64,
    /// Routes written or removed.
    pub routes_changed: u64,
}

/// A kernel feature and what Weir makes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// For example `tcx`.
    pub name: String,
    /// `used`, `fallback` or `missing`.
    pub state: String,
    /// What is used instead, or which kernel has it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Sizes of what the agent holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Endpoints of this node.
    pub endpoints: usize,
    /// Services.
    pub services: usize,
    /// NetworkPolicies.
    pub policies: usize,
    /// ClusterNetworkPolicies.
    #[serde(rename = "clusterPolicies")]
    pub cluster_policies: usize,
    /// Pods of the cluster.
    pub pods: usize,
}
