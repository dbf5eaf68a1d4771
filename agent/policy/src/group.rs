//! Groups: what holds for a set of local pods in one direction.

use std::sync::Arc;

use crate::actual::Direction;
use crate::cluster_policy::ClusterPolicy;
use crate::hash::{ContentHasher, Key};
use crate::policy::{Peer, PeerKind, Policy, Rule};
use crate::port::{PortName, PortSet};
use crate::rule::RuleName;
use crate::tier::{Action, Tier};

/// The rules that judge a pod in one direction.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Hash of everything that decides verdicts or their names.
    pub key: Key,
    /// In the order in which they are asked.
    pub rules: Vec<GroupRule>,
    /// Names the denial of what no rule allows, if a NetworkPolicy isolates the pod.
    pub isolated: Option<Arc<RuleName>>,
}

/// A rule, with ingress ports looked up on the pod.
#[derive(Clone, Debug)]
pub(crate) struct GroupRule {
    pub tier: Tier,
    pub action: Action,
    pub name: Arc<RuleName>,
    /// None: everyone.
    pub peers: Option<Vec<Arc<Peer>>>,
    pub numeric: PortSet,
    /// Egress only: looked up on the peer.
    pub named: Vec<PortName>,
}

impl GroupRule {
    /// Whether it matches pods that nobody knows: what denies pods by selector does, as any of them
    /// may be one that it selects.
    pub fn matches_unknown_pods(&self) -> bool {
        let selects = |peer: &Arc<Peer>| matches!(peer.kind, PeerKind::Pods { .. });
        self.action == Action::Deny && self.peers.iter().flatten().any(selects)
    }
}

/// All policies that select a pod, in the order in which they are asked.
#[derive(Default)]
pub(crate) struct Selecting<'a> {
    /// By tier, priority, name.
    pub cluster: Vec<&'a ClusterPolicy>,
    /// By name.
    pub policies: Vec<&'a Policy>,
}

impl Group {
    /// The group of a pod; none if no NetworkPolicy isolates that direction and no
    /// ClusterNetworkPolicy has a rule for it. `number` looks a named port up on the pod.
    pub fn build(
        direction: Direction,
        selecting: &Selecting<'_>,
        number: impl Fn(&PortName) -> Option<u16>,
    ) -> Option<Self> {
        let of_direction = |policy: &'_ Policy| policy.rules[direction.index()].is_some();
        let policies = selecting.policies.iter().copied();
        let isolating: Vec<&Policy> = policies.filter(|policy| of_direction(policy)).collect();
        let isolated = (!isolating.is_empty()).then(|| {
            let names: Vec<_> = isolating.iter().map(|policy| &policy.name).collect();
            Arc::new(RuleName::isolated_by(&names, direction))
        });
        let mut rules = Vec::new();
        let mut add = |tier: Tier, rule: &Rule| {
            let (numeric, named) = match direction {
                Direction::Ingress => (rule.ports.resolve(&number), Vec::new()),
                Direction::Egress => (rule.ports.numeric.clone(), rule.ports.named.clone()),
            };
            // A rule whose names the pod does not have must not split groups.
            if !numeric.is_empty() || !named.is_empty() {
                rules.push(GroupRule {
                    tier,
                    action: rule.action,
                    name: Arc::clone(&rule.name),
                    peers: rule.peers.clone(),
                    numeric,
                    named,
                });
            }
        };
        for tier in Tier::ALL {
            // What isolates leaves nothing to the tier after it.
            if tier == Tier::Baseline && isolated.is_some() {
                continue;
            }
            for policy in selecting
                .cluster
                .iter()
                .filter(|policy| policy.tier == tier)
            {
                policy.rules[direction.index()]
                    .iter()
                    .for_each(|rule| add(tier, rule));
            }
            if tier == Tier::NetworkPolicy {
                let of_policies = isolating
                    .iter()
                    .filter_map(|p| p.rules[direction.index()].as_ref());
                of_policies.flatten().for_each(|rule| add(tier, rule));
            }
        }
        if isolated.is_none() && rules.is_empty() {
            return None;
        }
        Some(Self {
            key: key(direction, &rules, isolated.as_deref()),
            rules,
            isolated,
        })
    }
}

fn key(direction: Direction, rules: &[GroupRule], isolated: Option<&RuleName>) -> Key {
    let mut hasher = ContentHasher::new("group");
    hasher.text(direction.name());
    match isolated {
        Some(name) => hasher.field(&name.key),
        None => hasher.field(&[]),
    };
    for rule in rules {
        hasher.number(rule.tier as u64).number(rule.action as u64);
        hasher.field(&rule.name.key);
        let mut peers: Vec<Key> = rule.peers.iter().flatten().map(|peer| peer.key).collect();
        peers.sort_unstable();
        // Nobody is not everyone.
        hasher.number(rule.peers.is_some().into());
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
        let selecting = Selecting {
            policies: vec![&policy],
            ..Selecting::default()
        };
        Group::build(direction, &selecting, number).unwrap().key
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
