//! What refers to what in the kernel's maps, kept with each write.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;

use weir_abi::policy::{ClassId, Decision, DecisionKey, GroupId, PolicySlot};

/// How often something is referred to.
#[derive(Clone, Debug)]
pub(crate) struct Counts<T>(HashMap<T, u32>);

impl<T> Default for Counts<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Eq + Hash + Copy> Counts<T> {
    pub fn add(&mut self, item: T) {
        *self.0.entry(item).or_default() += 1;
    }

    pub fn remove(&mut self, item: T) {
        if let Some(count) = self.0.get_mut(&item) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&item);
            }
        }
    }

    pub fn has(&self, item: T) -> bool {
        self.0.contains_key(&item)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        self.0.keys().copied()
    }
}

/// Sets by key; no set is empty.
#[derive(Clone, Debug)]
pub(crate) struct Sets<K, V>(HashMap<K, BTreeSet<V>>);

impl<K, V> Default for Sets<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Copy, V: Ord + Copy> Sets<K, V> {
    pub fn add(&mut self, key: K, value: V) {
        self.0.entry(key).or_default().insert(value);
    }

    pub fn remove(&mut self, key: K, value: V) {
        if let Some(set) = self.0.get_mut(&key) {
            set.remove(&value);
            if set.is_empty() {
                self.0.remove(&key);
            }
        }
    }

    /// The set of one key, ascending.
    pub fn of(&self, key: K) -> impl Iterator<Item = V> {
        self.0.get(&key).into_iter().flatten().copied()
    }

    pub fn has(&self, key: K) -> bool {
        self.0.contains_key(&key)
    }
}

/// What refers to what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    /// Groups that slots are in; CLOSED and OPEN not among them.
    pub groups: Counts<GroupId>,
    /// Classes that places have; WORLD is not counted.
    pub classes: Counts<ClassId>,
    /// Bases of those classes.
    pub bases: Counts<ClassId>,
    /// The groups that have a row for a class, and the classes that a group has rows for.
    pub groups_of: Sets<ClassId, GroupId>,
    pub classes_of: Sets<GroupId, ClassId>,
    /// How many rows refer to each region of `INTERVALS`: (at, len).
    pub regions: BTreeMap<(u32, u32), u32>,
    /// Own numbers of the classes that rows or places have.
    numbers: HashSet<u32>,
}

impl Usage {
    /// A slot changes its groups.
    pub fn slot(&mut self, old: u64, new: u64) {
        let real = |word: u64| {
            let (ingress, egress) = PolicySlot::unpack(word);
            let fixed = |group: &GroupId| *group == GroupId::CLOSED || *group == GroupId::OPEN;
            [ingress, egress].into_iter().filter(move |g| !fixed(g))
        };
        real(new).for_each(|group| self.groups.add(group));
        real(old).for_each(|group| self.groups.remove(group));
    }

    /// A place changes its class.
    pub fn place(&mut self, old: Option<ClassId>, new: Option<ClassId>) {
        for class in new.into_iter().filter(|class| *class != ClassId::WORLD) {
            self.classes.add(class);
            self.bases.add(class.base());
            self.numbers.insert(class.own());
        }
        for class in old.into_iter().filter(|class| *class != ClassId::WORLD) {
            self.classes.remove(class);
            self.bases.remove(class.base());
            self.forget_number(class);
        }
    }

    /// A row changes.
    pub fn row(&mut self, key: DecisionKey, old: Option<Decision>, new: Option<Decision>) {
        let DecisionKey { group, class } = key;
        if new.is_some() {
            self.groups_of.add(class, group);
            self.classes_of.add(group, class);
            self.numbers.insert(class.own());
        } else {
            self.groups_of.remove(class, group);
            self.classes_of.remove(group, class);
            self.forget_number(class);
        }
        let region = |decision: Option<Decision>| {
            decision
                .filter(|decision| decision.len > 0)
                .map(|decision| (decision.at, decision.len))
        };
        if let Some(region) = region(new) {
            *self.regions.entry(region).or_default() += 1;
        }
        if let Some(region) = region(old)
            && let Some(count) = self.regions.get_mut(&region)
        {
            *count -= 1;
            if *count == 0 {
                self.regions.remove(&region);
            }
        }
    }

    fn forget_number(&mut self, class: ClassId) {
        if !self.classes.has(class) && !self.groups_of.has(class) {
            self.numbers.remove(&class.own());
        }
    }

    /// Whether packets can be judged by the rows of a class or base.
    pub fn reaches(&self, class: ClassId) -> bool {
        class == ClassId::WORLD || self.classes.has(class) || self.bases.has(class)
    }

    /// Whether a class with this own number is referred to.
    pub fn has_number(&self, own: u32) -> bool {
        self.numbers.contains(&own)
    }
}
