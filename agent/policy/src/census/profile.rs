//! Pods that no selector can tell apart.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weir_abi::Addr;

use super::{PodInfo, namespace_labels};
use crate::policy::{Namespaces, Peer, PeerKind};
use crate::scope::Scope;
use crate::selector::Labels;
use crate::slab::{Number, Slab};

/// Namespace and labels.
type Facts = (Arc<str>, Arc<Labels>);

/// What selectors see of pods: each namespace with labels once, however many pods have them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profiles {
    slab: Slab<Profile>,
    number: HashMap<Facts, Number>,
    by_namespace: HashMap<Arc<str>, BTreeSet<Number>>,
    by_label: HashMap<(String, String), BTreeSet<Number>>,
    /// The labels of namespaces that have any.
    namespaces: HashMap<String, Labels>,
    /// Selectors that matched may match no more, or others as well.
    stale: BTreeSet<Number>,
    /// What matches has changed since it was last looked at.
    changed: BTreeSet<Number>,
}

#[derive(Clone, Debug)]
struct Profile {
    namespace: Arc<str>,
    labels: Arc<Labels>,
    /// How many pods there are, and how often each address is one of theirs.
    pods: u32,
    addresses: BTreeMap<Addr, u32>,
    /// The selectors that match.
    matched: BTreeSet<Number>,
}

impl Profiles {
    /// A pod has come; its profile.
    pub fn enter(&mut self, namespace: &str, labels: &Arc<Labels>, addresses: &[Addr]) -> Number {
        let facts = (Arc::from(namespace), Arc::clone(labels));
        let number = match self.number.get(&facts) {
            Some(number) => *number,
            None => self.add(facts),
        };
        if let Some(profile) = self.slab.get_mut(number) {
            profile.pods += 1;
            for addr in addresses {
                *profile.addresses.entry(*addr).or_default() += 1;
            }
        }
        number
    }

    /// A pod has gone.
    pub fn leave(&mut self, number: Number, addresses: &[Addr]) {
        let Some(profile) = self.slab.get_mut(number) else {
            return;
        };
        profile.pods -= 1;
        for addr in addresses {
            if let Some(count) = profile.addresses.get_mut(addr) {
                *count -= 1;
                if *count == 0 {
                    profile.addresses.remove(addr);
                }
            }
        }
        if profile.pods == 0 {
            self.remove(number);
        }
    }

    fn add(&mut self, facts: Facts) -> Number {
        let (namespace, labels) = facts.clone();
        let number = self.slab.insert(Profile {
            namespace: Arc::clone(&namespace),
            labels: Arc::clone(&labels),
            pods: 0,
            addresses: BTreeMap::new(),
            matched: BTreeSet::new(),
        });
        self.number.insert(facts, number);
        self.by_namespace
            .entry(namespace)
            .or_default()
            .insert(number);
        for (key, value) in labels.iter() {
            let label = (key.clone(), value.clone());
            self.by_label.entry(label).or_default().insert(number);
        }
        self.stale.insert(number);
        number
    }

    fn remove(&mut self, number: Number) {
        let Some(Profile {
            namespace, labels, ..
        }) = self.slab.remove(number)
        else {
            return;
        };
        self.number
            .remove(&(Arc::clone(&namespace), Arc::clone(&labels)));
        take_out(&mut self.by_namespace, &namespace, number);
        for (key, value) in labels.iter() {
            take_out(&mut self.by_label, &(key.clone(), value.clone()), number);
        }
        self.stale.remove(&number);
        self.changed.remove(&number);
    }

    /// A namespace has these labels now, or none of its own if its object is gone; whether that is
    /// something new.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) -> bool {
        let old = match labels {
            Some(labels) if self.namespaces.get(name) == Some(&labels) => return false,
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
        let of_namespace = self.by_namespace.get(name);
        self.stale.extend(of_namespace.into_iter().flatten());
        old.is_some() || of_namespace.is_some()
    }

