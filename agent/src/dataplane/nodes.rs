//! `NODE_ADDRS` and `NODE_CIDRS`, with a mirror of what the kernel holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weir_abi::{
    Addr, map,
    node::{NodeAddr, NodeCidr},
    policy::LpmKey,
};

use super::{
    Error,
    pins::Pins,
    table::{Table, Trie, Writes},
};

/// The two maps.
pub struct NodeMaps {
    addrs: Table<Addr, NodeAddr>,
    cidrs: Trie<NodeCidr>,
    actual_addrs: HashMap<Addr, NodeAddr>,
    actual_cidrs: HashMap<LpmKey, NodeCidr>,
}

impl NodeMaps {
    /// Opens the pinned maps and reads them.
    ///
    /// # Errors
    /// They are not pinned, or the kernel's.
    pub fn open(pins: &Pins, writes: &Writes) -> Result<Self, Error> {
        let addrs: Table<Addr, NodeAddr> = Table::open(pins, map::NODE_ADDRS, writes)?;
        let cidrs: Trie<NodeCidr> = Trie::open(pins, map::NODE_CIDRS, writes)?;
        let (actual_addrs, actual_cidrs) = (addrs.entries()?, cidrs.entries()?);
        Ok(Self {
            addrs,
            cidrs,
            actual_addrs,
            actual_cidrs,
        })
    }

    /// Writes what differs. What is there too much goes only if `remove`.
    ///
    /// # Errors
    /// The first write that fails.
    pub fn sync(
        &mut self,
        addrs: &BTreeSet<Addr>,
        cidrs: &BTreeMap<LpmKey, NodeCidr>,
        remove: bool,
    ) -> Result<(), Error> {
        for addr in addrs {
            let value = NodeAddr::default();
            if self.actual_addrs.get(addr) != Some(&value) {
                self.addrs.insert(addr, &value)?;
                self.actual_addrs.insert(*addr, value);
            }
        }
        for (key, value) in cidrs {
            if self.actual_cidrs.get(key) != Some(value) {
                self.cidrs.insert(key, value)?;
                self.actual_cidrs.insert(*key, *value);
            }
        }
        if !remove {
            return Ok(());
        }
        let stale: Vec<Addr> = self
            .actual_addrs
            .keys()
            .filter(|a| !addrs.contains(a))
            .copied()
            .collect();
        for addr in stale {
            self.addrs.remove(&addr)?;
            self.actual_addrs.remove(&addr);
        }
        let stale: Vec<LpmKey> = self
            .actual_cidrs
            .keys()
            .filter(|k| !cidrs.contains_key(k))
            .copied()
            .collect();
        for key in stale {
            self.cidrs.remove(&key)?;
            self.actual_cidrs.remove(&key);
        }
        Ok(())
    }
}
