//! `NETNS`, with a mirror of what the kernel holds: only differences are written.

use std::collections::HashMap;

use weir_abi::{
    map,
    node::{NetnsOwner, netns},
};

use super::{
    Error,
    pins::Pins,
    table::{Table, Writes},
};

/// Which entries of the map a writer keeps: it leaves the others alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Those of pods.
    Pods,
    /// The node's own.
    Node,
}

/// The entries of one kind.
pub struct NetnsMap {
    table: Table<u64, NetnsOwner>,
    actual: HashMap<u64, NetnsOwner>,
}

impl NetnsMap {
    /// Opens the pinned map and reads the entries of that kind.
    ///
    /// # Errors
    /// It is not pinned, or the kernel's.
    pub fn open(pins: &Pins, kept: Kept, writes: &Writes) -> Result<Self, Error> {
        let table: Table<u64, NetnsOwner> = Table::open(pins, map::NETNS, writes)?;
        let mut actual = table.entries()?;
        let node = kept == Kept::Node;
        actual.retain(|_, owner| (owner.flags & netns::NODE != 0) == node);
        Ok(Self { table, actual })
    }

    /// Makes the programs know whose a namespace is; `None`: nobody's.
    ///
    /// # Errors
    /// The map is full, or the kernel's.
    pub fn set(&mut self, cookie: u64, owner: Option<NetnsOwner>) -> Result<(), Error> {
        if self.actual.get(&cookie) == owner.as_ref() {
            return Ok(());
        }
        match owner {
            Some(owner) => {
                self.table.insert(&cookie, &owner)?;
                self.actual.insert(cookie, owner);
            }
            None => {
                self.table.remove(&cookie)?;
                self.actual.remove(&cookie);
            }
        }
        Ok(())
    }

    /// Removes every entry of this kind that `keep` does not want.
    ///
    /// # Errors
    /// The kernel's.
    pub fn retain(&mut self, keep: impl Fn(u64, &NetnsOwner) -> bool) -> Result<(), Error> {
        let stale: Vec<u64> = self
            .actual
            .iter()
            .filter(|(cookie, owner)| !keep(**cookie, owner))
            .map(|(cookie, _)| *cookie)
            .collect();
        stale
            .into_iter()
            .try_for_each(|cookie| self.set(cookie, None))
    }
}
