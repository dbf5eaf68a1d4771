//! `node.json` in the state directory: what the agent tells the plugin about the node.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// Written by the agent with a rename; absent until the node is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFile {
    /// Layout of this file; 1.
    pub version: u32,
    /// Where the node's pods get their addresses, at most one per family.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNetwork>,
    /// IP MTU of pods' interfaces: the uplink's less the overlay's overhead, bytes.
    pub mtu: u32,
}

impl NodeFile {
    /// The file's name in the state directory.
    pub const NAME: &str = "node.json";
    /// The `version` this release writes.
    pub const VERSION: u32 = 1;
}
