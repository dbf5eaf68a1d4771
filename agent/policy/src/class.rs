//! Peer classes: one for each signature that addresses have.

use std::collections::{BTreeSet, HashMap};

use weir_abi::policy::LpmKey;

use crate::desired::{Desired, DesiredClass, WORLD};
use crate::hash::{ContentHasher, Key};
use crate::lpm::Lpm;
use crate::scope::{Scope, is_wide};
use crate::slab::Number;
use crate::usage::Sets;

/// What the rules of this node's groups can tell of an address.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Signature {
    /// In a node's pod CIDR, but of no known pod, where that makes a difference.
    pub unknown_pod: bool,
    /// Sorted numbers of the selectors and blocks that match.
    pub peers: Vec<Number>,
    /// Named ports that rules for these peers ask for, as the pod has them: (name, port), sorted.
    pub ports: Vec<(Number, u16)>,
}

impl Signature {
    /// The port of this name, if the address is a pod's that has it.
    pub fn port(&self, name: Number) -> Option<u16> {
        let found = self.ports.iter().find(|(other, _)| *other == name);
        found.map(|(_, port)| *port)
    }

    pub fn has(&self, peer: Number) -> bool {
        self.peers.binary_search(&peer).is_ok()
    }

    /// What it has in common with many others.
    fn wide_part(&self, scope: &Scope) -> Self {
        let wide = |number: &Number| scope.peer(*number).is_some_and(is_wide);
        Self {
            peers: self.peers.iter().copied().filter(wide).collect(),
            ..Self::default()
        }
    }

    fn key(&self, scope: &Scope, base: Option<&Key>) -> Key {
        let mut hasher = ContentHasher::new("class");
        match base {
            Some(base) => hasher.field(base),
            None => hasher.field(b"base"),
        };
        let mut peers: Vec<&Key> = self
            .peers
            .iter()
            .filter_map(|number| scope.peer(*number))
            .map(|peer| &peer.key)
            .collect();
        peers.sort_unstable();
        hasher
            .number(self.unknown_pod.into())
            .number(peers.len() as u64);
        for key in peers {
            hasher.field(key);
        }
        let named = self
            .ports
            .iter()
            .filter_map(|(name, port)| Some((scope.port_name(*name)?, port)));
        let mut ports: Vec<_> = named.collect();
        ports.sort_unstable();
        for (name, port) in ports {
            hasher
                .number(name.proto.0.into())
                .text(&name.name)
                .number((*port).into());
        }
        hasher.finish()
    }
}

/// The signatures in use; a number is that of the class in [`Desired`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Classes {
    number: HashMap<Signature, Number>,
    bases: HashMap<Signature, Number>,
    known: HashMap<Number, Class>,
    /// Classes (not bases) by what they have.
    of_peer: Sets<Number, Number>,
    of_name: Sets<Number, Number>,
    unknown: BTreeSet<Number>,
    without_base: BTreeSet<Number>,
    /// Those that are new.
    pub added: BTreeSet<Number>,
}

#[derive(Clone, Debug)]
struct Class {
    signature: Signature,
    base: bool,
    /// Places that have it; of a base, classes on it.
    uses: u32,
}

/// Most bases at a time: half the numbers that the kernel has for them, so that there are some for
/// what is on its way out.
const MOST_BASES: usize = 100;

impl Classes {
    /// The signature of a class or base.
    pub fn signature(&self, class: Number) -> Option<&Signature> {
        self.known.get(&class).map(|class| &class.signature)
    }

    /// A place has this signature: the number of its class.
    pub fn take(&mut self, signature: &Signature, scope: &Scope, desired: &mut Desired) -> Number {
        if *signature == Signature::default() {
            return WORLD;
        }
        if let Some(number) = self.number.get(signature) {
            let number = *number;
            self.count(number);
            return number;
        }
        let base = self.take_base(signature, scope, desired);
        let base_key = desired.classes.get(base).map(|class| class.key);
        let key = signature.key(scope, Some(&base_key.unwrap_or_default()));
        let number = self.insert(signature, Some(base), key, desired);
        self.number.insert(signature.clone(), number);
        for peer in &signature.peers {
            self.of_peer.add(*peer, number);
        }
        for (name, _) in &signature.ports {
            self.of_name.add(*name, number);
        }
        if signature.unknown_pod {
            self.unknown.insert(number);
        }
        if base == WORLD && !signature.wide_part(scope).peers.is_empty() {
            self.without_base.insert(number);
        }
        number
    }

    /// One more place has the class.
    pub fn take_again(&mut self, number: Number) {
        self.count(number);
    }

