//! What the groups of this node ask of an address.

mod candidates;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weir_abi::policy::LpmKey;

use crate::cidr::Block;
use crate::group::{Group, GroupRule};
use crate::hash::Key;
use crate::policy::{Namespaces, Peer, PeerKind};
use crate::port::PortName;
use crate::selector::Labels;
use crate::slab::{Number, Slab};
use candidates::Candidates;

/// The peers that rules name, numbered, and the named ports that they ask for. Grows and shrinks
/// with the groups; what has changed by that is noted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    peers: Slab<PeerUse>,
    number: HashMap<Key, Number>,
    names: Slab<NameUse>,
    name_number: BTreeMap<PortName, Number>,
    blocks: BTreeSet<Number>,
    nodes: BTreeSet<Number>,
    /// Selectors of pods in one namespace, by its name.
    in_namespace: HashMap<String, Candidates>,
    /// Selectors of pods in selected namespaces.
    anywhere: Candidates,
    /// How many rules match pods that nobody knows.
    unknown_pods: u32,
    pub changes: Changes,
}

/// What has changed since it was last looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// Peers that are new.
    pub added: BTreeSet<Number>,
    /// Peers that no rule names any more; their numbers are in use until [`Scope::forget`].
    pub removed: BTreeSet<Number>,
    /// Peers for which other named ports are asked for now; none: for everyone.
    pub named: BTreeSet<Option<Number>>,
    /// Whether pods that nobody knows matter has changed.
    pub unknown_pods: bool,
}

#[derive(Clone, Debug)]
struct PeerUse {
    peer: Arc<Peer>,
    uses: u32,
}

#[derive(Clone, Debug)]
struct NameUse {
    name: PortName,
    /// Rules for everyone that use it.
    everyone: u32,
    /// Rules by the peers that they name.
    users: BTreeMap<Number, u32>,
}

impl Scope {
    /// Takes in the rules of a group.
    pub fn add(&mut self, group: &Group) {
        for rule in &group.rules {
            for peer in rule.peers.iter().flatten() {
                self.add_peer(peer);
            }
            self.count_unknown(rule, 1);
            for name in &rule.named {
                self.add_name(name, rule);
            }
        }
    }

    /// Forgets the rules of a group.
    pub fn remove(&mut self, group: &Group) {
        for rule in &group.rules {
            for name in &rule.named {
                self.remove_name(name, rule);
            }
            self.count_unknown(rule, -1);
            for peer in rule.peers.iter().flatten() {
                self.remove_peer(peer);
            }
        }
    }

    fn count_unknown(&mut self, rule: &GroupRule, by: i32) {
        if rule.matches_unknown_pods() {
            let before = self.unknown_pods > 0;
            self.unknown_pods = self.unknown_pods.saturating_add_signed(by);
            self.changes.unknown_pods ^= before != (self.unknown_pods > 0);
        }
    }

    fn add_peer(&mut self, peer: &Arc<Peer>) {
        if let Some(number) = self.number.get(&peer.key)
            && let Some(used) = self.peers.get_mut(*number)
        {
            used.uses += 1;
            if used.uses == 1 {
                self.changes.removed.remove(number);
            }
            return;
        }
        let number = self.peers.insert(PeerUse {
            peer: Arc::clone(peer),
            uses: 1,
        });
        self.number.insert(peer.key, number);
        self.changes.added.insert(number);
        match &peer.kind {
            PeerKind::Pods { namespaces, pods } => {
                let candidates = self.candidates(namespaces);
                candidates.add(number, pods.required_label());
            }
            PeerKind::Block(_) => drop(self.blocks.insert(number)),
            PeerKind::Nodes(_) => drop(self.nodes.insert(number)),
        }
    }

    fn candidates(&mut self, namespaces: &Namespaces) -> &mut Candidates {
        match namespaces {
            Namespaces::Named(name) => self.in_namespace.entry(name.clone()).or_default(),
            Namespaces::Selected(_) => &mut self.anywhere,
        }
    }

    fn remove_peer(&mut self, peer: &Peer) {
        if let Some(number) = self.number.get(&peer.key)
            && let Some(used) = self.peers.get_mut(*number)
        {
            used.uses -= 1;
            if used.uses == 0 {
                self.changes.removed.insert(*number);
            }
        }
    }

    /// To be called when nothing has the removed peers any more: their numbers become free.
    pub fn forget(&mut self) {
        for number in std::mem::take(&mut self.changes).removed {
            let Some(PeerUse { peer, .. }) = self.peers.remove(number) else {
                continue;
            };
            self.number.remove(&peer.key);
            self.blocks.remove(&number);
            self.nodes.remove(&number);
            if let PeerKind::Pods { namespaces, pods } = &peer.kind {
                let label = pods.required_label();
                self.candidates(namespaces).remove(number, label);
                if let Namespaces::Named(name) = namespaces
                    && self
                        .in_namespace
                        .get(name)
                        .is_some_and(Candidates::is_empty)
                {
                    self.in_namespace.remove(name);
                }
            }
        }
        let unused = |name: &NameUse| name.everyone == 0 && name.users.is_empty();
        let gone: Vec<Number> = self
            .names
            .iter()
            .filter(|(_, name)| unused(name))
            .map(|(n, _)| n)
            .collect();
        for number in gone {
            if let Some(name) = self.names.remove(number) {
                self.name_number.remove(&name.name);
            }
        }
    }

