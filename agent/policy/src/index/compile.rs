//! From what has changed to [`Desired`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use weir_abi::Addr;
use weir_abi::policy::LpmKey;

use super::{Endpoint, Index};
use crate::actual::Direction;
use crate::census::PodEntry;
use crate::class::{Prefix, Signature, prefixes};
use crate::desired::{Desired, Subject, WORLD};
use crate::flatten::same_verdicts;
use crate::group::Group;
use crate::lpm::Lpm;
use crate::policy::PeerKind;
use crate::port::PortName;
use crate::scope::is_wide;
use crate::selector::Labels;
use crate::slab::Number;

/// What endpoints are judged by, as long as no policy changes: namespace, labels, ports.
type Judgement = (String, Arc<Labels>, Vec<(PortName, u16)>);

impl Index {
    /// The policy that the objects add up to. Only what has changed since the last time is made again.
    pub fn compile(&mut self) -> &Desired {
        self.judge_endpoints();
        self.census.profiles.rematch(&self.scope);
        let mut addresses = std::mem::take(&mut self.dirty.addresses);
        let changed = self.census.profiles.take_changed();
        self.find_pods(&changed, &mut addresses);
        self.find_named(&mut addresses);
        self.find_prefixes(&mut addresses);
        self.find_nodes(&mut addresses);
        self.find_classes(&addresses);
        self.fill_rows();
        self.scope.forget();
        &self.desired
    }

    /// Finds the groups of the endpoints that are marked.
    fn judge_endpoints(&mut self) {
        let mut known: HashMap<Judgement, [Option<Number>; 2]> = HashMap::new();
        let mut former = Vec::new();
        for slot in std::mem::take(&mut self.dirty.endpoints) {
            self.judged.insert(slot);
            let subjects = match self.endpoints.get(&slot) {
                None => None,
                Some(Endpoint { local, .. }) if local.pod.is_none() => Some([Subject::Open; 2]),
                Some(Endpoint { pod: None, .. }) => Some([Subject::Closed; 2]),
                Some(Endpoint { pod: Some(pod), .. }) => {
                    let pod = Arc::clone(pod);
                    let of_pod = (
                        pod.namespace.clone(),
                        Arc::clone(&pod.labels),
                        pod.ports.clone(),
                    );
                    // Pods on the host's network are judged by nothing.
                    let memory = (!pod.host_network).then_some(of_pod);
                    let found = memory.as_ref().and_then(|key| known.get(key)).copied();
                    let groups = found.map(|groups| groups.map(|group| self.join_again(group)));
                    let groups = groups.unwrap_or_else(|| self.join(&pod));
                    known.extend(memory.map(|key| (key, groups)));
                    Some(groups.map(|group| group.map_or(Subject::Open, Subject::Group)))
                }
            };
            former.extend(match subjects {
                Some(subjects) => self.desired.slots.insert(slot, subjects),
                None => self.desired.slots.remove(&slot),
            });
        }
        // Last, so that what old and new groups have in common stays.
        for subject in former.into_iter().flatten() {
            if let Subject::Group(group) = subject {
                self.groups
                    .give_back(group, &mut self.scope, &mut self.desired);
            }
        }
    }

    fn join_again(&mut self, group: Option<Number>) -> Option<Number> {
        self.groups.join_again(group?);
        group
    }

    /// The groups of a pod, (ingress, egress).
    fn join(&mut self, pod: &crate::census::PodInfo) -> [Option<Number>; 2] {
        let selecting = self.selecting(pod);
        let groups = Direction::ALL
            .map(|direction| Group::build(direction, &selecting, |name| pod.port(name)));
        groups.map(|group| Some(self.groups.take(group?, &mut self.scope, &mut self.desired)))
    }

    /// Adds all addresses of pods with these profiles, also those that only this node's record of its
    /// endpoints has.
    fn find_pods(&self, profiles: &BTreeSet<Number>, addresses: &mut BTreeSet<Addr>) {
        if profiles.is_empty() {
            return;
        }
        addresses.extend(
            profiles
                .iter()
                .flat_map(|p| self.census.profiles.addresses(*p)),
        );
        let has_one = |endpoint: &&Endpoint| {
            let profile = self.pod_of(endpoint).and_then(|pod| pod.profile);
            profile.is_some_and(|profile| profiles.contains(&profile))
        };
        let here = self.endpoints.values().filter(has_one);
        addresses.extend(here.flat_map(Endpoint::addresses));
    }

