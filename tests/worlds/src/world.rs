//! The objects of a cluster as plain JSON, and the events that lead from one to another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use weir_crd::ClusterNetworkPolicy;
use weir_policy::{Event, Index, LocalEndpoint, ObjectName};

use crate::rng::Rng;

/// The node whose policy is compiled.
pub const NODE: &str = "n1";

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
#[derive(Clone, Default, Debug, PartialEq)]
pub struct World {
    /// By name.
    pub namespaces: BTreeMap<String, Value>,
    /// By (namespace, name).
    pub pods: BTreeMap<(String, String), Value>,
    /// By (namespace, name).
    pub policies: BTreeMap<(String, String), Value>,
    /// By name.
    pub cluster_policies: BTreeMap<String, Value>,
    /// By name.
    pub nodes: BTreeMap<String, Value>,
    /// By slot.
    pub endpoints: BTreeMap<u32, LocalEndpoint>,
}

fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// The addresses of a Pod object.
pub(crate) fn ips(pod: &Value) -> Vec<IpAddr> {
    let list = pod["status"]["podIPs"].as_array();
    let list = list.map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .map(|ip| ip["ip"].as_str().unwrap().parse().unwrap())
        .collect()
}

/// The addresses of a Node object.
pub(crate) fn node_ips(node: &Value) -> Vec<IpAddr> {
    let list = node["status"]["addresses"].as_array();
    let list = list.map(Vec::as_slice).unwrap_or_default();
    let parse = |address: &Value| address["address"].as_str()?.parse().ok();
    list.iter().filter_map(parse).collect()
}

fn object_name((namespace, name): (String, String)) -> ObjectName {
    ObjectName { namespace, name }
}

/// Events for what differs.
fn differences<K: Ord + Clone, V: PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    put: impl Fn(&V) -> Event,
    delete: impl Fn(K) -> Event,
    events: &mut Vec<Event>,
) {
    let changed = new.iter().filter(|(k, v)| old.get(k) != Some(v));
    events.extend(changed.map(|(_, v)| put(v)));
    let gone = old.keys().filter(|k| !new.contains_key(k));
    events.extend(gone.cloned().map(delete));
}

impl World {
    /// The events that lead from `old` to this, kind by kind.
    pub fn events_in_order(&self, old: &Self) -> Vec<Event> {
        let mut events = Vec::new();
        differences(
            &old.namespaces,
            &self.namespaces,
            |v| Event::ApplyNamespace(Box::new(typed::<Namespace>(v))),
            Event::DeleteNamespace,
            &mut events,
        );
        differences(
            &old.pods,
            &self.pods,
            |v| Event::ApplyPod(Box::new(typed::<Pod>(v))),
            |k| Event::DeletePod(object_name(k)),
            &mut events,
        );
        differences(
            &old.policies,
            &self.policies,
            |v| Event::ApplyPolicy(Box::new(typed::<NetworkPolicy>(v))),
            |k| Event::DeletePolicy(object_name(k)),
            &mut events,
        );
        differences(
            &old.cluster_policies,
            &self.cluster_policies,
            |v| Event::ApplyClusterPolicy(Box::new(typed::<ClusterNetworkPolicy>(v))),
            Event::DeleteClusterPolicy,
            &mut events,
        );
        differences(
            &old.nodes,
            &self.nodes,
            |v| Event::ApplyNode(Box::new(typed::<Node>(v))),
            Event::DeleteNode,
            &mut events,
        );
        differences(
            &old.endpoints,
            &self.endpoints,
            |v| Event::ApplyEndpoint(v.clone()),
            Event::DeleteEndpoint,
            &mut events,
        );
        events
    }

    /// The events that lead from `old` to this, in random order.
    pub fn events_from(&self, old: &Self, rng: &mut Rng) -> Vec<Event> {
        let mut events = self.events_in_order(old);
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
        let endpoints = self.endpoints.values();
        all.extend(endpoints.flat_map(|e| e.addresses.iter().copied()));
        all.extend(self.nodes.values().flat_map(node_ips));
        all.into_iter().collect()
    }

    /// The Pod object of an endpoint.
    pub(crate) fn known_pod(&self, endpoint: &LocalEndpoint) -> Option<&Value> {
        let ObjectName { namespace, name } = endpoint.pod.as_ref()?.name.clone();
        self.pods.get(&(namespace, name))
    }

    /// The objects for the reference evaluator. It knows nothing of endpoints: their addresses, which
    /// the node knows first, are in their pods' objects.
    pub fn cluster(&self) -> weir_oracle::Cluster {
        let mut pods = self.pods.clone();
        for endpoint in self.endpoints.values() {
            let name = endpoint.pod.as_ref().map(|pod| pod.name.clone());
            let pod = name.and_then(|name| pods.get_mut(&(name.namespace, name.name)));
            if let Some(pod) = pod {
                let list = endpoint.addresses.iter().map(|ip| json!({"ip": ip}));
                pod["status"]["podIPs"] = list.collect();
            }
        }
        weir_oracle::Cluster {
            namespaces: self.namespaces.values().map(typed).collect(),
            pods: pods.values().map(typed).collect(),
            policies: self.policies.values().map(typed).collect(),
            cluster_policies: self.cluster_policies.values().map(typed).collect(),
            nodes: self.nodes.values().map(typed).collect(),
            ..weir_oracle::Cluster::default()
        }
    }

    /// All objects as one manifest; JSON is YAML. Endpoints are named by their pods.
    pub fn manifest(&self) -> Value {
        let of = |kind: &str, version: &str, value: &Value| {
            let mut value = value.clone();
            value["kind"] = json!(kind);
            value["apiVersion"] = json!(version);
            value
        };
        let namespaces = self.namespaces.values().map(|v| of("Namespace", "v1", v));
        let nodes = self.nodes.values().map(|v| of("Node", "v1", v));
        let pods = self.pods.values().map(|v| of("Pod", "v1", v));
        let networking = "networking.k8s.io/v1";
        let policies = self.policies.values();
        let policies = policies.map(|v| of("NetworkPolicy", networking, v));
        let (kind, version) = (
            ClusterNetworkPolicy::KIND,
            ClusterNetworkPolicy::API_VERSION,
        );
        let of_cluster = self.cluster_policies.values().map(|v| of(kind, version, v));
        let objects = namespaces.chain(nodes).chain(pods);
        let items = objects.chain(policies).chain(of_cluster);
        json!({"apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<_>>()})
    }

    /// The same for the same objects and endpoints, and for no others.
    pub fn fingerprint(&self) -> String {
        format!("{} {:?}", self.manifest(), self.endpoints)
    }
}
