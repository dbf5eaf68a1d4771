//! Policy's way into the kernel (interim: every endpoint open).

use std::{collections::BTreeSet, time::Instant};

use weir_abi::policy::{GroupId, PolicySlot};

use super::endpoints::Record;
use crate::{
    dataplane::{Error, pins::Pins, slots::Slots, table::Writes},
    state::Change,
};

/// The policy index and the kernel's maps.
pub struct Policy {
    slots: Slots,
    live: BTreeSet<u32>,
}

impl Policy {
    /// Opens the maps and reads them.
    pub fn open(pins: &Pins, writes: &Writes, _node: &str) -> Result<Self, Error> {
        Ok(Self {
            slots: Slots::open(pins, writes)?,
            live: BTreeSet::new(),
        })
    }

    /// How many endpoints there can be.
    pub fn slots(&self) -> u32 {
        self.slots.count()
    }

    /// Takes an object's change in; whether it matters.
    pub fn apply(&mut self, _change: &Change) -> bool {
        false
    }

    /// An endpoint is here.
    pub fn apply_endpoint(&mut self, record: &Record) {
        self.live.insert(record.slot);
    }

    /// An endpoint is gone.
    pub fn remove_endpoint(&mut self, slot: u32) {
        self.live.remove(&slot);
    }

    /// Brings the kernel up to date.
    pub fn sync(&mut self, _now: Instant) -> Result<(), Error> {
        for slot in 0..self.slots.count() {
            let groups = if self.live.contains(&slot) {
                PolicySlot::pack(GroupId::OPEN, GroupId::OPEN)
            } else {
                0
            };
            if self.slots.get(slot).is_some_and(|s| s.groups != groups) {
                self.slots.set_groups(slot, groups)?;
            }
        }
        Ok(())
    }

    /// When `sync` wants to be called again.
    pub fn due(&self) -> Option<Instant> {
        None
    }

    /// The (ingress, egress) groups of a slot, and which policies isolate it.
    pub fn directions(&self, slot: u32) -> [weir_api::endpoint::Direction; 2] {
        let (ingress, egress) = PolicySlot::unpack(self.slots.get(slot).unwrap_or_default().groups);
        [ingress, egress].map(|group| weir_api::endpoint::Direction {
            group: group.0,
            isolated_by: Vec::new(),
        })
    }

    /// What is wrong with policy objects.
    pub fn problems(&self) -> Vec<String> {
        Vec::new()
    }
}
