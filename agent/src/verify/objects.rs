//! What counts of the objects besides their meaning, which is the evaluator's.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod};
use weir_abi::Proto;
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

/// The ports that a pod's containers and sidecars declare: protocol and number.
pub fn container_ports(pod: &Pod) -> Vec<(u8, u16)> {
    named_ports(pod)
        .into_iter()
        .map(|(_, proto, port)| (proto, port))
        .collect()
}

/// The same with their names.
pub fn named_ports(pod: &Pod) -> Vec<(Option<&str>, u8, u16)> {
    let spec = pod.spec.iter();
    let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let containers = spec.flat_map(|spec| {
        let init = spec.init_containers.iter().flatten().filter(sidecar);
        spec.containers.iter().chain(init)
    });
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    let port = |port: &'_ k8s_openapi::api::core::v1::ContainerPort| {
        let number = u16::try_from(port.container_port).ok().filter(|n| *n > 0)?;
        Some((protocol(port.protocol.as_deref())?.0, number))
    };
    ports
        .filter_map(|p| port(p).map(|(proto, number)| (p.name.as_deref(), proto, number)))
        .collect()
}

/// A protocol by its name in objects; TCP where none is given.
pub fn protocol(name: Option<&str>) -> Option<Proto> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Proto::TCP),
        "UDP" => Some(Proto::UDP),
        "SCTP" => Some(Proto::SCTP),
        _ => None,
    }
}
