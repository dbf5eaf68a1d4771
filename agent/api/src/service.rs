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
    /// `spec.type`.
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
    /// Whether the kernel's maps lead this frontend to these backends.
    pub programmed: bool,
    /// Sorted by address and port; empty means that connections are refused.
    pub backends: Vec<BackendInfo>,
}

/// Where connections to a frontend go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendInfo {
    /// IP address.
    pub address: String,
    /// Port.
    pub port: u16,
    /// `active` (takes new connections), `draining` (keeps those it has) or `notReady`.
    pub state: String,
    /// `namespace/name` of the pod, if it is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Its node, if known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
}
