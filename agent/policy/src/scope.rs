//! What the groups of this node ask of an address.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::group::Group;
use crate::hash::Key;
use crate::policy::{Namespaces, Peer, PeerKind};
use crate::port::PortName;
use crate::selector::Labels;

/// The peers that rules name, numbered, and the named ports that they ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// By ascending key.
    peers: Vec<Arc<Peer>>,
    number: HashMap<Key, u32>,
    /// Ascending: a port name, and the peers (sorted numbers) whose rules use it; none: everyone.
    named: Vec<(PortName, Option<Vec<u32>>)>,
    /// Selectors of pods in one namespace, by its name.
    in_namespace: HashMap<String, Candidates>,
    /// Selectors of pods in selected namespaces.
    anywhere: Candidates,
}

/// Selectors, found by a label that they require.
#[derive(Clone, Debug, Default)]
struct Candidates {
    by_label: HashMap<String, HashMap<String, Vec<u32>>>,
    others: Vec<u32>,
}

impl Candidates {
    fn add(&mut self, number: u32, label: Option<(&str, &str)>) {
        match label {
            None => self.others.push(number),
            Some((key, value)) => {
                let by_value = self.by_label.entry(key.to_owned()).or_default();
                by_value.entry(value.to_owned()).or_default().push(number);
            }
        }
    }

    /// Every selector that may match these labels.
    fn of<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = u32> + 'a {
        let by_label = labels
            .iter()
            .filter_map(|(key, value)| self.by_label.get(key)?.get(value));
        by_label.flatten().chain(&self.others).copied()
    }
}

impl Scope {
    pub fn new<'a>(groups: impl Iterator<Item = &'a Group> + Clone) -> Self {
        let rules = groups.flat_map(|group| &group.rules);
        let by_key: BTreeMap<Key, &Arc<Peer>> = rules
            .clone()
            .flat_map(|rule| rule.peers.iter().flatten())
            .map(|peer| (peer.key, peer))
            .collect();
        let mut scope = Self::default();
        for (number, peer) in (0..).zip(by_key.values()) {
            scope.number.insert(peer.key, number);
            scope.peers.push(Arc::clone(peer));
            if let PeerKind::Pods { namespaces, pods } = &peer.kind {
                let candidates = match namespaces {
                    Namespaces::Named(name) => scope.in_namespace.entry(name.clone()).or_default(),
                    Namespaces::Selected(_) => &mut scope.anywhere,
                };
                candidates.add(number, pods.required_label());
            }
        }
        let mut named: BTreeMap<&PortName, Option<Vec<u32>>> = BTreeMap::new();
        for rule in rules {
            for name in &rule.named {
                let users = named.entry(name).or_insert_with(|| Some(Vec::new()));
                match (scope.numbers(rule.peers.as_deref()), users) {
                    (Some(more), Some(users)) => users.extend(more),
                    (_, users) => *users = None,
                }
            }
        }
        scope.named = named
            .into_iter()
            .map(|(name, users)| (name.clone(), users.map(sorted)))
            .collect();
        scope
    }

    /// Whether it asks for the same peers, under the same numbers.
    pub fn has_peers_of(&self, other: &Self) -> bool {
        let keys = |scope: &Self| scope.peers.iter().map(|peer| peer.key).collect::<Vec<_>>();
        keys(self) == keys(other)
    }

    pub fn key(&self, number: u32) -> Option<&Key> {
        self.peers.get(number as usize).map(|peer| &peer.key)
    }

    /// The sorted numbers of a rule's peers; none: everyone.
    pub fn numbers(&self, peers: Option<&[Arc<Peer>]>) -> Option<Vec<u32>> {
        let numbers = peers?
            .iter()
            .filter_map(|peer| self.number.get(&peer.key).copied());
        Some(sorted(numbers.collect()))
    }

    /// The sorted numbers of the selectors that match a pod with these labels.
    pub fn selectors_of(
        &self,
        namespace: &str,
        of_namespace: &Labels,
        labels: &Labels,
    ) -> Vec<u32> {
        let named = self.in_namespace.get(namespace).into_iter();
        let candidates = named.chain([&self.anywhere]).flat_map(|c| c.of(labels));
        let matches = |number: &u32| {
            self.peers
                .get(*number as usize)
                .is_some_and(|peer| match &peer.kind {
                    PeerKind::Pods { namespaces, pods } => {
                        namespaces.matches(namespace, of_namespace) && pods.matches(labels)
                    }
                    PeerKind::Block(_) | PeerKind::Nodes(_) => false,
                })
        };
        sorted(candidates.filter(matches).collect())
    }

    /// The address blocks, with their numbers.
    pub fn blocks(&self) -> impl Iterator<Item = (u32, &crate::cidr::Block)> {
        (0..)
            .zip(&self.peers)
            .filter_map(|(number, peer)| match &peer.kind {
                PeerKind::Block(block) => Some((number, block)),
                PeerKind::Pods { .. } | PeerKind::Nodes(_) => None,
            })
    }

    /// The sorted numbers of the selectors that match a node with these labels.
    pub fn nodes_of(&self, labels: &Labels) -> Vec<u32> {
        let numbered = (0..).zip(&self.peers);
        let matching = numbered.filter(|(_, peer)| match &peer.kind {
            PeerKind::Nodes(selector) => selector.matches(labels),
            PeerKind::Pods { .. } | PeerKind::Block(_) => false,
        });
        matching.map(|(number, _)| number).collect()
    }

    /// Which of a pod's ports count for one that `peers` (sorted) match: (index of the name, port).
    pub fn ports_of(&self, peers: &[u32], ports: &[(PortName, u16)]) -> Vec<(u32, u16)> {
        let asked = |users: &Option<Vec<u32>>| match users {
            None => true,
            Some(users) => users
                .iter()
                .any(|number| peers.binary_search(number).is_ok()),
        };
        let resolved = (0..)
            .zip(&self.named)
            .filter(|(_, (_, users))| asked(users));
        resolved
            .filter_map(|(index, (name, _))| {
                let found = ports.iter().find(|(other, _)| other == name);
                found.map(|(_, number)| (index, *number))
            })
            .collect()
    }

    /// Where a port name stands.
    pub fn index_of(&self, name: &PortName) -> Option<u32> {
        let found = self.named.binary_search_by(|(other, _)| other.cmp(name));
        found.ok().map(|index| index as u32)
    }

    pub fn port_name(&self, index: u32) -> Option<&PortName> {
        self.named.get(index as usize).map(|(name, _)| name)
    }
}

fn sorted(mut numbers: Vec<u32>) -> Vec<u32> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
