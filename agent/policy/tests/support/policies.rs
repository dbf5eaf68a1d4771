//! Random NetworkPolicies, with every field of the API, sometimes wrong.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::rng::Rng;

/// How often each feature was made.
#[derive(Default, Debug)]
pub struct Features(pub BTreeMap<&'static str, u64>);

impl Features {
    fn add(&mut self, name: &'static str) {
        *self.0.entry(name).or_default() += 1;
    }
}

/// Every name that [`Features`] may hold.
pub const ALL_FEATURES: &[&str] = &[
    "podSelector absent",
    "matchLabels",
    "In",
    "NotIn",
    "Exists",
    "DoesNotExist",
    "policyTypes absent",
    "policyTypes empty",
    "policyTypes Ingress",
    "policyTypes Egress",
    "policyTypes both",
    "ingress absent",
    "ingress empty",
    "egress absent",
    "egress empty",
    "egress rule",
    "ingress rule",
    "peers absent",
    "peers empty",
    "peer podSelector",
    "peer namespaceSelector",
    "peer both selectors",
    "peer ipBlock v4",
    "peer ipBlock v6",
    "except",
    "ports absent",
    "ports empty",
    "port absent",
    "port number",
    "port name",
    "endPort",
    "protocol absent",
    "TCP",
    "UDP",
    "SCTP",
    "wrong",
];

const LABELS: &[(&str, &[&str])] = &[
    ("app", &["web", "db", "api"]),
    ("tier", &["front", "back"]),
    ("example.com/x", &["", "1"]),
];
const NAMESPACE_LABELS: &[(&str, &[&str])] = &[
    ("team", &["red", "blue"]),
    ("kubernetes.io/metadata.name", &["a", "b", "c"]),
];
const BLOCKS: &[&str] = &[
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.0.0/24",
    "10.1.0.8/29",
    "10.1.0.11/32",
    "10.2.0.0/24",
    "10.2.0.8/29",
    "192.0.2.0/24",
    "192.0.2.4/30",
    "172.18.0.0/24",
    "172.18.0.2/32",
    "10.2.0.9/28",
    "::/0",
    "fd00::/16",
    "fd00:1::/64",
    "fd00:1::8/125",
    "fd00:2::/64",
    "fd00:2::a/128",
    "2001:db8::/32",
    "2001:db8::4/126",
    "fd12::/64",
];

pub fn labels(rng: &mut Rng, from: &[(&str, &[&str])], chance: u64) -> Value {
    let mut map = Map::new();
    for (key, values) in from {
        if rng.percent(chance) {
            map.insert((*key).to_owned(), json!(rng.pick(values)));
        }
    }
    Value::Object(map)
}

pub fn pod_labels(rng: &mut Rng) -> Value {
    labels(rng, LABELS, 60)
}

pub fn namespace_labels(rng: &mut Rng) -> Value {
    labels(rng, &NAMESPACE_LABELS[..1], 70)
}

struct Maker<'a> {
    rng: &'a mut Rng,
    features: &'a mut Features,
}

