//! Everything that the policy maps hold, as plain data.

use std::collections::BTreeMap;

use weir_abi::policy::{Decision, Interval};

use super::{Error, PinnedView};
use crate::verify::{Endpoint, Entry, Tables, Whose};

impl PinnedView {
    /// Every entry of `POLICY_SLOTS`, `PEERS`, `CIDRS`, `DECISIONS` and `RULES`, and those elements of
    /// `INTERVALS` that rows refer to. The maps may change while they are read: whoever asks must know
    /// whether they did.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tables(&self) -> Result<Tables, Error> {
        let mut entries = Vec::new();
        for slot in 0..self.slots.size() {
            let groups = self.slots.get(slot)?.groups;
            if groups != 0 {
                entries.push(Entry::Slot(slot, groups));
            }
        }
        for (addr, class) in self.peers.entries()? {
            entries.push(Entry::Peer(addr.to_ip(), class));
        }
        for (key, class) in self.cidrs.entries()? {
            entries.push(Entry::Cidr(key, class));
        }
        let mut intervals: BTreeMap<u32, Interval> = BTreeMap::new();
        for (key, decision) in self.decisions.entries()? {
            entries.push(Entry::Decision(key, decision));
            let Decision { at, len } = decision;
            let end = at.saturating_add(len).min(self.intervals.size());
            for at in (at..end).filter(|_| len > 0) {
                if let std::collections::btree_map::Entry::Vacant(entry) = intervals.entry(at) {
                    entry.insert(self.intervals.get(at)?);
                }
            }
        }
        let intervals = intervals.into_iter();
        entries.extend(intervals.map(|(at, interval)| Entry::Interval(at, interval)));
        for (id, info) in self.rules.entries()? {
            let text = info.text.get(..info.len as usize).unwrap_or(&info.text);
            let text = String::from_utf8_lossy(text).into_owned();
            entries.push(Entry::Rule(id, text));
        }
        Ok(entries.into_iter().collect())
    }

    /// The endpoints that the programs know, by slot.
    ///
    /// # Errors
    /// The kernel's.
    pub fn known_endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        let mut by_slot: BTreeMap<u32, Endpoint> = BTreeMap::new();
        for (addr, endpoint) in self.local_pods.entries()? {
            let entry = by_slot.entry(endpoint.slot).or_insert_with(|| Endpoint {
                slot: endpoint.slot,
                addresses: Vec::new(),
                whose: Whose::ByAddress,
            });
            entry.addresses.push(addr.to_ip());
            entry.addresses.sort();
        }
        Ok(by_slot.into_values().collect())
    }
}
