//! What the kernel's policy maps hold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use weir_abi::policy::{
    ClassId, Decision, DecisionKey, GroupId, IdKey, IdKind, Interval, PolicySlot, RuleId,
    RuleVerdict,
};
use weir_abi::{Addr, Proto};

use crate::lpm::Lpm;
use crate::usage::Usage;
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
    pub(crate) resting_ids: HashSet<(u32, u32)>,
    /// What refers to what.
    pub(crate) usage: Usage,
    /// The numbers in `ids`, and the greatest by kind that was ever seen.
    numbered: HashSet<(u32, u32)>,
    greatest: HashMap<u32, u32>,
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
                if let Some(old) = self.ids.insert(*key, *id) {
                    self.numbered.remove(&(key.kind, own_number(key.kind, old)));
                }
                self.numbered.insert((key.kind, own_number(key.kind, *id)));
                self.saw(key.kind, *id);
            }
            Write::DeleteId { key } => {
                if let Some(id) = self.ids.remove(key) {
                    let number = (key.kind, own_number(key.kind, id));
                    self.numbered.remove(&number);
                    self.resting_ids.insert(number);
                }
            }
            Write::PutRule { id, text } => {
                self.saw(IdKind::Rule as u32, id.0);
                self.rules.insert(*id, text.clone());
            }
            Write::DeleteRule { id } => {
                self.rules.remove(id);
            }
            Write::PutInterval { at, interval } => self.set_interval(*at, *interval),
            Write::PutDecision { key, decision } => self.set_row(*key, Some(*decision)),
            Write::DeleteDecision { key } => self.set_row(*key, None),
            Write::PutPeer { addr, class } => {
                let old = self.peers.insert(*addr, *class);
                self.note_place(old, Some(*class));
            }
            Write::DeletePeer { addr } => {
                let old = self.peers.remove(addr);
                self.note_place(old, None);
            }
            Write::PutCidr { key, class } => {
                let old = self.cidrs.remove(key);
                self.cidrs.insert(*key, *class);
                self.note_place(old, Some(*class));
            }
            Write::DeleteCidr { key } => {
                let old = self.cidrs.remove(key);
                self.note_place(old, None);
            }
            Write::SetGroups { slot, groups } => {
                let old = &mut self.slots.entry(*slot).or_default().groups;
                let old = std::mem::replace(old, *groups);
                self.usage.slot(old, *groups);
                let (ingress, egress) = PolicySlot::unpack(*groups);
                self.saw(IdKind::Group as u32, ingress.0.max(egress.0));
            }
            Write::SetEpoch { slot, epoch } => self.slots.entry(*slot).or_default().epoch = *epoch,
        }
    }

    /// Notes that a number is, or was, in use.
    fn saw(&mut self, kind: u32, id: u32) {
        let greatest = self.greatest.entry(kind).or_default();
        *greatest = own_number(kind, id).max(*greatest);
    }

    fn note_place(&mut self, old: Option<ClassId>, new: Option<ClassId>) {
        self.usage.place(old, new);
        if let Some(class) = new {
            self.saw(IdKind::Class as u32, class.0);
        }
    }

    fn set_row(&mut self, key: DecisionKey, new: Option<Decision>) {
        let old = match new {
            Some(decision) => self.decisions.insert(key, decision),
            None => self.decisions.remove(&key),
        };
        self.usage.row(key, old, new);
        self.saw(IdKind::Class as u32, key.class.0);
        self.saw(IdKind::Group as u32, key.group.0);
        self.rest_region(old.filter(|old| Some(*old) != new));
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
        let regions = self.usage.regions.keys();
        regions
            .map(|(at, len)| *at..at.saturating_add(*len))
            .collect()
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
            match self.row(group, class) {
                None => RuleVerdict::default(),
                Some(decision) => self.search(decision, Interval::key(proto, port)),
            }
        };
        MapVerdict {
            verdict,
            group,
            class,
        }
    }

    /// The row of a class, else that of its base, else that of the world.
    pub(crate) fn row(&self, group: GroupId, class: ClassId) -> Option<Decision> {
        let row = |class| self.decisions.get(&DecisionKey { group, class });
        let classes = [class, class.base(), ClassId::WORLD];
        classes.into_iter().find_map(row).copied()
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

    /// Whether a number (of a class its own) may not be given away.
    pub(crate) fn is_taken(&self, kind: IdKind, id: u32) -> bool {
        let referred = match kind {
            IdKind::Group => {
                let group = GroupId(id);
                self.usage.groups.has(group) || self.usage.classes_of.has(group)
            }
            IdKind::Class => self.usage.has_number(id),
            IdKind::Rule => self.rules.contains_key(&RuleId(id)),
            IdKind::Base => {
                let base = ClassId(id);
                self.usage.bases.has(base) || self.usage.groups_of.has(base)
            }
            IdKind::Set | IdKind::Backend => false,
        };
        let key = (kind as u32, id);
        referred || self.numbered.contains(&key) || self.resting_ids.contains(&key)
    }

    /// The greatest number of a kind that was ever seen.
    pub(crate) fn greatest(&self, kind: IdKind) -> u32 {
        self.greatest.get(&(kind as u32)).copied().unwrap_or(0)
    }
}

/// What of an id must not be given twice: a class has a number of its own whatever base it is on.
fn own_number(kind: u32, id: u32) -> u32 {
    match kind == IdKind::Class as u32 {
        true => ClassId(id).own(),
        false => id,
    }
}

#[cfg(test)]
mod tests;