    fn users<'a>(&'a self, rule: &'a GroupRule) -> Vec<Option<Number>> {
        match self.numbers(rule.peers.as_deref()) {
            None => vec![None],
            Some(numbers) => numbers.into_iter().map(Some).collect(),
        }
    }

    fn add_name(&mut self, name: &PortName, rule: &GroupRule) {
        let users = self.users(rule);
        let number = match self.name_number.get(name) {
            Some(number) => *number,
            None => {
                let number = self.names.insert(NameUse {
                    name: name.clone(),
                    everyone: 0,
                    users: BTreeMap::new(),
                });
                self.name_number.insert(name.clone(), number);
                number
            }
        };
        let Some(used) = self.names.get_mut(number) else {
            return;
        };
        for user in users {
            let count = match user {
                None => &mut used.everyone,
                Some(peer) => used.users.entry(peer).or_default(),
            };
            *count += 1;
            if *count == 1 {
                self.changes.named.insert(user);
            }
        }
    }

    fn remove_name(&mut self, name: &PortName, rule: &GroupRule) {
        let users = self.users(rule);
        let number = self.name_number.get(name);
        let Some(used) = number.and_then(|number| self.names.get_mut(*number)) else {
            return;
        };
        for user in users {
            let left = match user {
                None => {
                    used.everyone -= 1;
                    used.everyone
                }
                Some(peer) => {
                    let count = used.users.entry(peer).or_insert(1);
                    *count -= 1;
                    let left = *count;
                    if left == 0 {
                        used.users.remove(&peer);
                    }
                    left
                }
            };
            if left == 0 {
                self.changes.named.insert(user);
            }
        }
    }

    /// Whether it makes a difference to be a pod that nobody knows.
    pub fn tells_unknown_pods(&self) -> bool {
        self.unknown_pods > 0
    }

    /// A peer that some rule names.
    pub fn peer(&self, number: Number) -> Option<&Peer> {
        self.peers.get(number).map(|used| &*used.peer)
    }

    /// The sorted numbers of a rule's peers; none: everyone.
    pub fn numbers(&self, peers: Option<&[Arc<Peer>]>) -> Option<Vec<Number>> {
        let numbers = peers?
            .iter()
            .filter_map(|peer| self.number.get(&peer.key).copied());
        Some(sorted(numbers.collect()))
    }

    /// Whether a peer matches a pod.
    pub fn matches(
        &self,
        number: Number,
        namespace: &str,
        of_namespace: &Labels,
        labels: &Labels,
    ) -> bool {
        match self
            .peers
            .get(number)
            .map(|used| (used.uses, &used.peer.kind))
        {
            Some((1.., PeerKind::Pods { namespaces, pods })) => {
                namespaces.matches(namespace, of_namespace) && pods.matches(labels)
            }
            _ => false,
        }
    }

    /// The numbers of the selectors that match a pod with these labels.
    pub fn selectors_of(
        &self,
        namespace: &str,
        of_namespace: &Labels,
        labels: &Labels,
    ) -> BTreeSet<Number> {
        let named = self.in_namespace.get(namespace).into_iter();
        let candidates = named.chain([&self.anywhere]).flat_map(|c| c.of(labels));
        let matches = |number: &Number| self.matches(*number, namespace, of_namespace, labels);
        candidates.filter(matches).collect()
    }

    /// The address blocks, with their numbers.
    pub fn blocks(&self) -> impl Iterator<Item = (Number, &Block)> {
        self.blocks.iter().filter_map(|number| {
            let used = self.peers.get(*number).filter(|used| used.uses > 0)?;
            match &used.peer.kind {
                PeerKind::Block(block) => Some((*number, block)),
                PeerKind::Pods { .. } | PeerKind::Nodes(_) => None,
            }
        })
    }

    /// Whether any rule names nodes.
    pub fn has_nodes(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// The sorted numbers of the selectors that match a node with these labels.
    pub fn nodes_of(&self, labels: &Labels) -> Vec<Number> {
        let matches = |number: &Number| {
            self.peers
                .get(*number)
                .is_some_and(|used| match &used.peer.kind {
                    PeerKind::Nodes(selector) => used.uses > 0 && selector.matches(labels),
                    PeerKind::Pods { .. } | PeerKind::Block(_) => false,
                })
        };
        self.nodes.iter().copied().filter(matches).collect()
    }

    /// Which of a pod's ports count for one that `peers` (sorted) match: (number of the name, port).
    pub fn ports_of(&self, peers: &[Number], ports: &[(PortName, u16)]) -> Vec<(Number, u16)> {
        let asked = |used: &NameUse| {
            let matches = |number: &Number| peers.binary_search(number).is_ok();
            used.everyone > 0 || used.users.keys().any(matches)
        };
        let found = ports.iter().filter_map(|(name, port)| {
            let number = self.name_number.get(name)?;
            asked(self.names.get(*number)?).then_some((*number, *port))
        });
        let mut found: Vec<_> = found.collect();
        found.sort_unstable();
        found
    }

    /// The number of a port name.
    pub fn name(&self, name: &PortName) -> Option<Number> {
        self.name_number.get(name).copied()
    }

    pub fn port_name(&self, number: Number) -> Option<&PortName> {
        self.names.get(number).map(|used| &used.name)
    }
}

/// Whether a peer is so wide that most classes have it or do not have it together: all pods, or a
/// large part of a family's addresses.
pub(crate) fn is_wide(peer: &Peer) -> bool {
    match &peer.kind {
        PeerKind::Pods {
            namespaces: Namespaces::Selected(namespaces),
            pods,
        } => namespaces.is_everything() && pods.is_everything(),
        PeerKind::Block(block) => {
            let bits = block.cidr.prefix_len.saturating_sub(LpmKey::FAMILY_BITS);
            bits <= if block.cidr.family == 4 { 8 } else { 48 }
        }
        PeerKind::Pods { .. } | PeerKind::Nodes(_) => false,
    }
}

fn sorted(mut numbers: Vec<Number>) -> Vec<Number> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
