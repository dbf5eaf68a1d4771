//! Making and changing worlds at random.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use weir_policy::{LocalEndpoint, ObjectName, PodRef};

use crate::cluster_policies;
use crate::coverage::Coverage;
use crate::labels;
use crate::policies;
use crate::rng::Rng;
use crate::world::{World, ips, node_ips};

const NAMESPACES: &[&str] = &["a", "b", "c"];
const PHASES: &[&str] = &[
    "Running",
    "Running",
    "Running",
    "Running",
    "Running",
    "Running",
    "Running",
    "Pending",
    "Succeeded",
    "Failed",
];

/// Everything of a world, apart from its policies, that is counted.
pub const FEATURES: &[&str] = &[
    "pod Pending",
    "pod Succeeded",
    "pod Failed",
    "pod terminating",
    "pod on the host's network",
    "pod without IPv4",
    "pod without IPv6",
    "pod without address",
    "pod that shares an address",
    "pod without namespace object",
    "endpoint without UID",
    "endpoint without pod",
    "endpoint before its pod has an address",
    "block that holds a pod",
    "block that holds a node",
    "port names that differ",
];

/// Containers and init containers, with named ports that differ, repeat and are missing.
fn containers(rng: &mut Rng) -> [Value; 2] {
    let port = |name: &str, protocol: &str, number: u16| json!({"name": name, "protocol": protocol, "containerPort": number});
    let mut ports = vec![json!({"containerPort": 81})];
    if rng.percent(70) {
        ports.push(port("http", "TCP", rng.pick(&[80, 8080])));
    }
    if rng.percent(40) {
        ports.push(port("dns", rng.pick(&["UDP", "TCP"]), 53));
    }
    let sidecar = rng.pick(&["Always", "OnFailure"]);
    [
        json!([
            {"name": "c", "ports": ports},
            {"name": "d", "ports": [port("metrics", "SCTP", 9090)]},
        ]),
        json!([
            {"name": "i", "restartPolicy": sidecar,
             "ports": [port("dns", "UDP", 9090), port("http", "TCP", 443)]},
        ]),
    ]
}

/// Every CIDR that a policy names.
fn blocks(value: &Value, found: &mut Vec<IpNetwork>) {
    match value {
        Value::Array(list) => list.iter().for_each(|inner| blocks(inner, found)),
        Value::Object(map) => map.values().for_each(|inner| blocks(inner, found)),
        Value::String(text) if text.contains('/') => found.extend(text.parse::<IpNetwork>()),
        _ => {}
    }
}

impl World {
    /// A small cluster.
    pub fn random(rng: &mut Rng, coverage: &mut Coverage) -> Self {
        let mut world = Self::default();
        for name in ["n1", "n2"] {
            world.set_node(rng, name);
        }
        for name in NAMESPACES {
            if rng.percent(80) {
                world.set_namespace(rng, name);
            }
        }
        for i in 0..3 + rng.below(7) {
            world.set_pod(rng, i);
        }
        world.endpoints.insert(
            99,
            LocalEndpoint {
                slot: 99,
                pod: None,
                addresses: vec!["10.1.0.99".parse().unwrap(), "fd00:1::99".parse().unwrap()],
            },
        );
        // A third of the clusters have NetworkPolicies alone.
        let of_cluster = rng.pick(&[0, 1, 1]) * rng.below(6);
        let count = if of_cluster == 0 {
            1 + rng.below(5)
        } else {
            rng.below(4)
        };
        for i in 0..count {
            world.set_policy(rng, coverage, i);
        }
        for i in 0..of_cluster {
            world.set_cluster_policy(rng, coverage, i);
        }
        world.note(coverage);
        world
    }

