//! `POST /v1/policy/verdict`: what the kernel's maps say of one flow in one direction.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The question: a local endpoint, and who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerdictRequest {
    /// An address of the local endpoint.
    pub endpoint: IpAddr,
    /// As seen from the endpoint.
    pub direction: FlowDirection,
    /// The address of the other end, after service translation.
    pub peer: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port of the flow, host order; 0 for protocols without ports.
    pub port: u16,
}

/// Ingress or egress, as seen from the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowDirection {
    /// Towards the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

/// The answer, read from the maps and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelVerdict {
    /// Whether a new flow passes.
    pub allowed: bool,
    /// The id of the rule that decided.
    pub rule_id: u32,
    /// The rule's name out of the `RULES` map (see `RuleInfo` in the ABI), where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<serde_json::Value>,
    /// The endpoint's group in that direction.
    pub group: u32,
    /// The peer's class.
    pub class: u32,
}
