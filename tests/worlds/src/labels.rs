//! Labels, and selectors of them.

use serde_json::{Map, Value, json};

use crate::coverage::Coverage;
use crate::rng::Rng;

/// Keys and their values.
pub(crate) type Domain = &'static [(&'static str, &'static [&'static str])];

/// Of pods.
pub(crate) const POD: Domain = &[
    ("app", &["web", "db", "api"]),
    ("tier", &["front", "back"]),
    ("example.com/x", &["", "1"]),
];
/// Of namespaces, the name last.
pub(crate) const NAMESPACE: Domain = &[
    ("team", &["red", "blue"]),
    ("kubernetes.io/metadata.name", &["a", "b", "c"]),
];
/// Of nodes.
pub(crate) const NODE: Domain = &[
    ("kubernetes.io/hostname", &["n1", "n2"]),
    ("zone", &["east", "west"]),
];

/// Some labels.
pub(crate) fn some(rng: &mut Rng, from: Domain, chance: u64) -> Value {
    let mut map = Map::new();
    for (key, values) in from {
        if rng.percent(chance) {
            map.insert((*key).to_owned(), json!(rng.pick(values)));
        }
    }
    Value::Object(map)
}

/// Makes policies of both kinds, and counts what it makes.
pub(crate) struct Maker<'a> {
    pub rng: &'a mut Rng,
    pub coverage: &'a mut Coverage,
    /// Of how many questions [`Maker::wrong`] answers one with yes; 0: of none.
    pub mistakes: usize,
}

impl Maker<'_> {
    /// Counts a feature.
    pub fn add(&mut self, name: &str) {
        self.coverage.add(name);
    }

    /// Whether to make a mistake.
    pub fn wrong(&mut self) -> bool {
        let wrong = self.mistakes != 0 && self.rng.below(self.mistakes) == 0;
        if wrong {
            self.add("wrong");
        }
        wrong
    }

    pub fn selector(&mut self, from: Domain) -> Value {
        let mut selector = Map::new();
        if self.rng.percent(45) {
            let labels = some(self.rng, from, 45);
            if !labels.as_object().unwrap().is_empty() {
                self.add("matchLabels");
            }
            if labels.get("kubernetes.io/metadata.name").is_some() {
                self.add("metadata.name");
            }
            selector.insert("matchLabels".to_owned(), labels);
        }
        if self.rng.percent(35) {
            let count = self.rng.below(3);
            let list: Vec<Value> = (0..count).map(|_| self.expression(from)).collect();
            selector.insert("matchExpressions".to_owned(), json!(list));
        }
        if self.wrong() {
            selector.insert("matchLabels".to_owned(), json!({"app": "no label"}));
        }
        if selector.is_empty() {
            self.add("selector empty");
        }
        Value::Object(selector)
    }

    fn expression(&mut self, from: Domain) -> Value {
        let (key, values) = self.rng.pick(from);
        let operator = self.rng.pick(&["In", "NotIn", "Exists", "DoesNotExist"]);
        self.add(operator);
        let takes_values = operator.ends_with("In");
        let mut listed: Vec<&str> = Vec::new();
        if takes_values != self.wrong() {
            listed.push(self.rng.pick(values));
            if self.rng.percent(40) {
                listed.push(self.rng.pick(values));
            }
        }
        let operator = if self.wrong() { "Near" } else { operator };
        let mut expression = json!({"key": key, "operator": operator, "values": listed});
        if listed.is_empty() && self.rng.percent(50) {
            expression.as_object_mut().unwrap().remove("values");
        }
        expression
    }
}
