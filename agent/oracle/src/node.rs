//! What is judged of a Node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;

use crate::cidr::Cidr;
use crate::selector::Labels;

/// A Node object.
#[derive(Clone, Debug)]
pub(crate) struct NodeInfo {
    pub labels: Labels,
    /// All in `status.addresses` that are addresses, whatever their type.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`, or else `spec.podCIDR`; what is no CIDR holds nothing.
    pub pod_cidrs: Vec<Cidr>,
}

/// By name; of two the last counts.
pub(crate) fn read_all(nodes: &[Node]) -> BTreeMap<String, NodeInfo> {
    let named = nodes.iter().map(|node| {
        let name = node.metadata.name.clone().unwrap_or_default();
        (name, NodeInfo::read(node))
    });
    named.collect()
}

impl NodeInfo {
    fn read(node: &Node) -> Self {
        let listed = node
            .status
            .iter()
            .flat_map(|s| s.addresses.iter().flatten());
        let addresses = listed.filter_map(|a| a.address.parse().ok());
        let spec = node.spec.clone().unwrap_or_default();
        let mut cidrs = spec.pod_cidrs.unwrap_or_default();
        if cidrs.is_empty() {
            cidrs.extend(spec.pod_cidr);
        }
        Self {
            labels: node.metadata.labels.clone().unwrap_or_default(),
            addresses: addresses.collect(),
            pod_cidrs: cidrs.iter().filter_map(|c| Cidr::parse(c).ok()).collect(),
        }
    }
}