    /// Counts what it has, each at most once.
    fn note(&self, coverage: &mut Coverage) {
        let mut all = Vec::new();
        let policies = self.policies.values().chain(self.cluster_policies.values());
        policies.for_each(|policy| blocks(&policy["spec"], &mut all));
        let holds = |ip: &IpAddr| all.iter().any(|block| block.contains(*ip));
        let pods: Vec<&Value> = self.pods.values().collect();
        let any = |test: &dyn Fn(&Value) -> bool| pods.iter().any(|pod| test(pod));
        let phase = |name: &str| any(&|pod| pod["status"]["phase"] == name);
        let lacks = |v4: bool| {
            any(&|pod| {
                let has = ips(pod);
                !has.is_empty() && has.iter().all(|ip| ip.is_ipv4() != v4)
            })
        };
        let address = |pod: &Value| ips(pod).into_iter().filter(IpAddr::is_ipv4).collect();
        let all_v4: Vec<Vec<IpAddr>> = pods.iter().map(|pod| address(pod)).collect();
        let shared = all_v4
            .iter()
            .enumerate()
            .any(|(i, a)| !a.is_empty() && all_v4[..i].contains(a));
        let http = |pod: &Value| pod["spec"]["containers"][0]["ports"][1]["containerPort"].clone();
        let facts = [
            phase("Pending"),
            phase("Succeeded"),
            phase("Failed"),
            any(&|pod| !pod["metadata"]["deletionTimestamp"].is_null()),
            any(&|pod| pod["spec"]["hostNetwork"] == true),
            lacks(true),
            lacks(false),
            any(&|pod| ips(pod).is_empty()),
            shared,
            any(&|pod| {
                let namespace = pod["metadata"]["namespace"].as_str().unwrap();
                !self.namespaces.contains_key(namespace)
            }),
            self.endpoints
                .values()
                .any(|e| e.pod.as_ref().is_some_and(|pod| pod.uid.is_none())),
            self.endpoints.values().any(|e| e.pod.is_none()),
            self.endpoints.values().any(|endpoint| {
                let known = self.known_pod(endpoint);
                known.is_some_and(|pod| ips(pod) != endpoint.addresses)
            }),
            pods.iter().any(|pod| ips(pod).iter().any(holds)),
            self.nodes.values().any(|n| node_ips(n).iter().any(holds)),
            any(&|pod| http(pod) == 80) && any(&|pod| http(pod) == 8080),
        ];
        for (name, holds) in FEATURES.iter().zip(facts) {
            if holds {
                coverage.add(*name);
            }
        }
    }

    fn set_node(&mut self, rng: &mut Rng, name: &str) {
        let i = &name[1..];
        let mut cidrs = vec![format!("10.{i}.0.0/24")];
        if rng.percent(90) {
            cidrs.push(format!("fd00:{i}::/64"));
        }
        let node = json!({
            "metadata": {"name": name, "labels": labels::some(rng, labels::NODE, 80)},
            "spec": {"podCIDRs": cidrs},
            "status": {"addresses": [
                {"type": "InternalIP", "address": format!("172.18.0.{i}")},
                {"type": "InternalIP", "address": format!("fd12::{i}")},
                {"type": "Hostname", "address": name},
            ]},
        });
        self.nodes.insert(name.to_owned(), node);
    }

    fn set_namespace(&mut self, rng: &mut Rng, name: &str) {
        let mut labels = labels::some(rng, &labels::NAMESPACE[..1], 70);
        if rng.percent(50) {
            // As the API server has it: whether it is written or not makes no difference.
            labels["kubernetes.io/metadata.name"] = json!(name);
        }
        let object = json!({"metadata": {"name": name, "labels": labels}});
        self.namespaces.insert(name.to_owned(), object);
    }

    fn pod_addresses(rng: &mut Rng, i: usize, node: usize, host: bool) -> Vec<String> {
        // Of pods elsewhere two may claim one address.
        let number = if node == 2 && rng.percent(15) {
            13
        } else {
            10 + i
        };
        let mut addresses = vec![
            format!("10.{node}.0.{number}"),
            format!("fd00:{node}::{number:x}"),
        ];
        if rng.percent(10) {
            addresses[0] = format!("192.0.2.{number}");
        }
        if host {
            addresses = vec![format!("172.18.0.{node}"), format!("fd12::{node}")];
        }
        match rng.below(12) {
            0 => drop(addresses.pop()),
            1 => drop(addresses.remove(0)),
            2 if node == 2 => addresses.clear(),
            _ => {}
        }
        addresses
    }

