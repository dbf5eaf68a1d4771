//! Which protocols and ports of a row are looked at.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weir_abi::Proto;
use weir_abi::policy::Interval;
use weir_crd::ClusterNetworkPolicy;
use weir_oracle::{Cluster, Protocol};

use super::objects::{named_ports, protocol};

/// The protocols that have ports.
const WITH_PORTS: [Proto; 3] = [Proto::TCP, Proto::UDP, Proto::SCTP];
/// One past the last key.
const END: u32 = 1 << 24;

/// A protocol and a port (0 for ICMP).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Probe {
    pub proto: Proto,
    pub port: u16,
}

impl Probe {
    pub fn key(self) -> u32 {
        Interval::key(self.proto, self.port)
    }

    pub fn protocol(self) -> Protocol {
        match self.proto {
            Proto::TCP => Protocol::Tcp,
            Proto::UDP => Protocol::Udp,
            Proto::SCTP => Protocol::Sctp,
            _ => Protocol::Icmp,
        }
    }

    /// For the evaluator: protocols without ports take none.
    pub fn number(self) -> Option<u16> {
        self.protocol().has_ports().then_some(self.port)
    }

    /// `80/TCP`, `ICMP`.
    pub fn words(self) -> String {
        match self.number() {
            Some(port) => format!("{port}/{}", self.protocol()),
            None => self.protocol().to_string(),
        }
    }
}

const fn icmp(v6: bool) -> Proto {
    if v6 { Proto::ICMPV6 } else { Proto::ICMP }
}

/// The first and the last port of each protocol in every interval.
pub(super) fn of_row(starts: &[u32], v6: bool) -> BTreeSet<Probe> {
    let mut probes = BTreeSet::new();
    let ends = starts.iter().skip(1).copied().chain([END]);
    for (start, end) in starts.iter().copied().zip(ends) {
        for proto in WITH_PORTS {
            // Port 0 is no port: it cannot be asked about.
            let first = start.max(Interval::key(proto, 1));
            let last = (end - 1).min(Interval::key(proto, u16::MAX));
            if first <= last {
                let port = |key: u32| (key & 0xffff) as u16;
                probes.extend([first, last].map(|key| Probe {
                    proto,
                    port: port(key),
                }));
            }
        }
        let proto = icmp(v6);
        if (start..end).contains(&Interval::key(proto, 0)) {
            probes.insert(Probe { proto, port: 0 });
        }
    }
    probes
}

/// The protocols of every rule of a ClusterNetworkPolicy.
fn protocols(policy: &ClusterNetworkPolicy) -> impl Iterator<Item = &weir_crd::Protocol> {
    let ingress = policy
        .spec
        .ingress
        .iter()
        .flatten()
        .flat_map(|rule| rule.protocols.iter());
    let egress = policy
        .spec
        .egress
        .iter()
        .flatten()
        .flat_map(|rule| rule.protocols.iter());
    ingress.chain(egress).flatten()
}

