//! Random ClusterNetworkPolicies, with every field of the API, sometimes wrong.

use serde_json::{Map, Value, json};

use crate::coverage::Coverage;
use crate::labels::{self, Maker};
use crate::policies::BLOCKS;
use crate::rng::Rng;

/// Everything of a ClusterNetworkPolicy that is counted.
pub const FEATURES: &[&str] = &[
    "tier Admin",
    "tier Baseline",
    "tier refused",
    "priority 0",
    "priority 1000",
    "priority refused",
    "subject namespaces",
    "subject pods",
    "subject refused",
    "rules absent",
    "rules empty",
    "rule of ingress",
    "rule of egress",
    "rule name",
    "rule name too long",
    "Accept",
    "Deny",
    "Pass",
    "action refused",
    "CNP peer namespaces",
    "CNP peer pods",
    "CNP peer nodes",
    "CNP peer networks",
    "CNP peer domainNames",
    "CNP peer of no known field",
    "CNP peers absent",
    "CNP peers too many",
    "protocols absent",
    "protocols empty",
    "protocol tcp",
    "protocol udp",
    "protocol sctp",
    "protocol without port",
    "destination number",
    "destination range",
    "range to 65535",
    "destinationNamedPort ingress",
    "destinationNamedPort egress",
    "unknown field",
];

/// Few, so that several policies have the same.
const PRIORITIES: &[i64] = &[0, 5, 5, 5, 10, 1000];