    /// The labels of a namespace.
    pub fn namespace(&self, name: &str) -> Cow<'_, Labels> {
        match self.namespaces.get(name) {
            Some(labels) => Cow::Borrowed(labels),
            None => Cow::Owned(namespace_labels(name, None)),
        }
    }

    /// Has a pod share the labels of others like it.
    pub fn share_labels(&self, pod: &mut PodInfo) {
        let facts = (Arc::from(pod.namespace.as_str()), Arc::clone(&pod.labels));
        if let Some((known, _)) = self.number.get_key_value(&facts) {
            pod.labels = Arc::clone(&known.1);
        }
    }

    /// Matches what has changed: profiles that are new or whose namespace has, and peers that rules
    /// name now or no more.
    pub fn rematch(&mut self, scope: &Scope) {
        for number in std::mem::take(&mut self.stale) {
            let Some(Profile {
                namespace, labels, ..
            }) = self.slab.get(number)
            else {
                continue;
            };
            let matched = scope.selectors_of(namespace, &self.namespace(namespace), labels);
            if let Some(profile) = self.slab.get_mut(number)
                && profile.matched != matched
            {
                profile.matched = matched;
                self.changed.insert(number);
            }
        }
        for peer in &scope.changes.added {
            if let Some(found) = scope.peer(*peer) {
                self.rematch_peer(scope, *peer, found);
            }
        }
        for peer in &scope.changes.removed {
            if let Some(found) = scope.peer(*peer) {
                self.unmatch(*peer, found);
            }
        }
    }

    fn rematch_peer(&mut self, scope: &Scope, number: Number, peer: &Peer) {
        for candidate in self.candidates(peer) {
            let Some(Profile {
                namespace, labels, ..
            }) = self.slab.get(candidate)
            else {
                continue;
            };
            let matches = scope.matches(number, namespace, &self.namespace(namespace), labels);
            if matches
                && let Some(profile) = self.slab.get_mut(candidate)
                && profile.matched.insert(number)
            {
                self.changed.insert(candidate);
            }
        }
    }

    fn unmatch(&mut self, number: Number, peer: &Peer) {
        for candidate in self.candidates(peer) {
            if let Some(profile) = self.slab.get_mut(candidate)
                && profile.matched.remove(&number)
            {
                self.changed.insert(candidate);
            }
        }
    }

    /// All profiles that a peer may match.
    fn candidates(&self, peer: &Peer) -> Vec<Number> {
        let PeerKind::Pods { namespaces, pods } = &peer.kind else {
            return Vec::new();
        };
        let found = match (pods.required_label(), namespaces) {
            (Some((key, value)), _) => self.by_label.get(&(key.to_owned(), value.to_owned())),
            (None, Namespaces::Named(name)) => self.by_namespace.get(name.as_str()),
            (None, Namespaces::Selected(_)) => {
                return self.slab.iter().map(|(number, _)| number).collect();
            }
        };
        found.into_iter().flatten().copied().collect()
    }

    /// Those of which other selectors match than when this was last asked.
    pub fn take_changed(&mut self) -> BTreeSet<Number> {
        std::mem::take(&mut self.changed)
    }

    /// Those that a selector matches.
    pub fn matching(&self, scope: &Scope, peer: Number) -> BTreeSet<Number> {
        let candidates = scope.peer(peer).map(|found| self.candidates(found));
        let matches = |number: &Number| {
            let profile = self.slab.get(*number);
            profile.is_some_and(|profile| profile.matched.contains(&peer))
        };
        candidates.into_iter().flatten().filter(matches).collect()
    }

    /// The addresses that the objects of its pods have.
    pub fn addresses(&self, profile: Number) -> impl Iterator<Item = Addr> {
        let profile = self.slab.get(profile);
        profile
            .into_iter()
            .flat_map(|profile| profile.addresses.keys().copied())
    }

    /// The selectors that match a profile, ascending.
    pub fn matched(&self, profile: Number) -> impl Iterator<Item = Number> {
        let profile = self.slab.get(profile);
        profile
            .into_iter()
            .flat_map(|profile| profile.matched.iter().copied())
    }
}

fn take_out<K: std::hash::Hash + Eq>(
    sets: &mut HashMap<K, BTreeSet<Number>>,
    key: &K,
    number: Number,
) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(&number);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
