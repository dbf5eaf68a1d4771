//! What counts of the objects besides their meaning, which is the evaluator's.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use weir_oracle::Cluster;

use crate::space::Block;

/// Whether the pod has a network of its own.
pub fn is_live(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let ended = matches!(phase, Some("Succeeded" | "Failed"));
    let on_host = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
    !ended && !on_host
}

/// Every block that a policy names, those it makes exceptions of included.
pub fn blocks(cluster: &Cluster) -> BTreeSet<Block> {
    let mut found = BTreeSet::new();
    for policy in &cluster.policies {
        let Some(spec) = &policy.spec else { continue };
        let from = spec
            .ingress
            .iter()
            .flatten()
            .flat_map(|rule| rule.from.iter().flatten());
        let to = spec
            .egress
            .iter()
            .flatten()
            .flat_map(|rule| rule.to.iter().flatten());
        for block in from.chain(to).filter_map(|peer| peer.ip_block.as_ref()) {
            let texts = [&block.cidr]
                .into_iter()
                .chain(block.except.iter().flatten());
            found.extend(texts.filter_map(|text| Block::parse(text)));
        }
    }
    found
}

/// The nodes' blocks of pod addresses.
pub fn pod_cidrs(cluster: &Cluster) -> BTreeSet<Block> {
    let specs = cluster.nodes.iter().filter_map(|node| node.spec.as_ref());
    let texts = specs.flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr));
    texts.filter_map(|text| Block::parse(text)).collect()
}
