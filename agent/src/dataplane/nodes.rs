//! `NODE_ADDRS`, `NODE_CIDRS` and `UPLINKS`, each with a mirror of what the kernel holds, and the number of
//! their generation.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use aya::Pod;
use weir_abi::{
    Addr, map,
    node::{NodeAddr, NodeCidr, UplinkInfo, config},
    policy::LpmKey,
};

use super::{
    Error,
    config_words::ConfigWords,
    pins::Pins,
    table::{Table, Trie, Writes},
};
use crate::compile::route::Desired;

/// The maps.
pub struct NodeMaps {
    addrs: Mirrored<Addr, NodeAddr>,
    uplinks: Mirrored<u32, UplinkInfo>,
    cidrs: Trie<NodeCidr>,
    actual_cidrs: HashMap<LpmKey, NodeCidr>,
    generation: ConfigWords,
    writes: Writes,
}

impl NodeMaps {
    /// Opens the pinned maps and reads them.
    ///
    /// # Errors
    /// They are not pinned, or the kernel's.
    pub fn open(pins: &Pins, writes: &Writes) -> Result<Self, Error> {
        let cidrs: Trie<NodeCidr> = Trie::open(pins, map::NODE_CIDRS, writes)?;
        let actual_cidrs = cidrs.entries()?;
        Ok(Self {
            addrs: Mirrored::open(pins, map::NODE_ADDRS, writes)?,
            uplinks: Mirrored::open(pins, map::UPLINKS, writes)?,
            cidrs,
            actual_cidrs,
            generation: ConfigWords::open(pins, writes)?,
            writes: writes.clone(),
        })
    }

    /// Writes what differs, and then tells flows that their ways may be others now. Before the source has
    /// `synced`, nothing that is there is removed or changed to less: the Node object that it hangs on may be
    /// still to come.
    ///
    /// # Errors
    /// The first write that fails.
    pub fn sync(&mut self, desired: &Desired, synced: bool) -> Result<(), Error> {
        let before = self.writes.get();
        let done = self.write(desired, synced);
        if self.writes.get() == before {
            return done;
        }
        // Also if some of it failed.
        let told = self.generation.advance(config::GENERATION);
        done.and(told)
    }

    fn write(&mut self, desired: &Desired, synced: bool) -> Result<(), Error> {
        let keep_flags = |old: &NodeAddr, new: NodeAddr| NodeAddr {
            flags: if synced {
                new.flags
            } else {
                old.flags | new.flags
            },
        };
        // Each for itself: one that is full must not keep the others from what they need.
        let addrs = self.addrs.sync(&desired.node_addrs, keep_flags, synced);
        let keep_source = |old: &UplinkInfo, new| if synced { new } else { *old };
        let uplinks = self.uplinks.sync(&desired.uplinks, keep_source, synced);
        let cidrs = self.sync_cidrs(desired, synced);
        addrs.and(uplinks).and(cidrs)
    }

    fn sync_cidrs(&mut self, desired: &Desired, synced: bool) -> Result<(), Error> {
        for (key, value) in &desired.node_cidrs {
            if self.actual_cidrs.get(key) != Some(value) {
                self.cidrs.insert(key, value)?;
                self.actual_cidrs.insert(*key, *value);
            }
        }
        if !synced {
            return Ok(());
        }
        let stale: Vec<LpmKey> = self
            .actual_cidrs
            .keys()
            .filter(|k| !desired.node_cidrs.contains_key(k))
            .copied()
            .collect();
        for key in stale {
            self.cidrs.remove(&key)?;
            self.actual_cidrs.remove(&key);
        }
        Ok(())
    }
}

/// A hash, and what it holds.
struct Mirrored<K, V> {
    table: Table<K, V>,
    actual: HashMap<K, V>,
}

impl<K: Pod + Eq + Hash + Ord, V: Pod + PartialEq> Mirrored<K, V> {
    fn open(pins: &Pins, name: &'static str, writes: &Writes) -> Result<Self, Error> {
        let table: Table<K, V> = Table::open(pins, name, writes)?;
        let actual = table.entries()?;
        Ok(Self { table, actual })
    }

    /// Writes what differs; `merge` says what becomes of an entry that is there.
    fn sync(
        &mut self,
        desired: &BTreeMap<K, V>,
        merge: impl Fn(&V, V) -> V,
        remove: bool,
    ) -> Result<(), Error> {
        for (key, value) in desired {
            let old = self.actual.get(key);
            let value = old.map_or(*value, |old| merge(old, *value));
            if old != Some(&value) {
                self.table.insert(key, &value)?;
                self.actual.insert(*key, value);
            }
        }
        if !remove {
            return Ok(());
        }
        let stale = self.actual.keys().filter(|k| !desired.contains_key(k));
        for key in stale.copied().collect::<Vec<K>>() {
            self.table.remove(&key)?;
            self.actual.remove(&key);
        }
        Ok(())
    }
}
