//! Random small clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use weir_policy::{Event, Index, LocalEndpoint, ObjectName, PodRef};

use super::policies::{self, Features};
use super::rng::Rng;

pub const NODE: &str = "n1";
const NAMESPACES: &[&str] = &["a", "b", "c"];
/// Addresses that no pod and no node has: outside, and in the nodes' pod CIDRs.
const OTHERS: &[&str] = &[
    "192.0.2.5",
    "192.0.2.9",
    "203.0.113.1",
    "10.1.0.200",
    "10.2.0.12",
    "10.9.0.1",
    "2001:db8::5",
    "2001:db8::9",
    "2001:db9::1",
    "fd00:1::c8",
    "fd00:2::c",
    "fd00:9::1",
];

/// The objects as they are now.
#[derive(Clone, Default, Debug)]
pub struct World {
    pub namespaces: BTreeMap<String, Value>,
    pub pods: BTreeMap<(String, String), Value>,
    pub policies: BTreeMap<(String, String), Value>,
    pub nodes: BTreeMap<String, Value>,
    pub endpoints: BTreeMap<u32, LocalEndpoint>,
}

fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn ips(pod: &Value) -> Vec<IpAddr> {
    let list = pod["status"]["podIPs"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    list.iter()
        .map(|ip| ip["ip"].as_str().unwrap().parse().unwrap())
        .collect()
}

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

impl World {
    pub fn random(rng: &mut Rng, features: &mut Features) -> Self {
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
        for i in 0..1 + rng.below(5) {
            world.set_policy(rng, features, i);
        }
        world
    }

    fn set_node(&mut self, rng: &mut Rng, name: &str) {
        let i = &name[1..];
        let mut cidrs = vec![format!("10.{i}.0.0/24")];
        if rng.percent(90) {
            cidrs.push(format!("fd00:{i}::/64"));
        }
        let node = json!({
            "metadata": {"name": name},
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
        let labels = policies::namespace_labels(rng);
        let object = json!({"metadata": {"name": name, "labels": labels}});
        self.namespaces.insert(name.to_owned(), object);
    }

    /// Pod `p<i>` is always in the same namespace and on the same node; all else varies.
    fn set_pod(&mut self, rng: &mut Rng, i: usize) {
        let key = (NAMESPACES[i % 3].to_owned(), format!("p{i}"));
        let node = if i % 5 < 3 { 1 } else { 2 };
        let host = rng.percent(8);
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
        let phase = rng.pick(&[
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
        ]);
        let created = rng.pick(&[
            None,
            Some("2026-01-01T00:00:00Z"),
            Some("2026-01-02T00:00:00Z"),
        ]);
        let containers = containers(rng);
        let pod = json!({
            "metadata": {
                "namespace": key.0, "name": key.1, "uid": format!("uid-{i}"),
                "labels": policies::pod_labels(rng), "creationTimestamp": created,
            },
            "spec": {
                "nodeName": format!("n{node}"), "hostNetwork": host,
                "containers": containers[0], "initContainers": containers[1],
            },
            "status": {
                "phase": phase,
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
        }
        self.pods.insert(key, pod);
    }

    fn set_policy(&mut self, rng: &mut Rng, features: &mut Features, i: usize) {
        let key = (NAMESPACES[i % 3].to_owned(), format!("policy-{i}"));
        let policy = json!({
            "metadata": {"namespace": key.0, "name": key.1},
            "spec": policies::spec(rng, features),
        });
        self.policies.insert(key, policy);
    }

    /// Changes a few objects.
    pub fn mutate(&mut self, rng: &mut Rng, features: &mut Features) {
        for _ in 0..1 + rng.below(4) {
            let i = rng.below(10);
            match rng.below(16) {
                0..=3 => self.set_pod(rng, i),
                4 => {
                    self.pods
                        .remove(&(NAMESPACES[i % 3].to_owned(), format!("p{i}")));
                    if rng.percent(70) {
                        self.endpoints.remove(&(i as u32));
                    }
                }
                5 => drop(self.endpoints.remove(&(i as u32))),
                6..=11 => self.set_policy(rng, features, i % 6),
                12 | 13 => {
                    let i = i % 6;
                    let key = (NAMESPACES[i % 3].to_owned(), format!("policy-{i}"));
                    self.policies.remove(&key);
                }
                14 => self.set_namespace(rng, NAMESPACES[i % 3]),
                _ => {
                    let name = ["n1", "n2"][i % 2];
                    if self.nodes.remove(name).is_none() {
                        self.set_node(rng, name);
                    }
                }
            }
        }
    }

    /// The events that lead from `old` to this, in random order.
    pub fn events_from(&self, old: &Self, rng: &mut Rng) -> Vec<Event> {
        fn apply<K: Ord + Clone, V: PartialEq>(
            old: &BTreeMap<K, V>,
            new: &BTreeMap<K, V>,
            put: impl Fn(&V) -> Event,
            delete: impl Fn(K) -> Event,
            events: &mut Vec<Event>,
        ) {
            events.extend(
                new.iter()
                    .filter(|(k, v)| old.get(k) != Some(v))
                    .map(|(_, v)| put(v)),
            );
            let gone = old.keys().filter(|k| !new.contains_key(k));
            events.extend(gone.cloned().map(delete));
        }
        let name = |(namespace, name): (String, String)| ObjectName { namespace, name };
        let mut events = Vec::new();
        apply(
            &old.namespaces,
            &self.namespaces,
            |v| Event::ApplyNamespace(Box::new(typed::<Namespace>(v))),
            Event::DeleteNamespace,
            &mut events,
        );
        apply(
            &old.pods,
            &self.pods,
            |v| Event::ApplyPod(Box::new(typed::<Pod>(v))),
            |k| Event::DeletePod(name(k)),
            &mut events,
        );
        apply(
            &old.policies,
            &self.policies,
            |v| Event::ApplyPolicy(Box::new(typed::<NetworkPolicy>(v))),
            |k| Event::DeletePolicy(name(k)),
            &mut events,
        );
        apply(
            &old.nodes,
            &self.nodes,
            |v| Event::ApplyNode(Box::new(typed::<Node>(v))),
            Event::DeleteNode,
            &mut events,
        );
        apply(
            &old.endpoints,
            &self.endpoints,
            |v| Event::ApplyEndpoint(v.clone()),
            Event::DeleteEndpoint,
            &mut events,
        );
        rng.shuffle(&mut events);
        events
    }

    /// A new index that has been told everything, in random order.
    pub fn index(&self, rng: &mut Rng) -> Index {
        let mut index = Index::new(NODE);
        for event in self.events_from(&Self::default(), rng) {
            let _ = index.apply(event);
        }
        index
    }

    /// All addresses that probes may name.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut all: BTreeSet<IpAddr> = OTHERS.iter().map(|a| a.parse().unwrap()).collect();
        all.extend(self.pods.values().flat_map(ips));
        all.extend(
            self.endpoints
                .values()
                .flat_map(|e| e.addresses.iter().copied()),
        );
        for node in self.nodes.values() {
            let listed = node["status"]["addresses"].as_array().unwrap();
            all.extend(
                listed
                    .iter()
                    .filter_map(|a| a["address"].as_str()?.parse::<IpAddr>().ok()),
            );
        }
        all.into_iter().collect()
    }

    pub fn cluster(&self) -> weir_oracle::Cluster {
        weir_oracle::Cluster {
            namespaces: self.namespaces.values().map(typed).collect(),
            pods: self.pods.values().map(typed).collect(),
            policies: self.policies.values().map(typed).collect(),
            nodes: self.nodes.values().map(typed).collect(),
            ..weir_oracle::Cluster::default()
        }
    }
}
