//! `GET /v1/policies`.

use serde::{Deserialize, Serialize};

/// A policy and the endpoints of this node that it judges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyInfo {
    /// `NetworkPolicy` or `ClusterNetworkPolicy`.
    pub kind: String,
    /// Its namespace; empty where the kind has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// A ClusterNetworkPolicy's, `Admin` or `Baseline`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// A ClusterNetworkPolicy's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// A ClusterNetworkPolicy's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<PolicyCondition>,
    /// `namespace/pod` of the endpoints it isolates towards themselves, sorted; of a
    /// ClusterNetworkPolicy those that are its subject, where it has rules for that.
    pub ingress: Vec<String>,
    /// The same for what they send.
    pub egress: Vec<String>,
}

/// What is told of a ClusterNetworkPolicy, as it would stand in `status.conditions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyCondition {
    /// `Accepted` or `PartiallySupported`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// One word for programs.
    pub reason: String,
    /// For people.
    pub message: String,
}
