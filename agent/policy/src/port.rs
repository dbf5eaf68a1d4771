//! Ports: sets of them, and the `ports` of rules.

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weir_abi::Proto;
use weir_abi::policy::Interval;

/// One past the last key that a protocol and a port can have.
const END: u32 = 1 << 24;

/// A set of (protocol, port), as disjoint ascending ranges of [`Interval::key`]s, first to one past
/// the last.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct PortSet(Vec<(u32, u32)>);

impl PortSet {
    /// Every protocol, also those without ports.
    pub fn everything() -> Self {
        Self(vec![(0, END)])
    }

    /// From ranges that may overlap.
    pub fn new(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Self(merged)
    }

    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What both hold, and what only `self` holds.
    pub fn split(&self, other: &Self) -> (Self, Self) {
        let (mut both, mut rest) = (Vec::new(), Vec::new());
        for &(mut start, end) in &self.0 {
            let first = other.0.partition_point(|range| range.1 <= start);
            for &(from, to) in other.0.iter().skip(first) {
                if from >= end {
                    break;
                }
                if start < from {
                    rest.push((start, from));
                }
                both.push((start.max(from), end.min(to)));
                start = end.min(to);
            }
            if start < end {
                rest.push((start, end));
            }
        }
        (Self(both), Self(rest))
    }

    /// What either holds.
    pub fn union(&self, other: &Self) -> Self {
        Self::new(self.0.iter().chain(&other.0).copied().collect())
    }
}

/// A port that is known by its name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct PortName {
    pub proto: Proto,
    pub name: String,
}

impl PortName {
    /// The ports it may stand for.
    pub fn any(&self) -> (u32, u32) {
        range(self.proto, 0, u16::MAX)
    }

    /// The ports it stands for, if it is `number`.
    pub fn range(&self, number: u16) -> (u32, u32) {
        range(self.proto, number, number)
    }
}

/// The `ports` of a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RulePorts {
    pub numeric: PortSet,
    /// Sorted, without duplicates.
    pub named: Vec<PortName>,
}

impl RulePorts {
    /// Everything, with or without ports.
    pub fn everything() -> Self {
        Self {
            numeric: PortSet::everything(),
            named: Vec::new(),
        }
    }

    /// The error is (field below the rule, reason).
    pub fn parse(ports: &[NetworkPolicyPort]) -> Result<Self, (String, String)> {
        if ports.is_empty() {
            return Ok(Self::everything());
        }
        let (mut ranges, mut named) = (Vec::new(), Vec::new());
        for (i, port) in ports.iter().enumerate() {
            match parse(port) {
                Ok(Port::Range(range)) => ranges.push(range),
                Ok(Port::Named(name)) => named.push(name),
                Err((field, reason)) => return Err((format!("ports[{i}].{field}"), reason)),
            }
        }
        named.sort();
        named.dedup();
        Ok(Self {
            numeric: PortSet::new(ranges),
            named,
        })
    }

    /// With the names looked up; a name that is not there allows nothing.
    pub fn resolve(&self, number: impl Fn(&PortName) -> Option<u16>) -> PortSet {
        let found = |name: &PortName| number(name).map(|number| name.range(number));
        PortSet::new(
            self.numeric
                .ranges()
                .iter()
                .copied()
                .chain(self.named.iter().filter_map(found))
                .collect(),
        )
    }
}

enum Port {
    Range((u32, u32)),
    Named(PortName),
}

/// The ports from `first` to `last`.
pub(crate) fn range(proto: Proto, first: u16, last: u16) -> (u32, u32) {
    (Interval::key(proto, first), Interval::key(proto, last) + 1)
}

/// The error is (field, reason).
fn parse(port: &NetworkPolicyPort) -> Result<Port, (&'static str, String)> {
    let name = port.protocol.as_deref().unwrap_or("TCP");
    let proto = protocol(name)
        .ok_or_else(|| ("protocol", format!("{name:?} is none of TCP, UDP and SCTP")))?;
    match (&port.port, port.end_port) {
        (None, None) => Ok(Port::Range(range(proto, 0, u16::MAX))),
        (None, Some(_)) => Err(("endPort", "stands without port".to_owned())),
        (Some(IntOrString::String(_)), Some(_)) => {
            Err(("endPort", "stands with a named port".to_owned()))
        }
        (Some(IntOrString::String(name)), None) => {
            if !is_port_name(name) {
                return Err(("port", format!("{name:?} is not a valid port name")));
            }
            let name = name.clone();
            Ok(Port::Named(PortName { proto, name }))
        }
        (Some(IntOrString::Int(first)), last) => {
            let wrong = |number: i32| format!("{number} is not in 1-65535");
            let first = number(*first).ok_or_else(|| ("port", wrong(*first)))?;
            let last = match last {
                None => first,
                Some(last) => number(last).ok_or_else(|| ("endPort", wrong(last)))?,
            };
            if last < first {
                return Err(("endPort", format!("{last} is below port {first}")));
            }
            Ok(Port::Range(range(proto, first, last)))
        }
    }
}

fn protocol(name: &str) -> Option<Proto> {
    match name {
        "TCP" => Some(Proto::TCP),
        "UDP" => Some(Proto::UDP),
        "SCTP" => Some(Proto::SCTP),
        _ => None,
    }
}

/// A valid port.
pub(crate) fn number(number: impl TryInto<u16>) -> Option<u16> {
    number.try_into().ok().filter(|number| *number > 0)
}

/// An IANA service name (RFC 6335 §5.1; apimachinery, `IsValidPortName`).
fn is_port_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    name.len() <= 15
        && name.bytes().all(inner)
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// The named ports of a pod in the order in which they are looked up: containers, then init
/// containers that keep running (sidecars). Of two with one name and protocol the first counts.
pub(crate) fn named_ports(pod: &Pod) -> Vec<(PortName, u16)> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let is_sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten());
    let mut found: Vec<(PortName, u16)> = Vec::new();
    for port in ports {
        let proto = protocol(port.protocol.as_deref().unwrap_or("TCP"));
        let (Some(name), Some(proto), Some(number)) =
            (port.name.clone(), proto, number(port.container_port))
        else {
            continue;
        };
        let name = PortName { proto, name };
        if found.iter().all(|(other, _)| *other != name) {
            found.push((name, number));
        }
    }
    found
}

#[cfg(test)]
mod tests;
