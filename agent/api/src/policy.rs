//! `GET /v1/policies`.

use serde::{Deserialize, Serialize};

/// A NetworkPolicy and the endpoints of this node that it isolates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyInfo {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `namespace/pod` of the endpoints it isolates towards themselves, sorted.
    pub ingress: Vec<String>,
    /// The same for what they send.
    pub egress: Vec<String>,
}