    fn take_base(&mut self, signature: &Signature, scope: &Scope, desired: &mut Desired) -> Number {
        let wide = signature.wide_part(scope);
        if wide.peers.is_empty() {
            return WORLD;
        }
        if let Some(number) = self.bases.get(&wide) {
            let number = *number;
            self.count(number);
            return number;
        }
        if self.bases.len() >= MOST_BASES {
            return WORLD;
        }
        let number = self.insert(&wide, None, wide.key(scope, None), desired);
        self.bases.insert(wide, number);
        number
    }

    fn count(&mut self, number: Number) {
        if let Some(class) = self.known.get_mut(&number) {
            class.uses += 1;
        }
    }

    fn insert(
        &mut self,
        signature: &Signature,
        base: Option<Number>,
        key: Key,
        desired: &mut Desired,
    ) -> Number {
        let number = desired.classes.insert(DesiredClass {
            key,
            base,
            groups: BTreeSet::new(),
        });
        desired.touched.classes.insert(number);
        self.added.insert(number);
        let class = Class {
            signature: signature.clone(),
            base: base.is_none(),
            uses: 1,
        };
        self.known.insert(number, class);
        number
    }

    /// A place has this class no more.
    pub fn give_back(&mut self, number: Number, desired: &mut Desired) {
        let Some(class) = self.known.get_mut(&number) else {
            return;
        };
        class.uses -= 1;
        if class.uses > 0 {
            return;
        }
        let Some(Class {
            signature, base, ..
        }) = self.known.remove(&number)
        else {
            return;
        };
        self.added.remove(&number);
        if base {
            self.bases.remove(&signature);
            desired.remove_class(number);
            return;
        }
        self.number.remove(&signature);
        for peer in &signature.peers {
            self.of_peer.remove(*peer, number);
        }
        for (name, _) in &signature.ports {
            self.of_name.remove(*name, number);
        }
        self.unknown.remove(&number);
        self.without_base.remove(&number);
        let base = desired.base(number);
        desired.remove_class(number);
        self.give_back(base, desired);
    }

    /// The classes that one of these peers matches.
    pub fn of_peers<'a>(&'a self, peers: &'a [Number]) -> impl Iterator<Item = Number> + 'a {
        peers.iter().flat_map(|peer| self.of_peer.of(*peer))
    }

    /// The classes of pods that have one of these ports.
    pub fn of_names<'a>(&'a self, names: &'a [Number]) -> impl Iterator<Item = Number> + 'a {
        names.iter().flat_map(|name| self.of_name.of(*name))
    }

    /// The classes of pods that nobody knows.
    pub fn unknown(&self) -> impl Iterator<Item = Number> {
        self.unknown.iter().copied()
    }

    /// The classes that would stand on a base if there were not too many.
    pub fn without_base(&self) -> impl Iterator<Item = Number> {
        self.without_base.iter().copied()
    }

    /// Whether a class or base has nothing below it but the world, whatever it has in common with
    /// others.
    pub fn stands_alone(&self, number: Number) -> bool {
        let is_base = self.known.get(&number).is_some_and(|class| class.base);
        is_base || self.without_base.contains(&number)
    }

    /// The bases.
    pub fn bases(&self) -> impl Iterator<Item = Number> {
        self.bases.values().copied()
    }
}

/// What holds for the addresses of one prefix, unless a longer one or a pod says otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Prefix {
    /// It lies in a node's pod CIDR, and that makes a difference.
    pub pods: bool,
    /// Sorted numbers of the blocks that hold it.
    pub blocks: Vec<Number>,
}

/// Every prefix that blocks, their excepts and nodes have, each with all that its ancestors say.
/// `pod_cidrs` are those of nodes, where it makes a difference to be in one.
pub(crate) fn prefixes<'a>(
    scope: &Scope,
    pod_cidrs: impl Iterator<Item = &'a LpmKey>,
) -> Lpm<Prefix> {
    #[derive(Default)]
    struct Mark {
        pods: bool,
        begin: Vec<Number>,
        end: Vec<Number>,
    }
    let mut marks: HashMap<LpmKey, Mark> = HashMap::new();
    for key in pod_cidrs {
        marks.entry(*key).or_default().pods = true;
    }
    for (number, block) in scope.blocks() {
        marks.entry(block.cidr).or_default().begin.push(number);
        for except in &block.except {
            marks.entry(*except).or_default().end.push(number);
        }
    }
    let mut table = Lpm::default();
    for (key, mark) in marks {
        table.insert(key, mark);
    }
    let mut prefixes = Lpm::default();
    for (key, _) in table.iter() {
        let mut prefix = Prefix::default();
        let mut ended: BTreeSet<Number> = BTreeSet::new();
        for mark in table.holding(key) {
            prefix.pods |= mark.pods;
            prefix.blocks.extend(&mark.begin);
            ended.extend(&mark.end);
        }
        prefix.blocks.retain(|number| !ended.contains(number));
        prefix.blocks.sort_unstable();
        prefixes.insert(*key, prefix);
    }
    prefixes
}
