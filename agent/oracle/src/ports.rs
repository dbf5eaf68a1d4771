//! The `ports` of rules, and the named ports of pods.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::party::Protocol;
use crate::refusal::Refusal;

/// One element of a rule's `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortMatch {
    pub protocol: Protocol,
    pub ports: Ports,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ports {
    /// All ports of the protocol.
    All,
    /// First and last.
    Range(u16, u16),
    /// A name, looked up on the destination pod.
    Named(String),
}

impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ports {
            Ports::All => write!(f, "*")?,
            Ports::Range(first, last) if first == last => write!(f, "{first}")?,
            Ports::Range(first, last) => write!(f, "{first}-{last}")?,
            Ports::Named(name) => write!(f, "{name:?}")?,
        }
        write!(f, "/{}", self.protocol)
    }
}

/// One element of `ports`, at `path`.
pub(crate) fn parse(port: &NetworkPolicyPort, path: &str) -> Result<PortMatch, Refusal> {
    let refuse = |field: &str, reason: String| Refusal::new(format!("{path}.{field}"), reason);
    let protocol = match port.protocol.as_deref() {
        None => Protocol::Tcp,
        Some(name) => protocol(name)
            .ok_or_else(|| refuse("protocol", format!("{name:?} is none of TCP, UDP, SCTP")))?,
    };
    let ports = match (&port.port, port.end_port) {
        (None, None) => Ports::All,
        (None, Some(_)) => return Err(refuse("endPort", "needs port".to_owned())),
        (Some(IntOrString::Int(number)), end) => {
            let first = number_in_range(*number).map_err(|e| refuse("port", e))?;
            let last = match end {
                None => first,
                Some(end) => number_in_range(end).map_err(|e| refuse("endPort", e))?,
            };
            if last < first {
                return Err(refuse("endPort", format!("{last} is below port {first}")));
            }
            Ports::Range(first, last)
        }
        (Some(IntOrString::String(name)), None) => {
            check_name(name).map_err(|e| refuse("port", e))?;
            Ports::Named(name.clone())
        }
        (Some(IntOrString::String(_)), Some(_)) => {
            return Err(refuse("endPort", "needs a numeric port".to_owned()));
        }
    };
    Ok(PortMatch { protocol, ports })
}

/// The API's protocol names are upper case, nothing else.
pub(crate) fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

fn number_in_range(number: i32) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(format!("{number} is no port: it must be 1 to 65535")),
    }
}

/// 1 to 15 of `a-z0-9-`, at least one letter, no `-` at an end, no `--` (apimachinery
/// `IsValidPortName`).
fn check_name(name: &str) -> Result<(), String> {
    let good = (1..=15).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-');
    if good {
        Ok(())
    } else {
        Err(format!("{name:?} is no port name"))
    }
}

/// A named port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPort {
    pub name: String,
    pub protocol: Protocol,
    pub number: u16,
}

/// The pod's named ports, in the order in which they are looked up: containers, then init
/// containers that keep running (`restartPolicy: Always`).
pub(crate) fn named_ports(pod: &Pod) -> Vec<NamedPort> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let keeps_running = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(keeps_running);
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(NamedPort {
                name: port.name.clone()?,
                protocol: protocol(port.protocol.as_deref().unwrap_or("TCP"))?,
                number: number_in_range(port.container_port).ok()?,
            })
        })
        .collect()
}
