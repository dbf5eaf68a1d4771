//! Numbers for content.

use std::collections::{BTreeMap, HashSet};

use weir_abi::policy::{ClassId, GroupId, IdKind, RuleId};

use crate::actual::Actual;
use crate::hash::{Key, id_key};
use crate::write::Write;

/// Finds the numbers that the kernel knows and gives out new ones.
pub(super) struct Ids<'a> {
    actual: &'a Actual,
    pools: BTreeMap<u32, Pool>,
    given: BTreeMap<(u32, Key), u32>,
    /// One [`Write::PutId`] for each new number.
    pub writes: Vec<Write>,
}

struct Pool {
    taken: HashSet<u32>,
    next: u32,
    first: u32,
}

/// One more than the greatest number; rule ids have 31 bits, the others are kept to the same.
const END: u32 = 1 << 31;

impl Pool {
    /// The next number in turn, so that one that was freed lately is not used again at once.
    fn take(&mut self) -> u32 {
        loop {
            let number = self.next;
            self.next = if number + 1 < END {
                number + 1
            } else {
                self.first
            };
            if self.taken.insert(number) {
                return number;
            }
        }
    }
}

impl<'a> Ids<'a> {
    pub fn new(actual: &'a Actual) -> Self {
        let rows = || actual.decisions.keys();
        let mut pools = BTreeMap::new();
        for (kind, first, referred) in [
            (
                IdKind::Group,
                GroupId::FIRST_DYNAMIC.0,
                actual
                    .groups_in_use()
                    .chain(rows().map(|key| key.group))
                    .map(|g| g.0)
                    .collect(),
            ),
            (
                IdKind::Class,
                FIRST_CLASS.0,
                actual
                    .classes_in_use()
                    .chain(rows().map(|key| key.class))
                    .map(|c| c.0)
                    .collect(),
            ),
            (
                IdKind::Rule,
                RuleId::FIRST_DYNAMIC.0,
                actual
                    .rules
                    .keys()
                    .map(|rule| rule.0)
                    .collect::<HashSet<u32>>(),
            ),
        ] {
            let mut taken: HashSet<u32> = referred;
            taken.extend(actual.taken_ids(kind));
            let last = taken
                .iter()
                .copied()
                .filter(|id| *id < END - 1)
                .max()
                .unwrap_or(0);
            let next = (last + 1).max(first);
            pools.insert(kind as u32, Pool { taken, next, first });
        }
        Self {
            actual,
            pools,
            given: BTreeMap::new(),
            writes: Vec::new(),
        }
    }

    /// The number that the kernel has for some content.
    pub fn known(&self, kind: IdKind, hash: Key) -> Option<u32> {
        self.actual.ids.get(&id_key(kind, hash)).copied()
    }

    /// The number of some content, a new one if it has none yet.
    pub fn number(&mut self, kind: IdKind, hash: Key) -> u32 {
        if let Some(id) = self.known(kind, hash) {
            return id;
        }
        let kind = kind as u32;
        if let Some(id) = self.given.get(&(kind, hash)) {
            return *id;
        }
        let id = self.pools.get_mut(&kind).map_or(0, Pool::take);
        self.given.insert((kind, hash), id);
        let key = weir_abi::policy::IdKey { kind, hash };
        self.writes.push(Write::PutId { key, id });
        id
    }
}

/// Class ids below are fixed.
pub(super) const FIRST_CLASS: ClassId = ClassId(16);
