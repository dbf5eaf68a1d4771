//! What the kernel's policy maps hold, and what they say of a flow.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use weir_abi::policy::{
    ClassId, Decision, DecisionKey, GroupId, Interval, LpmKey, PolicySlot, RuleId, RuleVerdict,
};
use weir_policy::{Direction, Lpm};

use crate::space::Block;

/// One element of one map.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Of `POLICY_SLOTS`: the slot's number and its groups word.
    Slot(u32, u64),
    /// Of `PEERS`.
    Peer(IpAddr, ClassId),
    /// Of `CIDRS`.
    Cidr(LpmKey, ClassId),
    /// Of `DECISIONS`.
    Decision(DecisionKey, Decision),
    /// Of `INTERVALS`, by index.
    Interval(u32, Interval),
    /// Of `RULES`: the text.
    Rule(RuleId, String),
}

/// The contents of all maps.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    slots: BTreeMap<u32, u64>,
    peers: BTreeMap<IpAddr, ClassId>,
    cidrs: Lpm<ClassId>,
    decisions: HashMap<DecisionKey, Decision>,
    intervals: HashMap<u32, Interval>,
    rules: HashMap<RuleId, String>,
}

impl FromIterator<Entry> for Tables {
    fn from_iter<T: IntoIterator<Item = Entry>>(entries: T) -> Self {
        let mut tables = Self::default();
        for entry in entries {
            match entry {
                Entry::Slot(slot, groups) => {
                    tables.slots.insert(slot, groups);
                }
                Entry::Peer(addr, class) => {
                    tables.peers.insert(addr, class);
                }
                Entry::Cidr(key, class) => tables.cidrs.insert(key, class),
                Entry::Decision(key, decision) => {
                    tables.decisions.insert(key, decision);
                }
                Entry::Interval(at, interval) => {
                    tables.intervals.insert(at, interval);
                }
                Entry::Rule(id, text) => {
                    tables.rules.insert(id, text);
                }
            }
        }
        tables
    }
}

/// Entries that nothing refers to: they await their removal, or an agent ended before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leftovers {
    /// Slots with groups that no endpoint has.
    pub slots: usize,
    /// Rows of groups that no slot is in, or of classes that no address has.
    pub decisions: usize,
    /// Names of rules that no row refers to.
    pub rules: usize,
}

