//! Groups: what holds for a set of local pods in one direction.

use std::sync::Arc;

use crate::actual::Direction;
use crate::hash::{ContentHasher, Key};
use crate::policy::{Peer, Policy};
use crate::port::{PortName, PortSet};
use crate::rule::RuleName;

/// The rules of the policies that isolate a pod in one direction.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Hash of everything that decides verdicts or their names.
    pub key: Key,
    /// In the order in which they are asked.
    pub rules: Vec<GroupRule>,
    /// Names the denial of what no rule allows.
    pub default: Arc<RuleName>,
}

/// A rule, with ingress ports looked up on the pod.
#[derive(Clone, Debug)]
pub(crate) struct GroupRule {
    pub name: Arc<RuleName>,
    /// None: everyone.
    pub peers: Option<Vec<Arc<Peer>>>,
    pub numeric: PortSet,
    /// Egress only: looked up on the peer.
    pub named: Vec<PortName>,
}

impl Group {
    /// The group of a pod that `policies` select, in the order of their names; none if no one of
    /// them isolates that direction. `number` looks a named port up on the pod.
    pub fn build(
        direction: Direction,
        policies: &[&Policy],
        number: impl Fn(&PortName) -> Option<u16>,
    ) -> Option<Self> {
        let mut rules = Vec::new();
        let mut isolating = Vec::new();
        for policy in policies {
            let Some(of_policy) = &policy.rules[direction.index()] else {
                continue;
            };
            isolating.push(&policy.name);
            for rule in of_policy {
                let (numeric, named) = match direction {
                    Direction::Ingress => (rule.ports.resolve(&number), Vec::new()),
                    Direction::Egress => (rule.ports.numeric.clone(), rule.ports.named.clone()),
                };
                // A rule whose names the pod does not have must not split groups.
                if !numeric.is_empty() || !named.is_empty() {
                    rules.push(GroupRule {
                        name: Arc::clone(&rule.name),
                        peers: rule.peers.clone(),
                        numeric,
                        named,
                    });
                }
            }
        }
        if isolating.is_empty() {
            return None;
        }
        let default = Arc::new(RuleName::isolated_by(&isolating, direction));
        Some(Self {
            key: key(&rules, &default),
            rules,
            default,
        })
    }
}

fn key(rules: &[GroupRule], default: &RuleName) -> Key {
    // The default's key has the direction and the policies in it.
    let mut hasher = ContentHasher::new("group");
    hasher.field(&default.key);
    for rule in rules {
        hasher.field(&rule.name.key);
        let mut peers: Vec<Key> = rule.peers.iter().flatten().map(|peer| peer.key).collect();
        peers.sort_unstable();
        hasher.number(peers.len() as u64);
        for peer in peers {
            hasher.field(&peer);
        }
        hasher.number(rule.numeric.ranges().len() as u64);
        for (start, end) in rule.numeric.ranges() {
            hasher.number((*start).into()).number((*end).into());
        }
        hasher.number(rule.named.len() as u64);
        for PortName { proto, name } in &rule.named {
            hasher.number(proto.0.into()).text(name);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::{Value, json};

    fn key(direction: Direction, rules: Value, http: u16) -> Key {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "x"},
            "spec": {"policyTypes": ["Ingress", "Egress"], "ingress": rules, "egress": rules},
        });
        let policy = Policy::parse(&serde_json::from_value(object).unwrap());
        let number = |name: &PortName| (name.name == "http").then_some(http);
        Group::build(direction, &[&policy], number).unwrap().key
    }

    #[test]
    fn groups_differ_where_any_rule_does() {
        let ports = |port: Value| json!([{"ports": [port]}]);
        let all = [
            json!([]),
            json!([{}]),
            json!([{}, {}]),
            ports(json!({"port": 80})),
            ports(json!({"port": 81})),
            ports(json!({"port": 80, "endPort": 90})),
            ports(json!({"port": 81, "endPort": 90})),
            ports(json!({"port": 80, "protocol": "UDP"})),
            ports(json!({"port": "http"})),
        ];
        for direction in Direction::ALL {
            let keys: Vec<Key> = all
                .iter()
                .map(|rules| key(direction, rules.clone(), 8080))
                .collect();
            for (i, a) in keys.iter().enumerate() {
                assert!(
                    keys[i + 1..].iter().all(|b| a != b),
                    "{direction:?} {}",
                    all[i]
                );
            }
        }
        let [ingress, egress] = Direction::ALL;
        assert_ne!(key(ingress, json!([]), 1), key(egress, json!([]), 1));
    }

    #[test]
    fn only_ingress_groups_depend_on_the_pods_own_ports() {
        let rules = json!([{"ports": [{"port": "http"}]}]);
        let [ingress, egress] = Direction::ALL;
        assert_ne!(
            key(ingress, rules.clone(), 80),
            key(ingress, rules.clone(), 81)
        );
        assert_eq!(key(egress, rules.clone(), 80), key(egress, rules, 81));
        // A name that the pod does not have is as if the rule were not there.
        let missing = json!([{"ports": [{"port": "dns"}]}]);
        assert_eq!(key(ingress, missing, 80), key(ingress, json!([]), 80));
    }
}
