//! What counts of the objects besides their meaning, which is the evaluator's.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod};
use weir_abi::Proto;
use weir_api::endpoint::PodRef;
use weir_oracle::Cluster;

use super::ends::Whose;

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
    let rules = cluster.cluster_policies.iter();
    let rules = rules.flat_map(|policy| policy.spec.egress.iter().flatten());
    let peers = rules.flat_map(|rule| rule.to.iter().flatten());
    let networks = peers.flat_map(|peer| peer.networks.iter().flatten());
    found.extend(networks.filter_map(|text| Block::parse(text)));
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

/// Whose an endpoint is that was adopted for this pod.
pub fn whose(pod: Option<&PodRef>, cluster: &Cluster) -> Whose {
    let Some(PodRef {
        namespace,
        name,
        uid,
    }) = pod
    else {
        return Whose::Nobody;
    };
    let of_name = |pod: &&Pod| {
        pod.metadata.name.as_ref() == Some(name)
            && pod.metadata.namespace.as_deref().unwrap_or("default") == namespace
    };
    let object = cluster.pods.iter().find(of_name);
    let same = |object: &Pod| {
        // A static pod's CNI arguments carry its config hash instead of the API's UID.
        let hashes = object.metadata.annotations.iter().flatten();
        let mut hashes = hashes.filter(|(key, _)| *key == "kubernetes.io/config.hash");
        let known = object.metadata.uid.as_ref();
        uid.is_none()
            || known.is_none()
            || known == uid.as_ref()
            || hashes.any(|(_, hash)| Some(hash) == uid.as_ref())
    };
    if object.is_some_and(|object| same(object) && is_live(object)) {
        Whose::Pod(namespace.clone(), name.clone())
    } else {
        Whose::Gone(namespace.clone(), name.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_endpoint_is_its_pods_while_that_very_pod_is_there() {
        let object = |value| -> Vec<Pod> { serde_json::from_value(value).unwrap() };
        let pods = object(json!([
            {"metadata": {"namespace": "a", "name": "x", "uid": "1"}},
            {"metadata": {"namespace": "a", "name": "done", "uid": "2"}, "status": {"phase": "Failed"}},
            {"metadata": {"namespace": "a", "name": "static", "uid": "3",
                          "annotations": {"kubernetes.io/config.hash": "h"}}},
        ]));
        let cluster = Cluster {
            pods,
            ..Cluster::default()
        };
        let of = |name: &str, uid: Option<&str>| {
            let pod = PodRef {
                namespace: "a".into(),
                name: name.into(),
                uid: uid.map(str::to_owned),
            };
            matches!(whose(Some(&pod), &cluster), Whose::Pod(..))
        };
        assert!(of("x", Some("1")) && of("x", None) && of("static", Some("h")));
        assert!(!of("x", Some("9")) && !of("y", None) && !of("done", Some("2")));
        assert_eq!(whose(None, &cluster), Whose::Nobody);
    }
}