    /// Adds pods of which other named ports are asked for.
    fn find_named(&self, addresses: &mut BTreeSet<Addr>) {
        for user in &self.scope.changes.named {
            let Some(peer) = user else {
                addresses.extend(self.census.all());
                continue;
            };
            match self.scope.peer(*peer).map(|peer| &peer.kind) {
                Some(PeerKind::Block(block)) => addresses.extend(self.census.within(&block.cidr)),
                Some(PeerKind::Pods { .. }) => {
                    let matching = self.census.profiles.matching(&self.scope, *peer);
                    self.find_pods(&matching, addresses);
                }
                // Nodes have no named ports.
                Some(PeerKind::Nodes(_)) | None => {}
            }
        }
    }

    /// Makes the prefixes again if blocks or pod CIDRs have changed, and adds what lies in those that
    /// did.
    fn find_prefixes(&mut self, addresses: &mut BTreeSet<Addr>) {
        let changes = &self.scope.changes;
        let is_block = |number: &Number| {
            let peer = self.scope.peer(*number);
            peer.is_some_and(|peer| matches!(peer.kind, PeerKind::Block(_)))
        };
        let changed = changes.added.iter().chain(&changes.removed).any(is_block);
        if !changed && !changes.unknown_pods && !self.dirty.prefixes {
            return;
        }
        self.dirty.prefixes = false;
        let tells = self.scope.tells_unknown_pods();
        let nodes = self.nodes.values().filter(|_| tells);
        let new = prefixes(&self.scope, nodes.flat_map(|node| &node.pod_cidrs));
        let old = std::mem::replace(&mut self.prefixes, new);
        for key in changed_prefixes(&old, &self.prefixes) {
            addresses.extend(self.census.within(&key));
            self.set_prefix(key);
        }
    }

    fn set_prefix(&mut self, key: LpmKey) {
        let class = self.prefixes.get(&key).map(|prefix| Signature {
            unknown_pod: prefix.pods,
            peers: prefix.blocks.clone(),
            ports: Vec::new(),
        });
        let class = class.map(|signature| {
            self.classes
                .take(&signature, &self.scope, &mut self.desired)
        });
        let old = self.desired.cidrs.remove(&key);
        if let Some(class) = class {
            self.desired.cidrs.insert(key, class);
        }
        if old != class {
            self.desired.touched.cidrs.insert(key);
        }
        if let Some(old) = old {
            self.classes.give_back(old, &mut self.desired);
        }
    }

    /// Adds the nodes' addresses if rules that name nodes have come or gone.
    fn find_nodes(&self, addresses: &mut BTreeSet<Addr>) {
        let changes = &self.scope.changes;
        let names_nodes = |number: &Number| {
            let peer = self.scope.peer(*number);
            peer.is_some_and(|peer| matches!(peer.kind, PeerKind::Nodes(_)))
        };
        if changes
            .added
            .iter()
            .chain(&changes.removed)
            .any(names_nodes)
        {
            addresses.extend(
                self.nodes
                    .values()
                    .flat_map(|node| node.addresses.iter().copied()),
            );
        }
    }

    /// Finds the classes of these addresses.
    fn find_classes(&mut self, addresses: &BTreeSet<Addr>) {
        let mut last: Option<(Signature, Number)> = None;
        for addr in addresses {
            let new = self.signature(*addr).and_then(|signature| {
                let class = match &last {
                    // Neighbours are often alike.
                    Some((same, class)) if *same == signature => {
                        self.classes.take_again(*class);
                        *class
                    }
                    _ => self
                        .classes
                        .take(&signature, &self.scope, &mut self.desired),
                };
                last = Some((signature, class));
                // What the prefixes say anyway needs no entry of its own.
                let by_prefix = self.desired.cidrs.lookup(*addr).copied().unwrap_or(WORLD);
                if by_prefix == class {
                    self.classes.give_back(class, &mut self.desired);
                    last = None;
                    return None;
                }
                Some(class)
            });
            let old = match new {
                Some(class) => self.desired.peers.insert(*addr, class),
                None => self.desired.peers.remove(addr),
            };
            if old != new {
                self.desired.touched.peers.insert(*addr);
            }
            if let Some(old) = old {
                self.classes.give_back(old, &mut self.desired);
            }
        }
    }

