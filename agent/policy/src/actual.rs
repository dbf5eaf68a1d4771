//! What the kernel's policy maps hold.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use weir_abi::policy::{
    ClassId, Decision, DecisionKey, GroupId, IdKey, IdKind, Interval, PolicySlot, RuleId,
    RuleVerdict,
};
use weir_abi::{Addr, Proto};

use crate::lpm::Lpm;
use crate::write::Write;

/// Ingress or egress, as seen from the endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// Towards the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// `ingress` or `egress`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// 0 for ingress, 1 for egress.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// A mirror of the kernel's policy maps, plain data. At start it is filled by one
/// [`Actual::apply`] per element that the maps hold; from then on by each write that succeeded.
#[derive(Clone, Debug, Default)]
pub struct Actual {
    pub(crate) ids: HashMap<IdKey, u32>,
    pub(crate) rules: HashMap<RuleId, String>,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) decisions: HashMap<DecisionKey, Decision>,
    pub(crate) peers: HashMap<Addr, ClassId>,
    pub(crate) cidrs: Lpm<ClassId>,
    pub(crate) slots: BTreeMap<u32, PolicySlot>,
    /// Regions of `INTERVALS` that a row referred to until lately: (at, len).
    pub(crate) resting_regions: Vec<(u32, u32)>,
    /// Ids deleted lately: (kind, id).
    pub(crate) resting_ids: Vec<(u32, u32)>,
}

/// The verdict of the maps on a new flow, and the way there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapVerdict {
    /// What decided, and how.
    pub verdict: RuleVerdict,
    /// The endpoint's group in that direction.
    pub group: GroupId,
    /// The peer's class.
    pub class: ClassId,
}