    /// Pod `p<i>` is always in the same namespace and on the same node; all else varies.
    fn set_pod(&mut self, rng: &mut Rng, i: usize) {
        let key = (NAMESPACES[i % 3].to_owned(), format!("p{i}"));
        let node = if i % 5 < 3 { 1 } else { 2 };
        let host = rng.percent(8);
        let addresses = Self::pod_addresses(rng, i, node, host);
        let created = rng.pick(&[
            None,
            Some("2026-01-01T00:00:00Z"),
            Some("2026-01-02T00:00:00Z"),
        ]);
        let deleted = rng.percent(8).then_some("2026-01-03T00:00:00Z");
        let containers = containers(rng);
        let mut pod = json!({
            "metadata": {
                "namespace": key.0, "name": key.1, "uid": format!("uid-{i}"),
                "labels": labels::some(rng, labels::POD, 60),
                "creationTimestamp": created, "deletionTimestamp": deleted,
            },
            "spec": {
                "nodeName": format!("n{node}"), "hostNetwork": host,
                "containers": containers[0], "initContainers": containers[1],
            },
            "status": {
                "phase": rng.pick(PHASES),
                "podIPs": addresses.iter().map(|a| json!({"ip": a})).collect::<Vec<_>>(),
            },
        });
        let slot = i as u32;
        self.endpoints.remove(&slot);
        if node == 1 && !host && !addresses.is_empty() {
            let uid = rng.percent(70).then(|| format!("uid-{i}"));
            let name = ObjectName::new(&key.0, &key.1);
            self.endpoints.insert(
                slot,
                LocalEndpoint {
                    slot,
                    pod: Some(PodRef { name, uid }),
                    addresses: ips(&pod),
                },
            );
            if rng.percent(10) {
                // The node knows first.
                pod["status"]["podIPs"] = json!([]);
            }
        }
        self.pods.insert(key, pod);
    }

    fn set_policy(&mut self, rng: &mut Rng, coverage: &mut Coverage, i: usize) {
        let key = (NAMESPACES[i % 3].to_owned(), format!("policy-{i}"));
        let policy = json!({
            "metadata": {"namespace": key.0, "name": key.1},
            "spec": policies::spec(rng, coverage),
        });
        self.policies.insert(key, policy);
    }

    fn set_cluster_policy(&mut self, rng: &mut Rng, coverage: &mut Coverage, i: usize) {
        let name = format!("cluster-{i}");
        let policy = json!({
            "metadata": {"name": name},
            "spec": cluster_policies::spec(rng, coverage),
        });
        self.cluster_policies.insert(name, policy);
    }

    /// Changes a few objects.
    pub fn mutate(&mut self, rng: &mut Rng, coverage: &mut Coverage) {
        for _ in 0..1 + rng.below(4) {
            let i = rng.below(10);
            match rng.below(20) {
                0..=3 => self.set_pod(rng, i),
                4 => {
                    self.pods
                        .remove(&(NAMESPACES[i % 3].to_owned(), format!("p{i}")));
                    if rng.percent(70) {
                        self.endpoints.remove(&(i as u32));
                    }
                }
                5 => drop(self.endpoints.remove(&(i as u32))),
                6..=11 => self.set_policy(rng, coverage, i % 6),
                12 | 13 => {
                    let i = i % 6;
                    let key = (NAMESPACES[i % 3].to_owned(), format!("policy-{i}"));
                    self.policies.remove(&key);
                }
                14 | 15 => self.set_cluster_policy(rng, coverage, i % 5),
                16 => drop(self.cluster_policies.remove(&format!("cluster-{}", i % 5))),
                17 => self.set_namespace(rng, NAMESPACES[i % 3]),
                _ => {
                    let name = ["n1", "n2"][i % 2];
                    if self.nodes.remove(name).is_none() {
                        self.set_node(rng, name);
                    }
                }
            }
        }
    }
}
