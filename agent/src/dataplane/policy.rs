//! The policy maps: read back at start, then changed one [`Write`] at a time, in the order given.

use weir_abi::{
    Addr, map,
    policy::{
        ClassId, Decision, DecisionKey, IdKey, Interval, LpmKey, PolicySlot, RuleId, RuleInfo,
    },
};
use weir_policy::{Actual, Limits, Write};

use super::{
    Error,
    pins::Pins,
    slots::Slots,
    table::{Elements, Table, Trie, Writes},
};

/// The maps with their mirror.
pub struct PolicyMaps {
    ids: Table<IdKey, u32>,
    rules: Table<RuleId, RuleInfo>,
    intervals: Elements<Interval>,
    decisions: Table<DecisionKey, Decision>,
    peers: Table<Addr, ClassId>,
    cidrs: Trie<ClassId>,
    slots: Slots,
    actual: Actual,
}

impl PolicyMaps {
    /// Opens the pinned maps and reads what they hold.
    ///
    /// # Errors
    /// A map is not pinned or not of its shape; the kernel's.
    pub fn open(pins: &Pins, writes: &Writes) -> Result<Self, Error> {
        let mut maps = Self {
            ids: Table::open(pins, map::IDS, writes)?,
            rules: Table::open(pins, map::RULES, writes)?,
            intervals: Elements::open(pins, map::INTERVALS, writes)?,
            decisions: Table::open(pins, map::DECISIONS, writes)?,
            peers: Table::open(pins, map::PEERS, writes)?,
            cidrs: Trie::open(pins, map::CIDRS, writes)?,
            slots: Slots::open(pins, writes)?,
            actual: Actual::default(),
        };
        maps.read_back()?;
        Ok(maps)
    }

    /// Opens the maps again that can get another size, with the same content: what is known of them
    /// stays.
    ///
    /// # Errors
    /// As [`PolicyMaps::open`]; the former ones stay open then.
    pub fn reopen(&mut self, pins: &Pins, writes: &Writes) -> Result<(), Error> {
        let ids = Table::open(pins, map::IDS, writes)?;
        let rules = Table::open(pins, map::RULES, writes)?;
        let intervals = Elements::open(pins, map::INTERVALS, writes)?;
        let decisions = Table::open(pins, map::DECISIONS, writes)?;
        let peers = Table::open(pins, map::PEERS, writes)?;
        let cidrs = Trie::open(pins, map::CIDRS, writes)?;
        (self.ids, self.rules, self.intervals) = (ids, rules, intervals);
        (self.decisions, self.peers, self.cidrs) = (decisions, peers, cidrs);
        Ok(())
    }

    fn read_back(&mut self) -> Result<(), Error> {
        let mut actual = Actual::default();
        for (key, id) in self.ids.entries()? {
            actual.apply(&Write::PutId { key, id });
        }
        for (id, info) in self.rules.entries()? {
            actual.apply(&Write::PutRule {
                id,
                text: text_of(&info),
            });
        }
        for (key, decision) in self.decisions.entries()? {
            actual.apply(&Write::PutDecision { key, decision });
        }
        for range in actual.interval_ranges() {
            for at in range {
                let interval = self.intervals.get(at)?;
                actual.apply(&Write::PutInterval { at, interval });
            }
        }
        for (addr, class) in self.peers.entries()? {
            actual.apply(&Write::PutPeer { addr, class });
        }
        for (key, class) in self.cidrs.entries()? {
            actual.apply(&Write::PutCidr { key, class });
        }
        for slot in 0..self.slots.count() {
            let PolicySlot { groups, epoch } = self.slots.get(slot).unwrap_or_default();
            if (groups, epoch) != (0, 0) {
                actual.apply(&Write::SetGroups { slot, groups });
                actual.apply(&Write::SetEpoch { slot, epoch });
            }
        }
        self.actual = actual;
        Ok(())
    }

    /// What the maps hold.
    pub fn actual(&self) -> &Actual {
        &self.actual
    }

    /// See [`Actual::settle`].
    pub fn settle(&mut self) {
        self.actual.settle();
    }

    /// The maps' sizes.
    pub fn limits(&self) -> Limits {
        Limits {
            intervals: self.intervals.size(),
            peers: self.peers.size(),
            cidrs: self.cidrs.size(),
            decisions: self.decisions.size(),
            rules: self.rules.size(),
            ids: self.ids.size(),
        }
    }

    /// How many endpoints there can be.
    pub fn slots(&self) -> u32 {
        self.slots.count()
    }

    /// Performs writes in order.
    ///
    /// # Errors
    /// The first that fails; those after it are not performed.
    pub fn perform<'a>(
        &mut self,
        writes: impl IntoIterator<Item = &'a Write>,
    ) -> Result<(), Error> {
        for write in writes {
            match write {
                Write::PutId { key, id } => self.ids.insert(key, id),
                Write::DeleteId { key } => self.ids.remove(key),
                Write::PutRule { id, text } => self.rules.insert(id, &info_of(text)),
                Write::DeleteRule { id } => self.rules.remove(id),
                Write::PutInterval { at, interval } => self.intervals.set(*at, *interval),
                Write::PutDecision { key, decision } => self.decisions.insert(key, decision),
                Write::DeleteDecision { key } => self.decisions.remove(key),
                Write::PutPeer { addr, class } => self.peers.insert(addr, class),
                Write::DeletePeer { addr } => self.peers.remove(addr),
                Write::PutCidr { key, class } => self.put_cidr(key, *class),
                Write::DeleteCidr { key } => self.cidrs.remove(key),
                Write::SetGroups { slot, groups } => self.slots.set_groups(*slot, *groups),
                Write::SetEpoch { slot, epoch } => self.slots.set_epoch(*slot, *epoch),
            }?;
            self.actual.apply(write);
        }
        Ok(())
    }

    fn put_cidr(&mut self, key: &LpmKey, class: ClassId) -> Result<(), Error> {
        self.cidrs.insert(key, &class)
    }
}

fn text_of(info: &RuleInfo) -> String {
    let text = info.text.get(..info.len as usize).unwrap_or(&info.text);
    String::from_utf8_lossy(text).into_owned()
}

fn info_of(text: &str) -> RuleInfo {
    let mut info = RuleInfo {
        len: 0,
        text: [0; RuleInfo::TEXT],
    };
    // The compiler keeps within the limit; what would not fit is cut off.
    let length = text.len().min(RuleInfo::TEXT);
    info.text[..length].copy_from_slice(&text.as_bytes()[..length]);
    info.len = length as u32;
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rules_text_goes_in_and_comes_out_the_same() {
        for text in [
            "",
            "{\"kind\":\"NetworkPolicy\"}",
            &"x".repeat(RuleInfo::TEXT),
        ] {
            assert_eq!(text_of(&info_of(text)), text);
        }
        assert_eq!(text_of(&info_of(&"y".repeat(2000))).len(), RuleInfo::TEXT);
    }
}
