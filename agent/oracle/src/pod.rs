//! What is judged of a pod.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::cluster::key;
use crate::party::Protocol;
use crate::ports::{self, NamedPort};
use crate::selector::Labels;

/// A pod that has not ended.
#[derive(Clone, Debug)]
pub(crate) struct PodInfo {
    pub namespace: String,
    pub name: String,
    pub labels: Labels,
    pub node: Option<String>,
    pub host_network: bool,
    /// Those it owns; at most one per family counts, the first.
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<NamedPort>,
    pub created: Option<Time>,
    /// As the EndpointSlice controller sees it: the condition `Ready`; a pod of which no condition
    /// is known (a manifest) counts as ready.
    pub ready: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// The first address that a newer pod took, and that pod.
    pub lost: Option<(IpAddr, String)>,
}

impl PodInfo {
    pub fn read(pod: &Pod) -> Self {
        let (namespace, name) = key(&pod.metadata);
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let listed = status
            .and_then(|s| s.pod_ips.as_ref())
            .into_iter()
            .flatten();
        let listed = listed.map(|ip| ip.ip.as_str());
        let single = status.and_then(|s| s.pod_ip.as_deref());
        let mut addresses: Vec<IpAddr> = Vec::new();
        for text in listed.chain(single) {
            match text.parse() {
                Ok(addr) if !addresses.contains(&addr) => addresses.push(addr),
                _ => {}
            }
        }
        Self {
            namespace,
            name,
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            node: spec
                .and_then(|s| s.node_name.clone())
                .filter(|n| !n.is_empty()),
            host_network: spec.and_then(|s| s.host_network).unwrap_or(false),
            addresses,
            ports: ports::named_ports(pod),
            created: pod.metadata.creation_timestamp.clone(),
            ready: is_ready(pod),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            lost: None,
        }
    }

    pub fn named_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let mut ports = self.ports.iter();
        let port = ports.find(|p| p.name == name && p.protocol == protocol)?;
        Some(port.number)
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    match conditions {
        None => true,
        Some(list) if list.is_empty() => true,
        Some(list) => list
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True"),
    }
}
