//! The policy maps by content: two kernels that judge alike for the same reasons are equal,
//! whatever numbers they have given to what.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weir_abi::Addr;
use weir_abi::policy::{
    ClassId, Decision, DecisionKey, GroupId, IdKey, IdKind, Interval, LpmKey, PolicySlot, RuleId,
    RuleVerdict,
};
use weir_policy::Write;

/// The elements of the maps, as writes leave them.
#[derive(Clone, Default, Debug)]
pub struct Tables {
    ids: HashMap<IdKey, u32>,
    rules: HashMap<RuleId, String>,
    intervals: HashMap<u32, Interval>,
    decisions: HashMap<DecisionKey, Decision>,
    peers: HashMap<Addr, ClassId>,
    cidrs: HashMap<LpmKey, ClassId>,
    slots: HashMap<u32, u64>,
}

/// Verdicts from each port on, with their rules' content.
pub type Row = Vec<(u32, bool, String)>;

/// What they hold, numbers replaced by what they stand for.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Content {
    /// By kind and content.
    pub ids: BTreeSet<(u32, [u8; 16])>,
    /// Names of rules, by content.
    pub rules: BTreeMap<String, String>,
    /// By group and class.
    pub rows: BTreeMap<(String, String), Row>,
    /// Class of each address.
    pub peers: BTreeMap<Addr, String>,
    /// Class of each prefix.
    pub cidrs: BTreeMap<LpmKey, String>,
    /// (ingress, egress) group of each slot; closed ones are left out.
    pub slots: BTreeMap<u32, (String, String)>,
}

impl Tables {
    /// Notes a write. Epochs are no content: they count changes.
    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::PutId { key, id } => drop(self.ids.insert(*key, *id)),
            Write::DeleteId { key } => drop(self.ids.remove(key)),
            Write::PutRule { id, text } => drop(self.rules.insert(*id, text.clone())),
            Write::DeleteRule { id } => drop(self.rules.remove(id)),
            Write::PutInterval { at, interval } => drop(self.intervals.insert(*at, *interval)),
            Write::PutDecision { key, decision } => drop(self.decisions.insert(*key, *decision)),
            Write::DeleteDecision { key } => drop(self.decisions.remove(key)),
            Write::PutPeer { addr, class } => drop(self.peers.insert(*addr, *class)),
            Write::DeletePeer { addr } => drop(self.peers.remove(addr)),
            Write::PutCidr { key, class } => drop(self.cidrs.insert(*key, *class)),
            Write::DeleteCidr { key } => drop(self.cidrs.remove(key)),
            Write::SetGroups { slot, groups } => drop(self.slots.insert(*slot, *groups)),
            Write::SetEpoch { .. } => {}
        }
    }

    /// What they hold.
    pub fn content(&self) -> Content {
        let names: HashMap<(u32, u32), String> = self
            .ids
            .iter()
            .map(|(key, id)| ((key.kind, *id), hex(&key.hash)))
            .collect();
        let name = |kind: IdKind, id: u32| {
            let known = names.get(&(kind as u32, id)).cloned();
            known.unwrap_or_else(|| format!("number {id}"))
        };
        let class = |id: ClassId| {
            let base = match id.base() {
                ClassId::WORLD => "world".to_owned(),
                base => name(IdKind::Base, base.0),
            };
            match id.own() {
                0 => base,
                _ => format!("{} on {base}", name(IdKind::Class, id.0)),
            }
        };
        let group = |id: GroupId| name(IdKind::Group, id.0);
        let rule = |verdict: RuleVerdict| name(IdKind::Rule, verdict.rule().0);
        let cells = |decision: &Decision| {
            let one = |start: u32, verdict: RuleVerdict| (start, verdict.allowed(), rule(verdict));
            if decision.len == 0 {
                return vec![one(0, RuleVerdict(decision.at))];
            }
            let at = decision.at..decision.at + decision.len;
            let found = at.map(|i| self.intervals.get(&i).copied().unwrap_or_default());
            found.map(|i| one(i.start, i.verdict)).collect()
        };
        let rows = self.decisions.iter();
        let slots = self.slots.iter().filter(|(_, groups)| **groups != 0);
        Content {
            ids: self.ids.keys().map(|key| (key.kind, key.hash)).collect(),
            rules: (self.rules.iter())
                .map(|(id, text)| (name(IdKind::Rule, id.0), text.clone()))
                .collect(),
            rows: rows
                .map(|(key, row)| ((group(key.group), class(key.class)), cells(row)))
                .collect(),
            peers: self.peers.iter().map(|(a, c)| (*a, class(*c))).collect(),
            cidrs: self.cidrs.iter().map(|(k, c)| (*k, class(*c))).collect(),
            slots: slots
                .map(|(slot, groups)| {
                    let (ingress, egress) = PolicySlot::unpack(*groups);
                    (*slot, (group(ingress), group(egress)))
                })
                .collect(),
        }
    }
}

impl Content {
    /// The first map in which they differ, with what only the one and only the other has.
    pub fn difference(&self, other: &Self) -> Option<String> {
        fn compare<T: Ord + Clone + std::fmt::Debug>(
            map: &str,
            a: impl Iterator<Item = T>,
            b: impl Iterator<Item = T>,
        ) -> Option<String> {
            let (a, b): (BTreeSet<T>, BTreeSet<T>) = (a.collect(), b.collect());
            let only = |a: &BTreeSet<T>, b: &BTreeSet<T>| a.difference(b).cloned().collect();
            let (here, there): (Vec<T>, Vec<T>) = (only(&a, &b), only(&b, &a));
            (a != b).then(|| format!("{map}: only here {here:#?}, only there {there:#?}"))
        }
        compare("POLICY_SLOTS", self.slots.iter(), other.slots.iter())
            .or_else(|| compare("PEERS", self.peers.iter(), other.peers.iter()))
            .or_else(|| compare("CIDRS", self.cidrs.iter(), other.cidrs.iter()))
            .or_else(|| compare("DECISIONS", self.rows.iter(), other.rows.iter()))
            .or_else(|| compare("RULES", self.rules.iter(), other.rules.iter()))
            .or_else(|| compare("IDS", self.ids.iter(), other.ids.iter()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
