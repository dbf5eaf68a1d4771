//! What counts of a Pod.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use weir_abi::Addr;

use crate::port::{PortName, named_ports};
use crate::selector::Labels;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PodInfo {
    pub namespace: String,
    pub uid: Option<String>,
    pub labels: Arc<Labels>,
    pub ports: Vec<(PortName, u16)>,
    pub addresses: Vec<Addr>,
    /// On the host's network: no policy selects it, no selector finds it.
    pub host_network: bool,
    /// Succeeded or failed: no peer any more, and its address is free.
    pub finished: bool,
    pub created: Option<Timestamp>,
}

impl PodInfo {
    pub fn read(namespace: String, pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let phase = status.and_then(|s| s.phase.as_deref());
        let listed = status.iter().flat_map(|s| s.pod_ips.iter().flatten());
        let single = status.and_then(|s| s.pod_ip.as_deref());
        let mut addresses: Vec<Addr> = listed
            .map(|ip| ip.ip.as_str())
            .chain(single)
            .filter_map(|text| text.parse::<IpAddr>().ok())
            .map(Addr::from)
            .collect();
        addresses.sort();
        addresses.dedup();
        Self {
            namespace,
            uid: pod.metadata.uid.clone(),
            labels: Arc::new(pod.metadata.labels.clone().unwrap_or_default()),
            ports: named_ports(pod),
            addresses,
            host_network: spec.and_then(|s| s.host_network).unwrap_or(false),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
        }
    }

    /// Whether selectors can find it and addresses be its own.
    pub fn is_peer(&self) -> bool {
        !self.host_network && !self.finished
    }

    /// Whether it is the pod with this UID, as far as both are known.
    pub fn has_uid(&self, uid: Option<&String>) -> bool {
        self.uid.is_none() || uid.is_none() || self.uid.as_ref() == uid
    }

    pub fn port(&self, name: &PortName) -> Option<u16> {
        let found = self.ports.iter().find(|(other, _)| other == name);
        found.map(|(_, number)| *number)
    }
}

/// The labels of a namespace: the API server sets one on each.
pub(crate) fn namespace_labels(name: &str, labels: Option<&Labels>) -> Labels {
    let mut labels: BTreeMap<_, _> = labels.cloned().unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    labels
}