impl Tables {
    /// The group of a slot.
    pub fn group(&self, slot: u32, direction: Direction) -> GroupId {
        let groups = self.slots.get(&slot).copied().unwrap_or_default();
        let (ingress, egress) = PolicySlot::unpack(groups);
        match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        }
    }

    /// The class of an address, as the programs find it.
    pub fn class(&self, addr: IpAddr) -> ClassId {
        let from_prefix = || self.cidrs.lookup(addr.into());
        let class = self.peers.get(&addr).or_else(from_prefix);
        class.copied().unwrap_or(ClassId::WORLD)
    }

    /// The row of a class, else that of its base, else that of the world.
    fn row(&self, group: GroupId, class: ClassId) -> Option<Decision> {
        let row = |class| self.decisions.get(&DecisionKey { group, class });
        let classes = [class, class.base(), ClassId::WORLD];
        classes.into_iter().find_map(row).copied()
    }

    /// The verdict of a row on an [`Interval::key`], as the programs find it.
    pub fn verdict(&self, group: GroupId, class: ClassId, key: u32) -> RuleVerdict {
        if group == GroupId::OPEN {
            return RuleVerdict::NOT_SELECTED;
        }
        let Some(Decision { at, len }) = self.row(group, class) else {
            return RuleVerdict::default();
        };
        if len == 0 {
            return RuleVerdict(at);
        }
        let (mut low, mut high) = (0, len);
        let mut verdict = RuleVerdict::default();
        while low < high {
            let middle = low + (high - low) / 2;
            let interval = self.intervals.get(&at.saturating_add(middle));
            let interval = interval.copied().unwrap_or_default();
            if interval.start <= key {
                verdict = interval.verdict;
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        verdict
    }

    /// Where the intervals of a row start; at least 0.
    pub fn starts(&self, group: GroupId, class: ClassId) -> Vec<u32> {
        let Decision { at, len } = self.row(group, class).unwrap_or_default();
        let intervals = (0..len).filter_map(|n| self.intervals.get(&at.checked_add(n)?));
        let mut starts: Vec<u32> = intervals
            .map(|interval| interval.start)
            .chain([0])
            .collect();
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    /// The name of a rule.
    pub fn rule(&self, id: RuleId) -> Option<serde_json::Value> {
        serde_json::from_str(self.rules.get(&id)?).ok()
    }

    /// The addresses in `PEERS`, sorted.
    pub fn peers(&self) -> impl Iterator<Item = IpAddr> {
        self.peers.keys().copied()
    }

    /// The prefixes in `CIDRS`.
    pub fn blocks(&self) -> impl Iterator<Item = Block> {
        self.cidrs.iter().filter_map(|(key, _)| Block::of_key(key))
    }

    /// How many entries there are: slots in use, addresses, prefixes, rows, names.
    pub fn sizes(&self) -> [(&'static str, usize); 5] {
        use weir_abi::map;
        [
            (map::POLICY_SLOTS, self.slots.len()),
            (map::PEERS, self.peers.len()),
            (map::CIDRS, self.cidrs.len()),
            (map::DECISIONS, self.decisions.len()),
            (map::RULES, self.rules.len()),
        ]
    }

    /// What nothing refers to, with endpoints in these slots.
    pub fn leftovers(&self, in_use: impl IntoIterator<Item = u32>) -> Leftovers {
        let in_use: HashSet<u32> = in_use.into_iter().collect();
        let slots = self.slots.iter().filter(|(_, groups)| **groups != 0);
        let words = slots.map(|(_, groups)| PolicySlot::unpack(*groups));
        let groups: HashSet<GroupId> = words.flat_map(|(i, e)| [i, e]).collect();
        let prefixes = self.cidrs.iter().map(|(_, class)| class);
        let classes = self.peers.values().chain(prefixes);
        let classes = classes.flat_map(|class| [*class, class.base()]);
        let classes: HashSet<ClassId> = classes.chain([ClassId::WORLD]).collect();
        let mut named: HashSet<RuleId> = HashSet::new();
        for Decision { at, len } in self.decisions.values() {
            match len {
                0 => {
                    named.insert(RuleVerdict(*at).rule());
                }
                _ => {
                    let intervals = (0..*len).filter_map(|n| self.intervals.get(&(at + n)));
                    named.extend(intervals.map(|interval| interval.verdict.rule()));
                }
            }
        }
        let unused =
            |key: &&DecisionKey| !groups.contains(&key.group) || !classes.contains(&key.class);
        let nobodys = |slot: &&u32| self.slots.get(slot) != Some(&0) && !in_use.contains(slot);
        Leftovers {
            slots: self.slots.keys().filter(nobodys).count(),
            decisions: self.decisions.keys().filter(unused).count(),
            rules: self.rules.keys().filter(|id| !named.contains(id)).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_abi::Proto;

    use super::*;

    fn verdict(rule: u32) -> RuleVerdict {
        RuleVerdict::allow(RuleId(rule))
    }

    fn tables() -> Tables {
        let key = |group, class| DecisionKey {
            group: GroupId(group),
            class: ClassId(class),
        };
        let decision = |at, len| Decision { at, len };
        let interval = |start, rule| Interval {
            start,
            verdict: verdict(rule),
        };
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let prefix = |text: &str, len| LpmKey::prefix(addr(text).into(), len);
        [
            Entry::Slot(3, PolicySlot::pack(GroupId(16), GroupId::OPEN)),
            Entry::Slot(4, PolicySlot::pack(GroupId(17), GroupId::OPEN)),
            Entry::Peer(addr("10.0.0.1"), ClassId(5)),
            Entry::Cidr(prefix("10.0.0.0", 8), ClassId(6)),
            Entry::Decision(key(16, 5), decision(7, 2)),
            Entry::Decision(key(16, 6), decision(verdict(66).0, 0)),
            Entry::Decision(key(17, 0), decision(verdict(68).0, 0)),
            Entry::Decision(key(16, 9), decision(verdict(67).0, 0)),
            Entry::Decision(key(18, 5), decision(verdict(67).0, 0)),
            Entry::Interval(7, interval(0, 64)),
            Entry::Interval(8, interval(100, 65)),
            Entry::Rule(RuleId(64), "{\"name\":\"a\"}".into()),
            Entry::Rule(RuleId(99), "{}".into()),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn lookups_go_the_programs_way() {
        let tables = tables();
        let class = |addr: &str| tables.class(addr.parse().unwrap());
        assert_eq!(class("10.0.0.1"), ClassId(5));
        assert_eq!(class("10.0.0.2"), ClassId(6));
        assert_eq!(class("fd00::1"), ClassId::WORLD);
        let group = tables.group(3, Direction::Ingress);
        assert_eq!(tables.group(3, Direction::Egress), GroupId::OPEN);
        assert_eq!(tables.group(9, Direction::Egress), GroupId::CLOSED);
        for (class, key, expect) in [
            (5, 0, verdict(64)),
            (5, 99, verdict(64)),
            (5, 100, verdict(65)),
            (5, Interval::key(Proto::SCTP, 9), verdict(65)),
            (6, 5, verdict(66)),
            (7, 5, RuleVerdict::default()),
        ] {
            assert_eq!(
                tables.verdict(group, ClassId(class), key),
                expect,
                "{class} {key}"
            );
        }
        let open = tables.verdict(GroupId::OPEN, ClassId(7), 5);
        assert_eq!(open, RuleVerdict::NOT_SELECTED);
        // A row that is missing is the world's.
        let other = tables.verdict(GroupId(17), ClassId(7), 5);
        assert_eq!(other, verdict(68));
        assert_eq!(tables.starts(group, ClassId(5)), [0, 100]);
        assert_eq!(tables.starts(group, ClassId(6)), [0]);
        assert_eq!(tables.rule(RuleId(64)).unwrap()["name"], "a");
    }

    #[test]
    fn what_nothing_refers_to_is_counted() {
        let expect = Leftovers {
            slots: 1,
            decisions: 2,
            rules: 1,
        };
        assert_eq!(tables().leftovers([3]), expect);
        assert_eq!(tables().leftovers([3, 4]).slots, 0);
    }
}
