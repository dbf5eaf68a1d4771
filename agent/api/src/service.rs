//! `GET /v1/services`.

use serde::{Deserialize, Serialize};

/// A Service as the node serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceInfo {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `spec.type`; `HostPort` for a Pod with HostPorts.
    #[serde(rename = "type")]
    pub kind: String,
    /// Sorted by address, port, protocol.
    pub frontends: Vec<FrontendInfo>,
    /// What is wrong with the Service or its EndpointSlices, each naming object and field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// An address and port that clients dial.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FrontendInfo {
    /// IP address.
    pub address: String,
    /// Port.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port's name; empty if it has none.
    pub port_name: String,
    /// `ClusterIP`, `NodePort`, `ExternalIP`, `LoadBalancer` or `HostPort`. The address of a NodePort, and of a
    /// HostPort without one, is `0.0.0.0` or `::`: every address of the node that serves them.
    pub kind: String,
    /// Who finds it: `everyone`, or those `outside`, who come in by an uplink. Where there is one for
    /// those, the other is for pods and the node itself.
    #[serde(rename = "for")]
    pub from: String,
    /// The traffic policy: `Cluster`, or `Local` if it only leads to backends on this node.
    pub policy: String,
    /// How long a client that opens no connection keeps its backend, in seconds; 0: no affinity.
    #[serde(skip_serializing_if = "is_zero")]
    pub affinity_seconds: u32,
    /// The prefixes whose clients may use it; without it, everyone may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ranges: Option<Vec<String>>,
    /// Whether the kernel's maps lead this frontend to these backends.
    pub programmed: bool,
    /// Sorted by address and port; empty means that connections are refused.
    pub backends: Vec<BackendInfo>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(seconds: &u32) -> bool {
    *seconds == 0
}

/// Where connections to a frontend go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendInfo {
    /// IP address.
    pub address: String,
    /// Port.
    pub port: u16,
    /// `active` (takes new connections), `draining` (terminates, and keeps those it has), `unused` (ready, but
    /// not for this frontend on this node; keeps those it has) or `notReady`.
    pub state: String,
    /// `namespace/name` of the pod, if it is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Its node, if known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
}