/// The ports that rules for a namespace name, and their neighbours: where a row ought to have
/// boundaries, whether it has or not.
pub(super) fn of_namespace(cluster: &Cluster, namespace: &str) -> BTreeSet<Probe> {
    let mut probes = BTreeSet::new();
    let mut add = |proto, number: u32| {
        if let Ok(port) = u16::try_from(number)
            && port > 0
        {
            probes.insert(Probe { proto, port });
        }
    };
    let mut names: BTreeSet<(Proto, &str)> = BTreeSet::new();
    let policies = cluster
        .policies
        .iter()
        .filter(|policy| policy.metadata.namespace.as_deref().unwrap_or("default") == namespace);
    for spec in policies.filter_map(|policy| policy.spec.as_ref()) {
        let ingress = spec
            .ingress
            .iter()
            .flatten()
            .flat_map(|rule| rule.ports.iter().flatten());
        let egress = spec
            .egress
            .iter()
            .flatten()
            .flat_map(|rule| rule.ports.iter().flatten());
        for port in ingress.chain(egress) {
            let Some(proto) = protocol(port.protocol.as_deref()) else {
                continue;
            };
            match &port.port {
                Some(IntOrString::Int(first)) => {
                    let first = u32::try_from(*first).unwrap_or_default();
                    let last = port
                        .end_port
                        .and_then(|n| u32::try_from(n).ok())
                        .unwrap_or(first);
                    for number in [first.saturating_sub(1), first, last, last.saturating_add(1)] {
                        add(proto, number);
                    }
                }
                Some(IntOrString::String(name)) => {
                    names.insert((proto, name));
                }
                None => {}
            }
        }
    }
    for protocol in cluster.cluster_policies.iter().flat_map(protocols) {
        if let Some(name) = &protocol.destination_named_port {
            names.extend(WITH_PORTS.map(|proto| (proto, name.as_str())));
        }
        let ports = [&protocol.tcp, &protocol.udp, &protocol.sctp];
        for (proto, ports) in WITH_PORTS.into_iter().zip(ports) {
            let port = ports.as_ref().and_then(|p| p.destination_port.as_ref());
            let number = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
            let range = port.and_then(|port| port.range.as_ref());
            let bounds = range.map(|range| (number(range.start), number(range.end)));
            let single = port.map(|port| (number(port.number), number(port.number)));
            for (first, last) in [bounds, single].into_iter().flatten() {
                let (Some(first), Some(last)) = (first, last) else {
                    continue;
                };
                for number in [first.saturating_sub(1), first, last, last.saturating_add(1)] {
                    add(proto, number);
                }
            }
        }
    }
    for pod in &cluster.pods {
        for (name, proto, number) in named_ports(pod) {
            if name.is_some_and(|name| names.contains(&(Proto(proto), name))) {
                add(Proto(proto), number.into());
            }
        }
    }
    probes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(probes: &BTreeSet<Probe>) -> Vec<String> {
        probes.iter().map(|probe| probe.words()).collect()
    }

    #[test]
    fn each_interval_is_looked_at_at_both_ends_of_each_protocol() {
        let all = [
            "ICMP",
            "1/TCP",
            "65535/TCP",
            "1/UDP",
            "65535/UDP",
            "1/SCTP",
            "65535/SCTP",
        ];
        assert_eq!(words(&of_row(&[0], false)), all);
        let port = Interval::key(Proto::TCP, 80);
        let split = words(&of_row(&[0, port, port + 1], true));
        assert_eq!(
            split,
            [
                "1/TCP",
                "79/TCP",
                "80/TCP",
                "81/TCP",
                "65535/TCP",
                "1/UDP",
                "65535/UDP",
                "ICMP",
                "1/SCTP",
                "65535/SCTP"
            ]
        );
    }

    #[test]
    fn ports_that_rules_name_are_looked_at_whatever_the_row_says() {
        let cluster = Cluster {
            policies: serde_json::from_value(json!([
                {"metadata": {"namespace": "a", "name": "p"}, "spec": {
                    "ingress": [{"ports": [{"port": 80}, {"port": "dns", "protocol": "UDP"}]}],
                    "egress": [{"ports": [{"port": 1, "endPort": 65535}]}]}},
                {"metadata": {"namespace": "b", "name": "p"}, "spec": {"ingress": [{"ports": [{"port": 9}]}]}},
            ]))
            .unwrap(),
            pods: serde_json::from_value(json!([{"spec": {"containers": [{"name": "c", "ports": [
                {"name": "dns", "protocol": "UDP", "containerPort": 53},
                {"name": "dns", "protocol": "TCP", "containerPort": 54}]}]}}]))
            .unwrap(),
            cluster_policies: serde_json::from_value(json!([{
                "apiVersion": ClusterNetworkPolicy::API_VERSION, "kind": ClusterNetworkPolicy::KIND,
                "metadata": {"name": "c"},
                "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
                         "ingress": [{"action": "Deny", "from": [{"namespaces": {}}], "protocols": [
                             {"sctp": {"destinationPort": {"range": {"start": 7, "end": 9}}}},
                             {"tcp": {"destinationPort": {"number": 200}}}]}]}}]))
            .unwrap(),
            ..Cluster::default()
        };
        assert_eq!(
            words(&of_namespace(&cluster, "a")),
            [
                "1/TCP",
                "79/TCP",
                "80/TCP",
                "81/TCP",
                "199/TCP",
                "200/TCP",
                "201/TCP",
                "65535/TCP",
                "53/UDP",
                "6/SCTP",
                "7/SCTP",
                "9/SCTP",
                "10/SCTP"
            ]
        );
        // ClusterNetworkPolicies are for all.
        assert_eq!(of_namespace(&cluster, "c").len(), 7);
    }
}