impl Maker<'_> {
    /// Yes, once in eighty times.
    fn wrong(&mut self) -> bool {
        let wrong = self.rng.below(80) == 0;
        if wrong {
            self.features.add("wrong");
        }
        wrong
    }

    fn selector(&mut self, from: &'static [(&'static str, &'static [&'static str])]) -> Value {
        let mut selector = Map::new();
        if self.rng.percent(45) {
            let labels = labels(self.rng, from, 45);
            if !labels.as_object().unwrap().is_empty() {
                self.features.add("matchLabels");
            }
            selector.insert("matchLabels".to_owned(), labels);
        }
        if self.rng.percent(35) {
            let count = 1 + self.rng.below(2);
            let list: Vec<Value> = (0..count).map(|_| self.expression(from)).collect();
            selector.insert("matchExpressions".to_owned(), json!(list));
        }
        if self.wrong() {
            selector.insert("matchLabels".to_owned(), json!({"app": "no label"}));
        }
        Value::Object(selector)
    }

    fn expression(&mut self, from: &[(&str, &[&str])]) -> Value {
        let (key, values) = self.rng.pick(from);
        let operator = self.rng.pick(&["In", "NotIn", "Exists", "DoesNotExist"]);
        self.features.add(operator);
        let takes_values = operator.ends_with("In");
        let mut listed: Vec<&str> = Vec::new();
        if takes_values != self.wrong() {
            listed.push(self.rng.pick(values));
            if self.rng.percent(40) {
                listed.push(self.rng.pick(values));
            }
        }
        let operator = if self.wrong() { "Near" } else { operator };
        json!({"key": key, "operator": operator, "values": listed})
    }

    fn block(&mut self) -> Value {
        let cidr = self.rng.pick(BLOCKS);
        let is_v6 = cidr.contains(':');
        self.features.add(if is_v6 {
            "peer ipBlock v6"
        } else {
            "peer ipBlock v4"
        });
        let mut except = Vec::new();
        if self.rng.percent(50) {
            for inner in BLOCKS {
                // The oracle says which of them are inside; most that are not would spoil the rule.
                if within(inner, cidr) && self.rng.percent(40) {
                    self.features.add("except");
                    except.push(*inner);
                }
            }
        }
        if self.wrong() {
            except.push(self.rng.pick(BLOCKS));
        }
        let cidr = if self.wrong() { "10.0.0.0/40" } else { cidr };
        json!({"cidr": cidr, "except": except})
    }

    fn peer(&mut self) -> Value {
        let mut peer = Map::new();
        let kind = self.rng.below(4);
        if kind == 0 || kind == 2 {
            peer.insert("podSelector".to_owned(), self.selector(LABELS));
        }
        if kind == 1 || kind == 2 {
            peer.insert(
                "namespaceSelector".to_owned(),
                self.selector(NAMESPACE_LABELS),
            );
        }
        match kind {
            0 => self.features.add("peer podSelector"),
            1 => self.features.add("peer namespaceSelector"),
            2 => self.features.add("peer both selectors"),
            _ => {}
        }
        if kind == 3 || self.wrong() {
            peer.insert("ipBlock".to_owned(), self.block());
        }
        if self.wrong() {
            peer.clear();
        }
        Value::Object(peer)
    }

    fn port(&mut self) -> Value {
        let mut port = Map::new();
        match self.rng.below(4) {
            0 => self.features.add("protocol absent"),
            i => {
                let name = ["TCP", "UDP", "SCTP"][i - 1];
                self.features.add(name);
                let name = if self.wrong() { "ICMP" } else { name };
                port.insert("protocol".to_owned(), json!(name));
            }
        }
        let number = [80, 443, 8080, 53, 9090, 1, 8000, 1024, 65535][self.rng.below(9)];
        match self.rng.below(5) {
            0 => self.features.add("port absent"),
            1 => {
                self.features.add("port name");
                let name = self.rng.pick(&["http", "dns", "metrics"]);
                let name = if self.wrong() { "No-Name" } else { name };
                port.insert("port".to_owned(), json!(name));
            }
            2 | 3 => {
                self.features.add("port number");
                let number = if self.wrong() { 0 } else { number };
                port.insert("port".to_owned(), json!(number));
            }
            _ => {
                self.features.add("endPort");
                port.insert("port".to_owned(), json!(number));
                let end = (number + [0, 10, 100, 60000][self.rng.below(4)]).min(65535);
                let end = if self.wrong() { number - 1 } else { end };
                port.insert("endPort".to_owned(), json!(end));
            }
        }
        if self.wrong() {
            port.insert("endPort".to_owned(), json!(70000));
        }
        Value::Object(port)
    }

    /// A list that is absent, empty or has up to `most` elements.
    fn list(
        &mut self,
        most: usize,
        names: [&'static str; 2],
        make: impl Fn(&mut Self) -> Value,
    ) -> Option<Value> {
        match self.rng.below(6) {
            0 => {
                self.features.add(names[0]);
                None
            }
            1 => {
                self.features.add(names[1]);
                Some(json!([]))
            }
            _ => {
                let count = 1 + self.rng.below(most);
                Some((0..count).map(|_| make(self)).collect())
            }
        }
    }

    fn rule(&mut self, peers_field: &str) -> Value {
        let mut rule = Map::new();
        if let Some(peers) = self.list(3, ["peers absent", "peers empty"], Self::peer) {
            rule.insert(peers_field.to_owned(), peers);
        }
        if let Some(ports) = self.list(3, ["ports absent", "ports empty"], Self::port) {
            rule.insert("ports".to_owned(), ports);
        }
        Value::Object(rule)
    }

    fn spec(&mut self) -> Value {
        let mut spec = Map::new();
        if self.rng.percent(90) {
            spec.insert("podSelector".to_owned(), self.selector(LABELS));
        } else {
            self.features.add("podSelector absent");
        }
        let types: Option<&[&str]> = match self.rng.below(6) {
            0 => {
                self.features.add("policyTypes absent");
                None
            }
            1 => {
                self.features.add("policyTypes empty");
                Some(&[])
            }
            2 => {
                self.features.add("policyTypes Ingress");
                Some(&["Ingress"])
            }
            3 => {
                self.features.add("policyTypes Egress");
                Some(&["Egress"])
            }
            _ => {
                self.features.add("policyTypes both");
                Some(&["Egress", "Ingress"])
            }
        };
        let types = if self.wrong() {
            Some(&["Ingress", "Both"][..])
        } else {
            types
        };
        if let Some(types) = types {
            spec.insert("policyTypes".to_owned(), json!(types));
        }
        for (field, peers, names, name) in [
            (
                "ingress",
                "from",
                ["ingress absent", "ingress empty"],
                "ingress rule",
            ),
            (
                "egress",
                "to",
                ["egress absent", "egress empty"],
                "egress rule",
            ),
        ] {
            let rules = self.list(3, names, |this| {
                this.features.add(name);
                this.rule(peers)
            });
            if let Some(rules) = rules {
                spec.insert(field.to_owned(), rules);
            }
        }
        Value::Object(spec)
    }
}

/// Whether `inner` is smaller than `outer` and inside it.
fn within(inner: &str, outer: &str) -> bool {
    let parse = |text: &str| text.parse::<ipnetwork::IpNetwork>().unwrap();
    let (inner, outer) = (parse(inner), parse(outer));
    inner.is_ipv4() == outer.is_ipv4()
        && inner.prefix() > outer.prefix()
        && outer.contains(inner.network())
}

/// The spec of a random policy.
pub fn spec(rng: &mut Rng, features: &mut Features) -> Value {
    Maker { rng, features }.spec()
}