impl Maker<'_> {
    /// Whether to make something that the API server would refuse, or that nobody knows here.
    fn odd(&mut self, name: &str) -> bool {
        let odd = self.mistakes != 0 && self.rng.below(10) == 0;
        if odd {
            self.add(name);
        }
        odd
    }

    /// Adds a field that no version knows yet.
    fn perhaps_unknown(&mut self, map: &mut Map<String, Value>) {
        if self.rng.below(3) == 0 && self.odd("unknown field") {
            map.insert("later".to_owned(), json!({"x": 1}));
        }
    }

    fn namespaced_pods(&mut self) -> Value {
        let mut pods = Map::new();
        let of_namespace = self.selector(labels::NAMESPACE);
        pods.insert("namespaceSelector".to_owned(), of_namespace);
        pods.insert("podSelector".to_owned(), self.selector(labels::POD));
        if self.wrong() {
            pods.remove("podSelector");
        }
        self.perhaps_unknown(&mut pods);
        Value::Object(pods)
    }

    fn subject(&mut self) -> Value {
        let mut subject = Map::new();
        let both = self.odd("subject refused");
        if both || self.rng.percent(50) {
            self.add("subject namespaces");
            let all = self.rng.percent(60);
            let selector = if all {
                json!({})
            } else {
                self.selector(labels::NAMESPACE)
            };
            subject.insert("namespaces".to_owned(), selector);
        }
        if both || subject.is_empty() {
            self.add("subject pods");
            subject.insert("pods".to_owned(), self.namespaced_pods());
        }
        if self.odd("subject refused") {
            subject.clear();
        }
        self.perhaps_unknown(&mut subject);
        Value::Object(subject)
    }

    fn networks(&mut self) -> Value {
        let count = 1 + self.rng.below(3);
        let mut list: Vec<&str> = (0..count).map(|_| self.rng.pick(BLOCKS)).collect();
        if self.wrong() {
            list.push("10.0.0.0/40");
        }
        if self.wrong() {
            list.clear();
        }
        json!(list)
    }

    fn cluster_peer(&mut self, is_egress: bool, accepts: bool) -> Value {
        let (name, value) = match self.rng.below(if is_egress { 7 } else { 2 }) {
            0 if self.rng.percent(30) => ("namespaces", json!({})),
            0 => ("namespaces", self.selector(labels::NAMESPACE)),
            1 => ("pods", self.namespaced_pods()),
            2 | 3 => ("nodes", self.selector(labels::NODE)),
            4 | 5 => ("networks", self.networks()),
            _ if accepts || self.wrong() => ("domainNames", json!(["*.example.com"])),
            _ => ("networks", self.networks()),
        };
        self.add(&format!("CNP peer {name}"));
        let mut peer = Map::new();
        peer.insert(name.to_owned(), value);
        if self.wrong() {
            let second = self.selector(labels::NAMESPACE);
            peer.insert("namespaces".to_owned(), second);
        }
        if self.odd("CNP peer of no known field") {
            peer.clear();
            peer.insert("services".to_owned(), json!({}));
        }
        self.perhaps_unknown(&mut peer);
        Value::Object(peer)
    }

    fn destination(&mut self) -> Value {
        let number = self.rng.pick(&[80, 443, 8080, 53, 9090, 1, 65535]);
        let mut port = Map::new();
        if self.rng.percent(50) {
            self.add("destination number");
            let number = if self.wrong() { 65536 } else { number };
            port.insert("number".to_owned(), json!(number));
        } else {
            self.add("destination range");
            let start = self.rng.pick(&[1, 53, 80, 8000, 9000]);
            let end = start + self.rng.pick(&[1, 10, 100, 65535]);
            let end = end.min(65535);
            if end == 65535 {
                self.add("range to 65535");
            }
            let end = if self.wrong() { start } else { end };
            port.insert("range".to_owned(), json!({"start": start, "end": end}));
        }
        if self.wrong() {
            port.insert("number".to_owned(), json!(80));
        }
        self.perhaps_unknown(&mut port);
        Value::Object(port)
    }

    fn protocol(&mut self, direction: &str, only_pods: bool) -> Value {
        let mut protocol = Map::new();
        // Beside peers that are no pods a name is refused.
        if self.rng.percent(25) && (only_pods || self.wrong()) {
            self.add(&format!("destinationNamedPort {direction}"));
            let name = self.rng.pick(&["http", "dns", "metrics"]);
            let name = if self.wrong() { "No-Name" } else { name };
            protocol.insert("destinationNamedPort".to_owned(), json!(name));
        } else {
            let name = self.rng.pick(&["tcp", "tcp", "udp", "sctp"]);
            self.add(&format!("protocol {name}"));
            let mut ports = Map::new();
            if !self.odd("protocol without port") {
                ports.insert("destinationPort".to_owned(), self.destination());
            }
            self.perhaps_unknown(&mut ports);
            protocol.insert(name.to_owned(), Value::Object(ports));
        }
        if self.wrong() {
            let second = json!({"destinationPort": {"number": 53}});
            protocol.insert("udp".to_owned(), second);
        }
        self.perhaps_unknown(&mut protocol);
        Value::Object(protocol)
    }

    fn cluster_rule(&mut self, direction: &str) -> Value {
        let mut rule = Map::new();
        if self.rng.percent(40) {
            self.add("rule name");
            let name = if self.odd("rule name too long") {
                "x".repeat(101)
            } else {
                self.rng.pick(&["one", "the other"]).to_owned()
            };
            rule.insert("name".to_owned(), json!(name));
        }
        let action = self.rng.pick(&["Accept", "Accept", "Deny", "Pass", "Pass"]);
        self.add(action);
        rule.insert("action".to_owned(), json!(action));
        if self.odd("action refused") {
            rule.insert("action".to_owned(), json!("Allow"));
        }
        let is_egress = direction == "egress";
        let count = 1 + self.rng.below(3);
        let mut peers: Vec<Value> = (0..count)
            .map(|_| self.cluster_peer(is_egress, action == "Accept"))
            .collect();
        let of_pods = |peer: &Value| peer.get("namespaces").or(peer.get("pods")).is_some();
        let only_pods = peers.iter().all(of_pods);
        if self.odd("CNP peers too many") {
            peers = vec![peers[0].clone(); 26];
        }
        if !self.odd("CNP peers absent") {
            let field = if is_egress { "to" } else { "from" };
            rule.insert(field.to_owned(), json!(peers));
        }
        if self.odd("protocols empty") {
            rule.insert("protocols".to_owned(), json!([]));
        } else if self.rng.percent(60) {
            self.add("protocols absent");
        } else {
            let count = 1 + self.rng.below(3);
            let list: Vec<Value> = (0..count)
                .map(|_| self.protocol(direction, only_pods))
                .collect();
            rule.insert("protocols".to_owned(), json!(list));
        }
        self.perhaps_unknown(&mut rule);
        Value::Object(rule)
    }

    fn cluster_rules(&mut self, direction: &str) -> Option<Value> {
        match self.rng.below(8) {
            0 => {
                self.add("rules absent");
                return None;
            }
            1 => {
                self.add("rules empty");
                return Some(json!([]));
            }
            _ => {}
        }
        let count = 1 + self.rng.below(3);
        let rules = (0..count).map(|_| {
            self.add(&format!("rule of {direction}"));
            self.cluster_rule(direction)
        });
        Some(rules.collect())
    }

    fn cluster_spec(&mut self) -> Value {
        let mut spec = Map::new();
        let tier = self.rng.pick(&["Admin", "Baseline", "Baseline"]);
        self.add(&format!("tier {tier}"));
        spec.insert("tier".to_owned(), json!(tier));
        if self.odd("tier refused") {
            spec.insert("tier".to_owned(), json!("Middle"));
        }
        let priority = self.rng.pick(PRIORITIES);
        if priority == 0 || priority == 1000 {
            self.add(&format!("priority {priority}"));
        }
        spec.insert("priority".to_owned(), json!(priority));
        if self.odd("priority refused") {
            let bad = self.rng.pick(&[Some(-1), Some(1001), None]);
            spec.insert("priority".to_owned(), json!(bad));
        }
        let subject = self.subject();
        spec.insert("subject".to_owned(), subject);
        for direction in ["ingress", "egress"] {
            if let Some(rules) = self.cluster_rules(direction) {
                spec.insert(direction.to_owned(), rules);
            }
        }
        Value::Object(spec)
    }
}

/// The spec of a random policy.
pub(crate) fn spec(rng: &mut Rng, coverage: &mut Coverage) -> Value {
    let mistakes = if rng.percent(25) { 30 } else { 0 };
    let mut maker = Maker {
        rng,
        coverage,
        // A mistake mostly costs a whole rule: most policies have none.
        mistakes,
    };
    maker.cluster_spec()
}
