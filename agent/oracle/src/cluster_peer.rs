//! The peers and protocols of a ClusterNetworkPolicy's rules.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use weir_crd::{
    EgressPeer, IngressPeer, NamespacedPod, PortRange, Protocol as ApiProtocol, ProtocolPorts,
};

use crate::cidr::Cidr;
use crate::cluster_policy::{MOST, PodSelection, one_of, pod_selection, unknown};
use crate::party::Protocol;
use crate::refusal::Refusal;
use crate::rule_ref::Action;
use crate::selector::Selector;

/// Most characters of a CIDR.
const LONGEST_CIDR: usize = 43;

/// One element of `from` or `to`.
#[derive(Clone, Debug)]
pub(crate) enum ClusterPeer {
    /// Pods that are not on the host's network.
    Pods(PodSelection),
    /// The addresses of the selected Nodes.
    Nodes(Selector),
    /// Whatever lies in one of these.
    Networks(Vec<Cidr>),
    /// Not enforced: it matches nothing.
    DomainNames(Vec<String>),
}

/// One element of `protocols`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ports {
    /// First and last port of a protocol.
    Range(Protocol, u16, u16),
    /// A name, looked up on the destination pod for each protocol.
    Named(String),
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(protocol, first, last) if first == last => write!(f, "{first}/{protocol}"),
            Self::Range(protocol, first, last) => write!(f, "{first}-{last}/{protocol}"),
            Self::Named(name) => write!(f, "{name:?}"),
        }
    }
}

/// A list that must have 1 to 25 elements.
pub(crate) fn within_limits<'a, T>(elements: &'a [T], path: &str) -> Result<&'a [T], Refusal> {
    match elements.len() {
        0 => Err(Refusal::new(path, "needs at least one element")),
        n if n > MOST => Err(Refusal::new(path, format!("has more than {MOST} elements"))),
        _ => Ok(elements),
    }
}

/// A selector of which nothing is refused.
fn selector(parsed: (Selector, Vec<Refusal>)) -> Result<Selector, Refusal> {
    let (selector, refusals) = parsed;
    refusals.into_iter().next().map_or(Ok(selector), Err)
}

fn namespaces(labels: &LabelSelector, path: &str) -> Result<ClusterPeer, Refusal> {
    let namespaces = selector(Selector::parse(labels, &format!("{path}.namespaces")))?;
    Ok(ClusterPeer::Pods(PodSelection {
        namespaces,
        pods: None,
    }))
}

fn pods(pods: &NamespacedPod, path: &str) -> Result<ClusterPeer, Refusal> {
    let (selection, refusals) = pod_selection(pods, &format!("{path}.pods"));
    let refusal = refusals.into_iter().next();
    refusal.map_or(Ok(ClusterPeer::Pods(selection)), Err)
}

/// One element of `from`.
pub(crate) fn ingress(peer: &IngressPeer, path: &str) -> Result<ClusterPeer, Refusal> {
    unknown(path, &peer.other)?;
    match (&peer.namespaces, &peer.pods) {
        (Some(labels), None) => namespaces(labels, path),
        (None, Some(selected)) => pods(selected, path),
        _ => Err(one_of(path, "namespaces, pods")),
    }
}

/// One element of `to`.
pub(crate) fn egress(
    peer: &EgressPeer,
    action: Action,
    path: &str,
) -> Result<ClusterPeer, Refusal> {
    unknown(path, &peer.other)?;
    match (
        &peer.namespaces,
        &peer.pods,
        &peer.nodes,
        &peer.networks,
        &peer.domain_names,
    ) {
        (Some(labels), None, None, None, None) => namespaces(labels, path),
        (None, Some(selected), None, None, None) => pods(selected, path),
        (None, None, Some(labels), None, None) => {
            let nodes = selector(Selector::parse(labels, &format!("{path}.nodes")))?;
            Ok(ClusterPeer::Nodes(nodes))
        }
        (None, None, None, Some(cidrs), None) => networks(cidrs, &format!("{path}.networks")),
        (None, None, None, None, Some(names)) => {
            domain_names(names, action, &format!("{path}.domainNames"))
        }
        _ => Err(one_of(
            path,
            "namespaces, pods, nodes, networks, domainNames",
        )),
    }
}

fn networks(written: &[String], path: &str) -> Result<ClusterPeer, Refusal> {
    let mut cidrs = Vec::new();
    for (i, text) in within_limits(written, path)?.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if text.chars().count() > LONGEST_CIDR {
            let reason = format!("has more than {LONGEST_CIDR} characters");
            return Err(Refusal::new(path, reason));
        }
        cidrs.push(Cidr::parse(text).map_err(|e| Refusal::new(path, e))?);
    }
    Ok(ClusterPeer::Networks(cidrs))
}

