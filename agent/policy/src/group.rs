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
            hasher.number((u64::from(*start) << 32) | u64::from(*end));
        }
        hasher.number(rule.named.len() as u64);
        for PortName { proto, name } in &rule.named {
            hasher.number(proto.0.into()).text(name);
        }
    }
    hasher.finish()
}