    /// What the rules can tell of an address; none if it is of no known pod or node.
    fn signature(&self, addr: Addr) -> Option<Signature> {
        let pod = self.pod_at(addr);
        let mut nodes = self.census.nodes(addr).peekable();
        if pod.is_none() && nodes.peek().is_none() {
            return None;
        }
        let profile = pod.and_then(|pod| pod.profile);
        let mut peers: Vec<Number> = profile
            .into_iter()
            .flat_map(|profile| self.census.profiles.matched(profile))
            .collect();
        if self.scope.has_nodes() {
            let known = nodes.filter_map(|name| self.nodes.get(name));
            peers.extend(known.flat_map(|node| self.scope.nodes_of(&node.labels)));
        }
        if let Some(prefix) = self.prefixes.lookup(addr) {
            peers.extend(&prefix.blocks);
        }
        peers.sort_unstable();
        peers.dedup();
        let ports = pod.map(|pod| self.scope.ports_of(&peers, &pod.info.ports));
        Some(Signature {
            unknown_pod: false,
            ports: ports.unwrap_or_default(),
            peers,
        })
    }

    /// Who has an address: this node's own record says it of its endpoints.
    fn pod_at(&self, addr: Addr) -> Option<&PodEntry> {
        match self.census.endpoint(addr) {
            None => self.census.owner(addr),
            Some(slot) => {
                let pod = self.pod_of(self.endpoints.get(&slot)?);
                pod.filter(|pod| pod.info.is_peer())
            }
        }
    }

    /// Makes the rows of groups and classes that are new.
    fn fill_rows(&mut self) {
        let groups = std::mem::take(&mut self.groups.added);
        let classes = std::mem::take(&mut self.classes.added);
        for group in &groups {
            self.fill_row(*group, WORLD);
            let bases: Vec<Number> = self.classes.bases().collect();
            bases.iter().for_each(|base| self.fill_row(*group, *base));
            let (peers, names, unknown) = self.groups.narrow(*group, &self.scope);
            let told: BTreeSet<Number> = self
                .classes
                .of_peers(&peers)
                .chain(self.classes.of_names(&names))
                .chain(self.classes.unknown().filter(|_| unknown))
                .chain(self.classes.without_base())
                .collect();
            told.iter().for_each(|class| self.fill_row(*group, *class));
        }
        // A class's row is compared with that of its base.
        let (bases, others): (Vec<Number>, Vec<Number>) = classes
            .iter()
            .partition(|class| self.desired.base(**class) == **class);
        for class in bases.iter().chain(&others) {
            let Some(signature) = self.classes.signature(*class).cloned() else {
                continue;
            };
            let narrow = |peer: &Number| !self.scope.peer(*peer).is_some_and(is_wide);
            let whole = self.classes.stands_alone(*class);
            let peers = signature.peers.iter().copied();
            let peers: Vec<Number> = peers.filter(|peer| whole || narrow(peer)).collect();
            let telling = self.groups.telling(&signature, &peers);
            for group in telling.difference(&groups) {
                self.fill_row(*group, *class);
            }
        }
    }

    /// Gives a group a row for a class where that is not the row of its base, or of the world.
    fn fill_row(&mut self, group: Number, class: Number) {
        let of_class = match class {
            WORLD => Some(Signature::default()),
            class => self.classes.signature(class).cloned(),
        };
        let table = of_class.and_then(|signature| self.groups.table(group, &signature));
        let Some(table) = table else { return };
        let default = match class {
            WORLD => None,
            class => self.desired.default_row(group, class),
        };
        let differs = default
            .is_none_or(|default| !Arc::ptr_eq(default, &table) && !same_verdicts(default, &table));
        if differs {
            self.desired.set_row(group, class, table);
        }
    }
}

fn changed_prefixes(old: &Lpm<Prefix>, new: &Lpm<Prefix>) -> Vec<LpmKey> {
    let gone = old.iter().filter(|(key, _)| new.get(key).is_none());
    let differs = |(key, prefix): &(&LpmKey, &Prefix)| old.get(key) != Some(*prefix);
    let changed = new.iter().filter(differs);
    gone.chain(changed).map(|(key, _)| *key).collect()
}
