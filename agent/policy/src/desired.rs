//! What the kernel's policy maps ought to hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use weir_abi::Addr;

use crate::flatten::Table;
use crate::hash::Key;
use crate::lpm::Lpm;

/// The compiled policy of this node. Numbers in it are its own; [`crate::plan`] gives the kernel's.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Groups that some slot is in.
    pub(crate) groups: Vec<Key>,
    /// Classes that some address has. The first one is that of addresses outside the cluster that
    /// match nothing.
    pub(crate) classes: Vec<Key>,
    /// The table of (group, class) at group * number of classes + class.
    pub(crate) rows: Vec<Arc<Table>>,
    /// Classes of pods' addresses.
    pub(crate) peers: HashMap<Addr, u32>,
    /// Classes of prefixes.
    pub(crate) cidrs: Lpm<u32>,
    /// By slot: (ingress, egress).
    pub(crate) slots: BTreeMap<u32, [Subject; 2]>,
}

/// How an endpoint is judged in one direction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Subject {
    /// Its pod is not known: nothing passes.
    Closed,
    /// No policy selects it.
    Open,
    /// By the rules of a group.
    Group(u32),
}

impl Desired {
    /// The class of an address.
    pub(crate) fn class(&self, addr: Addr) -> u32 {
        let from_prefix = || self.cidrs.lookup(addr);
        self.peers
            .get(&addr)
            .or_else(from_prefix)
            .copied()
            .unwrap_or(0)
    }

    /// How many groups, classes, pod addresses and prefixes there are.
    pub fn sizes(&self) -> [(&'static str, usize); 4] {
        [
            ("groups", self.groups.len()),
            ("classes", self.classes.len()),
            ("peers", self.peers.len()),
            ("cidrs", self.cidrs.len()),
        ]
    }
}
