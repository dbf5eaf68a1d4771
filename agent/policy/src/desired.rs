//! What the kernel's policy maps ought to hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weir_abi::Addr;
use weir_abi::policy::LpmKey;

use crate::flatten::Table;
use crate::hash::Key;
use crate::lpm::Lpm;
use crate::slab::{Number, Slab};

/// The class of addresses outside the cluster that match nothing; always there.
pub(crate) const WORLD: Number = 0;

/// The compiled policy of this node. Numbers in it are its own; [`crate::plan`] gives the kernel's.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Groups that some slot is in.
    pub(crate) groups: Slab<DesiredGroup>,
    /// Classes that some address has, and their bases.
    pub(crate) classes: Slab<DesiredClass>,
    /// Classes of pods' and nodes' addresses.
    pub(crate) peers: HashMap<Addr, Number>,
    /// Classes of prefixes.
    pub(crate) cidrs: Lpm<Number>,
    /// By slot: (ingress, egress).
    pub(crate) slots: BTreeMap<u32, [Subject; 2]>,
    /// What has changed since it was last in force.
    pub(crate) touched: Touched,
}

/// A group, and those of its rows that are not the default ones.
#[derive(Clone, Debug)]
pub(crate) struct DesiredGroup {
    pub key: Key,
    /// By class. [`WORLD`] is always there; a base is, if its row differs from the world's; a class,
    /// if its row differs from its base's.
    pub rows: HashMap<Number, Arc<Table>>,
}

/// A class, or a base of classes.
#[derive(Clone, Debug)]
pub(crate) struct DesiredClass {
    pub key: Key,
    /// Its base; none if it is one.
    pub base: Option<Number>,
    /// The groups with a row for it.
    pub groups: BTreeSet<Number>,
}

/// How an endpoint is judged in one direction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    /// Its pod is not known: nothing passes.
    Closed,
    /// No policy selects it.
    Open,
    /// By the rules of a group.
    Group(u32),
}

/// What has changed since what was desired was last in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    /// Addresses of which the class, or whether they have an entry, may have changed.
    pub peers: BTreeSet<Addr>,
    /// The same of prefixes.
    pub cidrs: BTreeSet<LpmKey>,
    /// Groups and classes that are new.
    pub groups: BTreeSet<Number>,
    pub classes: BTreeSet<Number>,
}

impl Default for Desired {
    fn default() -> Self {
        let mut classes = Slab::default();
        let world = DesiredClass {
            key: Key::default(),
            base: None,
            groups: BTreeSet::new(),
        };
        // The first number is WORLD.
        classes.insert(world);
        Self {
            groups: Slab::default(),
            classes,
            peers: HashMap::new(),
            cidrs: Lpm::default(),
            slots: BTreeMap::new(),
            touched: Touched::default(),
        }
    }
}

impl Desired {
    /// The class of an address.
    pub(crate) fn class(&self, addr: Addr) -> Number {
        let from_prefix = || self.cidrs.lookup(addr);
        self.peers
            .get(&addr)
            .or_else(from_prefix)
            .copied()
            .unwrap_or(WORLD)
    }

    /// The base of a class; a base is its own.
    pub(crate) fn base(&self, class: Number) -> Number {
        let base = self.classes.get(class).and_then(|class| class.base);
        base.unwrap_or(class)
    }

    /// The table of a group for a class; none if there is no such group.
    pub(crate) fn row(&self, group: Number, class: Number) -> Option<&Arc<Table>> {
        let rows = &self.groups.get(group)?.rows;
        let classes = [class, self.base(class), WORLD];
        classes.into_iter().find_map(|class| rows.get(&class))
    }

    /// The table of a group for a class that has no row of its own.
    pub(crate) fn default_row(&self, group: Number, class: Number) -> Option<&Arc<Table>> {
        let rows = &self.groups.get(group)?.rows;
        let base = Some(self.base(class)).filter(|base| *base != class);
        base.and_then(|base| rows.get(&base))
            .or_else(|| rows.get(&WORLD))
    }

    /// Gives a group a row of its own for a class.
    pub(crate) fn set_row(&mut self, group: Number, class: Number, table: Arc<Table>) {
        if let (Some(of_group), Some(of_class)) =
            (self.groups.get_mut(group), self.classes.get_mut(class))
        {
            of_group.rows.insert(class, table);
            of_class.groups.insert(group);
        }
    }

    /// Forgets a group and its rows.
    pub(crate) fn remove_group(&mut self, group: Number) {
        let Some(removed) = self.groups.remove(group) else {
            return;
        };
        for class in removed.rows.keys() {
            if let Some(class) = self.classes.get_mut(*class) {
                class.groups.remove(&group);
            }
        }
        self.touched.groups.remove(&group);
    }

    /// Forgets a class and its rows.
    pub(crate) fn remove_class(&mut self, class: Number) {
        let Some(removed) = self.classes.remove(class) else {
            return;
        };
        for group in removed.groups {
            if let Some(group) = self.groups.get_mut(group) {
                group.rows.remove(&class);
            }
        }
        self.touched.classes.remove(&class);
    }

    /// To be told when all of it is in force: [`crate::plan_changes`] looks at what changes from then
    /// on.
    pub(crate) fn settled(&mut self) {
        self.touched = Touched::default();
    }

    /// How many groups, classes, rows, pod addresses and prefixes there are.
    pub fn sizes(&self) -> [(&'static str, usize); 5] {
        [
            ("groups", self.groups.len()),
            ("classes", self.classes.len()),
            (
                "rows",
                self.groups.iter().map(|(_, group)| group.rows.len()).sum(),
            ),
            ("peers", self.peers.len()),
            ("cidrs", self.cidrs.len()),
        ]
    }
}
