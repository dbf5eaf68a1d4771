//! A large cluster, made up in the same way each time: namespaces with a dozen applications each,
//! a default-deny in every one of them, and nine more kinds of policies as people write them.

use clap::Args;
use serde_json::{Value, json};
use weir_policy::{Event, LocalEndpoint, ObjectName, PodRef};

/// How large.
#[derive(Args, Clone, Debug)]
pub struct Size {
    /// Pods of the whole cluster
    #[arg(long, default_value_t = 20_000)]
    pub pods: usize,
    /// Pods of this node
    #[arg(long, default_value_t = 250)]
    pub local: usize,
    /// NetworkPolicies
    #[arg(long, default_value_t = 1000)]
    pub policies: usize,
}

const NAMESPACES: usize = 100;
const APPS: usize = 12;
const TEAMS: usize = 10;
const TIERS: [&str; 3] = ["front", "middle", "back"];
/// The node whose policy is compiled.
pub const NODE: &str = "node-0";

fn namespace(i: usize) -> String {
    format!("ns-{}", i % NAMESPACES)
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Box<T> {
    Box::new(serde_json::from_value(value).expect("the world's own objects decode"))
}

/// What there is to know of a pod.
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub addresses: [String; 2],
    node: usize,
    labels: Value,
}

impl Size {
    /// How many nodes there are: all have as many pods as this one.
    pub fn nodes(&self) -> usize {
        self.pods.div_ceil(self.local.max(1)).max(1)
    }

    /// The pod with this number.
    pub fn pod(&self, i: usize) -> Pod {
        let node = i % self.nodes();
        let on_node = i / self.nodes();
        let space = on_node + i;
        let app = (on_node * 7 + i / NAMESPACES) % APPS;
        let (high, low) = (on_node / 200, on_node % 200 + 10);
        Pod {
            namespace: namespace(space),
            name: format!("app-{app}-{i}"),
            addresses: [
                format!("10.{}.{high}.{low}", 64 + node % 128),
                format!("fd00:{:x}::{high:x}:{low:x}", node + 1),
            ],
            node,
            labels: json!({
                "app": format!("app-{app}"),
                "tier": TIERS[app % 3],
                "pod-template-hash": format!("h{app}"),
            }),
        }
    }

    /// Namespaces, nodes, then pods and the endpoints of those that are here.
    pub fn cluster(&self) -> impl Iterator<Item = Event> + '_ {
        let namespaces = (0..NAMESPACES).map(|i| {
            let labels = json!({"team": format!("team-{}", i % TEAMS)});
            let object = json!({"metadata": {"name": namespace(i), "labels": labels}});
            Event::ApplyNamespace(typed(object))
        });
        let nodes = (0..self.nodes()).map(|i| {
            Event::ApplyNode(typed(json!({
                "metadata": {"name": format!("node-{i}")},
                "spec": {"podCIDRs": [format!("10.{}.0.0/16", 64 + i % 128), format!("fd00:{:x}::/64", i + 1)]},
                "status": {"addresses": [{"type": "InternalIP", "address": format!("172.18.{}.{}", i / 200, i % 200 + 1)}]},
            })))
        });
        let pods = (0..self.pods).map(|i| self.pod(i).event());
        namespaces.chain(nodes).chain(pods).chain(self.endpoints())
    }

    /// The endpoints of this node.
    pub fn endpoints(&self) -> impl Iterator<Item = Event> + '_ {
        let here = (0..self.pods)
            .map(|i| self.pod(i))
            .filter(|pod| pod.node == 0);
        (0u32..).zip(here).map(|(slot, pod)| {
            Event::ApplyEndpoint(LocalEndpoint {
                slot,
                pod: Some(PodRef {
                    name: ObjectName::new(&pod.namespace, &pod.name),
                    uid: None,
                }),
                addresses: pod
                    .addresses
                    .iter()
                    .filter_map(|a| a.parse().ok())
                    .collect(),
            })
        })
    }

    /// The policies.
    pub fn network_policies(&self) -> impl Iterator<Item = Event> + '_ {
        (0..self.policies).map(|i| policy(i, 0))
    }

    /// All of it.
    pub fn all(&self) -> impl Iterator<Item = Event> + '_ {
        self.cluster().chain(self.network_policies())
    }
}

