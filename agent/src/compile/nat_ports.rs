//! The source ports of the node's own translations (`--nat-ports`), and who else uses some of them.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::api::core::v1::Service;

use crate::state::{Change, Kind, Object, ObjectKey};

/// Source ports of the node's own translations, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatPorts {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

impl NatPorts {
    /// Whether a port is among them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// As the word of `CONFIG` ([`weir_abi::node::config::NAT_PORTS`]).
    pub fn word(self) -> u64 {
        u64::from(self.first) | u64::from(self.last) << 16
    }
}

impl fmt::Display for NatPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The ports, and the Services that listen on one of them.
#[derive(Clone, Debug)]
pub struct NatPortUse {
    ports: NatPorts,
    services: BTreeMap<ObjectKey, Vec<u16>>,
}

impl NatPortUse {
    /// Nobody uses them yet.
    pub fn new(ports: NatPorts) -> Self {
        Self {
            ports,
            services: BTreeMap::new(),
        }
    }

    /// Takes a change of an object in.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Apply(object @ Object::Service(service)) => {
                let inside: Vec<u16> = node_ports(service)
                    .filter(|port| self.ports.contains(*port))
                    .collect();
                if inside.is_empty() {
                    self.services.remove(&object.key());
                } else {
                    self.services.insert(object.key(), inside);
                }
            }
            Change::Delete(key) if key.kind == Kind::Service => {
                self.services.remove(key);
            }
            _ => {}
        }
    }

    /// Who else uses the ports. `local` is what `net.ipv4.ip_local_port_range` says, for IPv6 too:
    /// `32768 60999`.
    pub fn problems(&self, local: &str) -> Vec<String> {
        let ports = self.ports;
        let mut problems = Vec::new();
        let mut ends = local.split_whitespace().map(str::parse::<u16>);
        if let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next())
            && first <= ports.last
            && ports.first <= last
        {
            problems.push(format!(
                "nat-ports {ports}: net.ipv4.ip_local_port_range is {first}-{last}, and a connection of the node itself could meet a translated one: give another range by --nat-ports, or change the sysctl"
            ));
        }
        for (key, inside) in &self.services {
            let (namespace, name) = (&key.namespace, &key.name);
            problems.push(format!(
                "nat-ports {ports}: Service {namespace}/{name} has node port {}: give another range by --nat-ports, or the Service another port",
                inside.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
            ));
        }
        problems
    }
}

/// Every port that a Service opens on the node.
fn node_ports(service: &Service) -> impl Iterator<Item = u16> {
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|spec| spec.ports.as_ref());
    let ports = ports
        .into_iter()
        .flatten()
        .filter_map(|port| port.node_port);
    let check = spec.and_then(|spec| spec.health_check_node_port);
    ports
        .chain(check)
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(port: u16, check: Option<u16>) -> Object {
        let service = serde_json::json!({
            "metadata": {"namespace": "shop", "name": "web"},
            "spec": {"type": "NodePort", "healthCheckNodePort": check,
                     "ports": [{"port": 80, "nodePort": port}, {"port": 81}]},
        });
        Object::Service(serde_json::from_value(service).unwrap())
    }

    fn used() -> NatPortUse {
        NatPortUse::new(NatPorts {
            first: 61000,
            last: 65535,
        })
    }

    #[test]
    fn linux_default_local_ports_and_node_ports_do_not_touch_the_default_range() {
        let mut used = used();
        used.apply(&Change::Apply(service(30080, Some(32767))));
        assert_eq!(used.problems("32768\t60999"), [""; 0]);
        assert_eq!(used.problems(""), [""; 0]);
    }

    #[test]
    fn a_local_port_range_that_overlaps_is_named_with_the_flag() {
        for range in ["32768\t61000", "1024 65535", "65535 65535", "62000 63000"] {
            let problems = used().problems(range);
            assert_eq!(problems.len(), 1, "{range}");
            assert!(problems[0].contains("ip_local_port_range"), "{problems:?}");
            assert!(problems[0].contains("--nat-ports"), "{problems:?}");
        }
    }

    #[test]
    fn a_service_with_a_port_inside_is_named_until_it_moves_or_goes() {
        let mut used = used();
        for inside in [service(61000, None), service(30080, Some(65535))] {
            used.apply(&Change::Apply(inside));
            let problems = used.problems("");
            assert_eq!(problems.len(), 1);
            assert!(problems[0].contains("Service shop/web"), "{problems:?}");
        }
        used.apply(&Change::Apply(service(30080, None)));
        assert!(used.problems("").is_empty());
        used.apply(&Change::Apply(service(61001, None)));
        used.apply(&Change::Delete(service(61001, None).key()));
        assert!(used.problems("").is_empty());
    }
}
