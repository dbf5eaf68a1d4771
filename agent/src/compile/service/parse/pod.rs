//! The HostPorts of a Pod.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use weir_abi::{Addr, Proto};

use super::super::hash::hash;
use super::{Problem, Report, ServiceName, address, host_address, port_number, protocol};

/// What counts of a Pod of this node that has HostPorts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct ParsedPod {
    /// Seconds since 1970; of two Pods with one HostPort the older one has it.
    pub created: i64,
    /// Hash of its UID.
    pub uid: [u8; 16],
    /// At most one of each family.
    pub addresses: Vec<Addr>,
    pub ports: Vec<HostPort>,
    pub problems: Vec<Problem>,
}

/// A HostPort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct HostPort {
    pub name: Box<str>,
    /// Where in the Pod it stands.
    pub field: Box<str>,
    /// The node's port.
    pub number: u16,
    pub proto: Proto,
    /// The container's.
    pub target: u16,
    /// The node's address; all that serve NodePorts if there is none.
    pub address: Option<Addr>,
    /// Whether it is for IPv4 (true), IPv6, or both.
    pub family: Option<bool>,
}

/// `None`: the Pod has no HostPort on this node.
pub(in super::super) fn pod(pod: &Pod, node_name: &str) -> Option<ParsedPod> {
    let spec = pod.spec.as_ref()?;
    let status = pod.status.as_ref()?;
    let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if spec.node_name.as_deref() != Some(node_name) || spec.host_network == Some(true) || is_over {
        return None;
    }
    let name = ServiceName::of(&pod.metadata);
    let mut report = Report::new("Pod", &name);
    let mut ports = Vec::new();
    let sidecars = spec.init_containers.iter().flatten().enumerate();
    let sidecars = sidecars.filter(|(_, c)| c.restart_policy.as_deref() == Some("Always"));
    let sidecars = sidecars.map(|(i, c)| (format!("spec.initContainers[{i}]"), c));
    let containers = spec.containers.iter().enumerate();
    let containers = containers.map(|(i, c)| (format!("spec.containers[{i}]"), c));
    for (field, container) in containers.chain(sidecars) {
        for (i, port) in container.ports.iter().flatten().enumerate() {
            if port.host_port.is_some_and(|port| port != 0) {
                ports.extend(host_port(&mut report, &format!("{field}.ports[{i}]"), port));
            }
        }
    }
    if ports.is_empty() && report.problems.is_empty() {
        return None;
    }
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let first = status.pod_ip.as_deref();
    let mut addresses: Vec<Addr> = Vec::new();
    for text in listed.chain(first).filter(|text| !text.is_empty()) {
        let Some(addr) = report.check("status.podIPs", address(text)) else {
            continue;
        };
        if !addresses.iter().any(|a| a.is_v4() == addr.is_v4()) {
            addresses.push(addr);
        }
    }
    let meta = &pod.metadata;
    Some(ParsedPod {
        created: meta
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second()),
        uid: hash(&[meta.uid.as_deref().unwrap_or_default().as_bytes()]),
        addresses,
        ports,
        problems: report.problems,
    })
}

fn host_port(report: &mut Report, field: &str, port: &ContainerPort) -> Option<HostPort> {
    let number = port_number(port.host_port.unwrap_or_default());
    let number = report.check(format!("{field}.hostPort"), number);
    let target = report.check(
        format!("{field}.containerPort"),
        port_number(port.container_port),
    );
    let proto = protocol(port.protocol.as_deref());
    let proto = report.check(format!("{field}.protocol"), proto);
    let text = port.host_ip.as_deref().unwrap_or_default();
    let (address, family) = match text.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => (None, Some(ip.is_ipv4())),
        _ if text.is_empty() => (None, None),
        _ => {
            let addr = report.check(format!("{field}.hostIP"), host_address(text))?;
            (Some(addr), Some(addr.is_v4()))
        }
    };
    Some(HostPort {
        name: port.name.as_deref().unwrap_or_default().into(),
        field: format!("{field}.hostPort").into(),
        number: number?,
        proto: proto?,
        target: target?,
        address,
        family,
    })
}