impl Pod {
    /// With another value of the label `app`.
    pub fn relabelled(mut self, app: &str) -> Self {
        self.labels["app"] = app.into();
        self
    }

    pub fn object_name(&self) -> ObjectName {
        ObjectName::new(&self.namespace, &self.name)
    }

    pub fn event(&self) -> Event {
        let ips: Vec<Value> = self.addresses.iter().map(|ip| json!({"ip": ip})).collect();
        Event::ApplyPod(typed(json!({
            "metadata": {"namespace": self.namespace, "name": self.name, "labels": self.labels},
            "spec": {
                "nodeName": format!("node-{}", self.node),
                "containers": [{"name": "c", "ports": [
                    {"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090},
                ]}],
            },
            "status": {"phase": "Running", "podIPs": ips},
        })))
    }
}

/// The name of the policy with this number.
pub fn policy_name(i: usize) -> ObjectName {
    ObjectName::new(namespace(i), format!("policy-{i}"))
}

/// The policy with this number; `version` changes one of its ports, or whom it names.
pub fn policy(i: usize, version: usize) -> Event {
    let (space, kind) = (i % NAMESPACES, i / NAMESPACES % 10);
    let app = |i: usize| json!({"matchLabels": {"app": format!("app-{}", i % APPS)}});
    let team = |i: usize| json!({"matchLabels": {"team": format!("team-{}", i % TEAMS)}});
    let tier = |i: usize| json!({"matchLabels": {"tier": TIERS[i % 3]}});
    let named = |i: usize| json!({"matchLabels": {"kubernetes.io/metadata.name": namespace(i)}});
    let port = 8000 + version % 1000;
    let spec = match kind {
        0 => json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        1 => json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{
            "to": [{"namespaceSelector": named(0), "podSelector": app(0)}],
            "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}, {"port": port}],
        }]}),
        2 => json!({"podSelector": tier(space), "ingress": [{
            "from": [{"podSelector": {}}], "ports": [{"port": port}],
        }]}),
        3 => json!({"podSelector": tier(i), "ingress": [{
            "from": [{"namespaceSelector": team(space + version), "podSelector": app(i + 1)}],
            "ports": [{"port": 8080}],
        }]}),
        4 => json!({"podSelector": tier(i + 2), "ingress": [{
            "from": [{"ipBlock": {"cidr": format!("192.0.{space}.0/24"), "except": [format!("192.0.{space}.128/25")]}}],
            "ports": [{"port": port}],
        }]}),
        5 => json!({"podSelector": tier(i + 3), "policyTypes": ["Egress"], "egress": [{
            "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12"]}}],
            "ports": [{"port": 443}, {"port": port}],
        }]}),
        6 => json!({"podSelector": tier(i + 4), "ingress": [{
            "from": [{"namespaceSelector": {}}], "ports": [{"port": "http"}, {"port": port}],
        }]}),
        7 => json!({"podSelector": tier(i + 5), "policyTypes": ["Egress"], "egress": [{
            "to": [{"namespaceSelector": named(space + 1), "podSelector": app(i + version)}],
            "ports": [{"port": 5432}, {"port": 6000, "endPort": 6010}],
        }]}),
        8 => json!({"podSelector": tier(i + 6), "ingress": [{
            "from": [{
                "namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["team-1", "team-3"]}]},
                "podSelector": tier(i),
            }],
            "ports": [{"port": port}],
        }]}),
        _ => json!({"podSelector": tier(i + 7), "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": app(i + 8)}]}],
            "egress": [{"ports": [{"port": "metrics"}, {"port": port}]}],
        }),
    };
    let ObjectName { namespace, name } = policy_name(i);
    let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
    Event::ApplyPolicy(typed(object))
}
