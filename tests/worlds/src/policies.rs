//! Random NetworkPolicies, with every field of the API, sometimes wrong.

use serde_json::{Map, Value, json};

use crate::coverage::Coverage;
use crate::labels::{self, Maker};
use crate::rng::Rng;

/// Everything of a NetworkPolicy that is counted.
pub const FEATURES: &[&str] = &[
    "podSelector absent",
    "selector empty",
    "matchLabels",
    "metadata.name",
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
    "except absent",
    "except empty",
    "ports absent",
    "ports empty",
    "port absent",
    "port number",
    "port name from",
    "port name to",
    "endPort",
    "endPort is the port",
    "port 1",
    "endPort 65535",
    "protocol absent",
    "TCP",
    "UDP",
    "SCTP",
    "wrong",
];

/// Networks that hold pods, nodes, addresses outside, and each other.
pub(crate) const BLOCKS: &[&str] = &[
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

impl Maker<'_> {
    fn block(&mut self) -> Value {
        let cidr = self.rng.pick(BLOCKS);
        let is_v6 = cidr.contains(':');
        self.add(if is_v6 {
            "peer ipBlock v6"
        } else {
            "peer ipBlock v4"
        });
        let mut except = Vec::new();
        if self.rng.percent(50) {
            for inner in BLOCKS {
                // Most that are not inside would spoil the rule.
                if within(inner, cidr) && self.rng.percent(40) {
                    self.add("except");
                    except.push(*inner);
                }
            }
        }
        if self.wrong() {
            except.push(self.rng.pick(BLOCKS));
        }
        let cidr = if self.wrong() { "10.0.0.0/40" } else { cidr };
        if except.is_empty() && self.rng.percent(50) {
            self.add("except absent");
            return json!({"cidr": cidr});
        }
        if except.is_empty() {
            self.add("except empty");
        }
        json!({"cidr": cidr, "except": except})
    }

    fn peer(&mut self) -> Value {
        let mut peer = Map::new();
        let kind = self.rng.below(4);
        if kind == 0 || kind == 2 {
            peer.insert("podSelector".to_owned(), self.selector(labels::POD));
        }
        if kind == 1 || kind == 2 {
            let selector = self.selector(labels::NAMESPACE);
            peer.insert("namespaceSelector".to_owned(), selector);
        }
        match kind {
            0 => self.add("peer podSelector"),
            1 => self.add("peer namespaceSelector"),
            2 => self.add("peer both selectors"),
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

    fn port(&mut self, peers_field: &str) -> Value {
        let mut port = Map::new();
        match self.rng.below(4) {
            0 => self.add("protocol absent"),
            i => {
                let name = ["TCP", "UDP", "SCTP"][i - 1];
                self.add(name);
                let name = if self.wrong() { "ICMP" } else { name };
                port.insert("protocol".to_owned(), json!(name));
            }
        }
        let number = [80, 443, 8080, 53, 9090, 1, 1, 8000, 1024, 65535][self.rng.below(10)];
        match self.rng.below(5) {
            0 => self.add("port absent"),
            1 => {
                self.add(&format!("port name {peers_field}"));
                let name = self.rng.pick(&["http", "dns", "metrics"]);
                let name = if self.wrong() { "No-Name" } else { name };
                port.insert("port".to_owned(), json!(name));
            }
            2 | 3 => {
                self.add("port number");
                let number = if self.wrong() { 0 } else { number };
                port.insert("port".to_owned(), json!(number));
            }
            _ => self.range(number, &mut port),
        }
        if self.wrong() {
            port.insert("endPort".to_owned(), json!(70000));
        }
        Value::Object(port)
    }

    fn range(&mut self, number: i64, port: &mut Map<String, Value>) {
        self.add("endPort");
        let end = (number + [0, 10, 100, 65535][self.rng.below(4)]).min(65535);
        if number == 1 {
            self.add("port 1");
        }
        if end == 65535 {
            self.add("endPort 65535");
        }
        if end == number {
            self.add("endPort is the port");
        }
        let end = if self.wrong() { number - 1 } else { end };
        port.insert("port".to_owned(), json!(number));
        port.insert("endPort".to_owned(), json!(end));
    }

    /// A list that is absent, empty or has up to `most` elements.
    fn list(
        &mut self,
        most: usize,
        names: [&str; 2],
        make: impl Fn(&mut Self) -> Value,
    ) -> Option<Value> {
        match self.rng.below(6) {
            0 => {
                self.add(names[0]);
                None
            }
            1 => {
                self.add(names[1]);
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
        let port = |this: &mut Self| this.port(peers_field);
        if let Some(ports) = self.list(3, ["ports absent", "ports empty"], port) {
            rule.insert("ports".to_owned(), ports);
        }
        Value::Object(rule)
    }

    fn policy_types(&mut self) -> Option<Value> {
        let (name, types) = match self.rng.below(6) {
            0 => ("policyTypes absent", None),
            1 => ("policyTypes empty", Some(json!([]))),
            2 => ("policyTypes Ingress", Some(json!(["Ingress"]))),
            3 => ("policyTypes Egress", Some(json!(["Egress"]))),
            _ => ("policyTypes both", Some(json!(["Egress", "Ingress"]))),
        };
        self.add(name);
        if self.wrong() {
            return Some(json!(["Ingress", "Both"]));
        }
        types
    }

    fn spec(&mut self) -> Value {
        let mut spec = Map::new();
        if self.rng.percent(90) {
            spec.insert("podSelector".to_owned(), self.selector(labels::POD));
        } else {
            self.add("podSelector absent");
        }
        if let Some(types) = self.policy_types() {
            spec.insert("policyTypes".to_owned(), types);
        }
        for (field, peers) in [("ingress", "from"), ("egress", "to")] {
            let names = [format!("{field} absent"), format!("{field} empty")];
            let names = [names[0].as_str(), names[1].as_str()];
            let rules = self.list(3, names, |this| {
                this.add(&format!("{field} rule"));
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
pub(crate) fn spec(rng: &mut Rng, coverage: &mut Coverage) -> Value {
    let mut maker = Maker {
        rng,
        coverage,
        mistakes: 80,
    };
    maker.spec()
}
