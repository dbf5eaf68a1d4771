//! `POST /v1/policy/live`: what the loaded programs do with the first packet of a flow.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The question: a flow, one end of which is an endpoint of the node that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveRequest {
    /// Who sends.
    pub source: IpAddr,
    /// To whom; may be a Service's address if the source is an endpoint of this node.
    pub destination: IpAddr,
    /// IP protocol number: TCP, UDP, SCTP or ICMP.
    pub protocol: u8,
    /// Destination port, host order; 0 for ICMP.
    pub port: u16,
    /// The source port (the identifier of an echo). Without it, one that no tracked flow has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
}

/// What the program did with the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveAnswer {
    /// The program: `from_pod`, `to_pod` or `from_uplink`.
    pub program: String,
    /// What becomes of the packet: `forwarded`, `dropped`, `refused`, `answered`, `ignored`.
    pub action: String,
    /// Where to, or why: the labels of `weir_packets_total`.
    pub reason: String,
    /// The verdict at the source, if the program judged there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<LiveVerdict>,
    /// The verdict at the destination, if the program judged there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<LiveVerdict>,
    /// Whether an entry of conntrack decided.
    pub tracked: bool,
    /// The source port of the packet.
    pub source_port: u16,
    /// The backend that was chosen for a flow to a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<LiveBackend>,
}

/// A verdict of the program's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveVerdict {
    /// Whether the flow passes.
    pub allowed: bool,
    /// The id of the rule that decided.
    pub rule_id: u32,
    /// The rule's name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<serde_json::Value>,
}

/// Where a Service's flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveBackend {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}