fn domain_names(written: &[String], action: Action, path: &str) -> Result<ClusterPeer, Refusal> {
    let names = within_limits(written, path)?;
    if let Some(i) = names.iter().position(|name| !is_domain_name(name)) {
        let reason = format!("{:?} is no domain name", names[i]);
        return Err(Refusal::new(format!("{path}[{i}]"), reason));
    }
    if action != Action::Accept {
        return Err(Refusal::new(path, "stands only in Accept rules"));
    }
    Ok(ClusterPeer::DomainNames(names.to_vec()))
}

/// The CRD's pattern, to the letter:
/// `^(\*\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$`.
fn is_domain_name(text: &str) -> bool {
    let text = text.strip_prefix("*.").unwrap_or(text);
    let text = text.strip_suffix('.').unwrap_or(text);
    let labels: Vec<&str> = text.split('.').collect();
    labels.len() >= 2 && labels.into_iter().all(is_domain_label)
}

fn is_domain_label(label: &str) -> bool {
    let is_inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    match label.as_bytes() {
        [] => false,
        // `A-z` has more than letters in it.
        [first, rest @ ..] if first.is_ascii_digit() || (b'A'..=b'z').contains(first) => match rest
        {
            [] => true,
            [inner @ .., last] => inner.iter().all(is_inner) && last.is_ascii_alphanumeric(),
        },
        _ => false,
    }
}

/// `protocols` of the rule at `path`; none where it has none.
pub(crate) fn protocols(
    written: &Option<Vec<ApiProtocol>>,
    path: &str,
) -> Result<Option<Vec<Ports>>, Refusal> {
    let Some(written) = written else {
        return Ok(None);
    };
    let path = format!("{path}.protocols");
    let mut parsed = Vec::new();
    for (i, one) in within_limits(written, &path)?.iter().enumerate() {
        parsed.push(protocol(one, &format!("{path}[{i}]"))?);
    }
    Ok(Some(parsed))
}

fn protocol(written: &ApiProtocol, path: &str) -> Result<Ports, Refusal> {
    unknown(path, &written.other)?;
    // The API's own types take an empty name for none.
    let name = written.destination_named_port.as_ref();
    let name = name.filter(|name| !name.is_empty());
    match (&written.tcp, &written.udp, &written.sctp, name) {
        (Some(ports), None, None, None) => ports_of(Protocol::Tcp, ports, &format!("{path}.tcp")),
        (None, Some(ports), None, None) => ports_of(Protocol::Udp, ports, &format!("{path}.udp")),
        (None, None, Some(ports), None) => ports_of(Protocol::Sctp, ports, &format!("{path}.sctp")),
        (None, None, None, Some(name)) => Ok(Ports::Named(name.clone())),
        _ => Err(one_of(path, "tcp, udp, sctp, destinationNamedPort")),
    }
}

fn ports_of(protocol: Protocol, ports: &ProtocolPorts, path: &str) -> Result<Ports, Refusal> {
    unknown(path, &ports.other)?;
    let path = format!("{path}.destinationPort");
    let Some(port) = &ports.destination_port else {
        return Err(Refusal::new(path, "is required"));
    };
    unknown(&path, &port.other)?;
    let (first, last) = match (port.number, &port.range) {
        (Some(number), None) => {
            let port = number_in_range(Some(number), &format!("{path}.number"))?;
            (port, port)
        }
        (None, Some(range)) => port_range(range, &format!("{path}.range"))?,
        _ => return Err(one_of(&path, "number, range")),
    };
    Ok(Ports::Range(protocol, first, last))
}

fn port_range(range: &PortRange, path: &str) -> Result<(u16, u16), Refusal> {
    unknown(path, &range.other)?;
    let start = number_in_range(range.start, &format!("{path}.start"))?;
    let end = number_in_range(range.end, &format!("{path}.end"))?;
    if start >= end {
        let reason = format!("start {start} is not below end {end}");
        return Err(Refusal::new(path, reason));
    }
    Ok((start, end))
}

fn number_in_range(number: Option<i64>, path: &str) -> Result<u16, Refusal> {
    let Some(number) = number else {
        return Err(Refusal::new(path, "is required"));
    };
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => {
            let reason = format!("{number} is no port: it must be 1 to 65535");
            Err(Refusal::new(path, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_names_are_those_that_the_crds_pattern_matches() {
        for good in [
            "kubernetes.io",
            "*.kubernetes.io",
            "a.b.c.d",
            "a.b.",
            "1.2",
            "a-_b.c",
            "_.a",
        ] {
            assert!(is_domain_name(good), "{good}");
        }
        for bad in [
            "",
            "io",
            "*.io",
            "*",
            "*.",
            ".a.b",
            "a..b",
            "a.b..",
            "-a.b",
            "a-.b",
            "a.*.b",
            "*a.b",
            "a_.b",
            "a b.c",
            "ä.b",
            "http://a.b",
        ] {
            assert!(!is_domain_name(bad), "{bad}");
        }
    }
}