impl Actual {
    /// Notes a write that succeeded, or an element that was read from a map. Elements of slots,
    /// `IDS` of other kinds (services) included, may all be given: what is not policy's is kept
    /// for counting only.
    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::PutId { key, id } => {
                self.ids.insert(*key, *id);
            }
            Write::DeleteId { key } => {
                if let Some(id) = self.ids.remove(key) {
                    self.resting_ids.push((key.kind, id));
                }
            }
            Write::PutRule { id, text } => {
                self.rules.insert(*id, text.clone());
            }
            Write::DeleteRule { id } => {
                self.rules.remove(id);
            }
            Write::PutInterval { at, interval } => self.set_interval(*at, *interval),
            Write::PutDecision { key, decision } => {
                let old = self.decisions.insert(*key, *decision);
                self.rest_region(old.filter(|old| old != decision));
            }
            Write::DeleteDecision { key } => {
                let old = self.decisions.remove(key);
                self.rest_region(old);
            }
            Write::PutPeer { addr, class } => {
                self.peers.insert(*addr, *class);
            }
            Write::DeletePeer { addr } => {
                self.peers.remove(addr);
            }
            Write::PutCidr { key, class } => self.cidrs.insert(*key, *class),
            Write::DeleteCidr { key } => {
                self.cidrs.remove(key);
            }
            Write::SetGroups { slot, groups } => {
                self.slots.entry(*slot).or_default().groups = *groups
            }
            Write::SetEpoch { slot, epoch } => self.slots.entry(*slot).or_default().epoch = *epoch,
        }
    }

    fn set_interval(&mut self, at: u32, interval: Interval) {
        let at = at as usize;
        if self.intervals.len() <= at {
            self.intervals.resize(at + 1, Interval::default());
        }
        self.intervals[at] = interval;
    }

    fn rest_region(&mut self, decision: Option<Decision>) {
        if let Some(Decision { at, len }) = decision
            && len > 0
        {
            self.resting_regions.push((at, len));
        }
    }

    /// To be called when at least [`crate::GRACE`] has passed since the last write: no program can
    /// still be reading what was unlinked before, so that its place and number may be used again.
    pub fn settle(&mut self) {
        self.resting_regions.clear();
        self.resting_ids.clear();
    }

    /// The elements of `INTERVALS` that the rows refer to: those are what must be read back at
    /// start, after the rows.
    pub fn interval_ranges(&self) -> Vec<Range<u32>> {
        let mut ranges: Vec<_> = self
            .decisions
            .values()
            .filter(|decision| decision.len > 0)
            .map(|decision| decision.at..decision.at.saturating_add(decision.len))
            .collect();
        ranges.sort_by_key(|range| (range.start, range.end));
        ranges.dedup();
        ranges
    }

    /// The endpoint's slot; all zero if nothing is known of it.
    pub fn slot(&self, slot: u32) -> PolicySlot {
        self.slots.get(&slot).copied().unwrap_or_default()
    }

    /// The name of a rule, as JSON.
    pub fn rule(&self, id: RuleId) -> Option<&str> {
        self.rules.get(&id).map(String::as_str)
    }

    /// How many entries `PEERS`, `CIDRS`, `DECISIONS`, `RULES` and `IDS` (policy's kinds) have.
    pub fn sizes(&self) -> [(&'static str, usize); 5] {
        use weir_abi::map;
        [
            (map::PEERS, self.peers.len()),
            (map::CIDRS, self.cidrs.len()),
            (map::DECISIONS, self.decisions.len()),
            (map::RULES, self.rules.len()),
            (map::IDS, self.ids.len()),
        ]
    }

    /// The class of an address, as the program finds it.
    pub fn class(&self, addr: Addr) -> ClassId {
        let from_prefix = || self.cidrs.lookup(addr);
        let class = self.peers.get(&addr).or_else(from_prefix);
        class.copied().unwrap_or(ClassId::WORLD)
    }

    /// What the maps say of a new flow between the endpoint in `slot` and `peer`; `port` is the
    /// flow's destination port, host order, 0 for protocols without ports. What the programs allow
    /// without a look at policy (replies, a pod's own address, the node's own traffic) is not
    /// considered.
    pub fn verdict(
        &self,
        slot: u32,
        direction: Direction,
        peer: Addr,
        proto: Proto,
        port: u16,
    ) -> MapVerdict {
        let (ingress, egress) = PolicySlot::unpack(self.slot(slot).groups);
        let group = match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        };
        let class = self.class(peer);
        let verdict = if group == GroupId::OPEN {
            RuleVerdict::NOT_SELECTED
        } else {
            match self.decisions.get(&DecisionKey { group, class }) {
                None => RuleVerdict::default(),
                Some(decision) => self.search(*decision, Interval::key(proto, port)),
            }
        };
        MapVerdict {
            verdict,
            group,
            class,
        }
    }

    fn search(&self, decision: Decision, key: u32) -> RuleVerdict {
        if decision.len == 0 {
            return RuleVerdict(decision.at);
        }
        let table = self.region(decision);
        let after = table.partition_point(|interval| interval.start <= key);
        let found = after.checked_sub(1).and_then(|i| table.get(i));
        found.map_or(RuleVerdict::default(), |interval| interval.verdict)
    }

    /// The intervals of a row that is not inline; as much of it as there is.
    pub(crate) fn region(&self, decision: Decision) -> &[Interval] {
        let end = (decision.at as usize).saturating_add(decision.len as usize);
        let end = end.min(self.intervals.len());
        self.intervals.get(decision.at as usize..end).unwrap_or(&[])
    }

    /// The (ingress, egress) groups in use, CLOSED and OPEN not among them.
    pub(crate) fn groups_in_use(&self) -> impl Iterator<Item = GroupId> {
        self.slots
            .values()
            .flat_map(|slot| {
                let (ingress, egress) = PolicySlot::unpack(slot.groups);
                [ingress, egress]
            })
            .filter(|group| *group != GroupId::CLOSED && *group != GroupId::OPEN)
    }

    /// The classes that some address has; an address outside always has [`ClassId::WORLD`].
    pub(crate) fn classes_in_use(&self) -> impl Iterator<Item = ClassId> {
        let peers = self.peers.values().copied();
        let cidrs = self.cidrs.iter().map(|(_, class)| *class);
        peers.chain(cidrs).chain([ClassId::WORLD])
    }

    /// The ids of one kind that may not be given away.
    pub(crate) fn taken_ids(&self, kind: IdKind) -> impl Iterator<Item = u32> {
        let kind = kind as u32;
        let numbered = self.ids.iter().filter(move |(key, _)| key.kind == kind);
        let resting = self.resting_ids.iter().filter(move |(k, _)| *k == kind);
        numbered
            .map(|(_, id)| *id)
            .chain(resting.map(|(_, id)| *id))
    }
}

#[cfg(test)]
mod tests;
