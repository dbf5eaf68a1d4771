//! Numbers for content.

use std::collections::{BTreeMap, HashSet};

use weir_abi::map;
use weir_abi::policy::{ClassId, GroupId, IdKey, IdKind, RuleId};

use crate::actual::Actual;
use crate::hash::{Key, id_key};
use crate::limits::CapacityError;
use crate::write::Write;

/// Finds the numbers that the kernel knows and gives out new ones.
pub(super) struct Ids<'a> {
    actual: &'a Actual,
    /// The number given last, by kind.
    last: BTreeMap<IdKind, u32>,
    taken: HashSet<(IdKind, u32)>,
    given: BTreeMap<(IdKind, Key), u32>,
    /// One [`Write::PutId`] for each new number.
    pub writes: Vec<Write>,
}

/// Class ids below are fixed.
pub(super) const FIRST_CLASS: u32 = 16;

/// The numbers of a kind: first, and one past the last.
const fn range(kind: IdKind) -> (u32, u32) {
    match kind {
        IdKind::Group => (GroupId::FIRST_DYNAMIC.0, 1 << 31),
        IdKind::Class => (FIRST_CLASS, 1 << ClassId::OWN_BITS),
        IdKind::Base => (1, 1 << ClassId::BASE_BITS),
        // Rule ids have 31 bits.
        IdKind::Rule | IdKind::Set | IdKind::Backend => (RuleId::FIRST_DYNAMIC.0, 1 << 31),
    }
}

impl<'a> Ids<'a> {
    pub fn new(actual: &'a Actual) -> Self {
        Self {
            actual,
            last: BTreeMap::new(),
            taken: HashSet::new(),
            given: BTreeMap::new(),
            writes: Vec::new(),
        }
    }

    /// The number that the kernel has for some content.
    pub fn known(&self, kind: IdKind, hash: Key) -> Option<u32> {
        self.actual.ids.get(&id_key(kind, hash)).copied()
    }

    /// The number of some content, a new one if it has none yet.
    ///
    /// # Errors
    /// There are no more numbers of this kind.
    pub fn number(&mut self, kind: IdKind, hash: Key) -> Result<u32, CapacityError> {
        self.number_on(kind, hash, |number| number)
    }

    /// The class of some content, a new one on `base` if it has none yet.
    ///
    /// # Errors
    /// As [`Ids::number`].
    pub fn class(&mut self, hash: Key, base: ClassId) -> Result<ClassId, CapacityError> {
        debug_assert_eq!(base.own(), 0, "a class stands on a base");
        let whole = |own| ClassId::on_base(base, own).0;
        self.number_on(IdKind::Class, hash, whole).map(ClassId)
    }

    /// The base of some content, a new one if it has none yet.
    ///
    /// # Errors
    /// As [`Ids::number`].
    pub fn base(&mut self, hash: Key) -> Result<ClassId, CapacityError> {
        let whole = |number| number << ClassId::OWN_BITS;
        self.number_on(IdKind::Base, hash, whole).map(ClassId)
    }

    fn number_on(
        &mut self,
        kind: IdKind,
        hash: Key,
        whole: impl Fn(u32) -> u32,
    ) -> Result<u32, CapacityError> {
        if let Some(id) = self.known(kind, hash) {
            return Ok(id);
        }
        if let Some(id) = self.given.get(&(kind, hash)) {
            return Ok(*id);
        }
        let id = whole(self.take(kind, &whole)?);
        self.given.insert((kind, hash), id);
        let key = IdKey {
            kind: kind as u32,
            hash,
        };
        self.writes.push(Write::PutId { key, id });
        Ok(id)
    }

    /// The next number in turn, so that one that was freed lately is not used again at once.
    fn take(&mut self, kind: IdKind, whole: &impl Fn(u32) -> u32) -> Result<u32, CapacityError> {
        let (first, end) = range(kind);
        let greatest = || match kind {
            IdKind::Base => self.actual.greatest(kind) >> ClassId::OWN_BITS,
            _ => self.actual.greatest(kind),
        };
        let last = self.last.get(&kind).copied().unwrap_or_else(greatest);
        let mut number = last;
        for _ in first..end {
            number = if number + 1 < end {
                (number + 1).max(first)
            } else {
                first
            };
            let free = !self.is_taken(kind, number, whole(number));
            if free && self.taken.insert((kind, number)) {
                self.last.insert(kind, number);
                return Ok(number);
            }
        }
        Err(CapacityError::numbers(end - first))
    }

    fn is_taken(&self, kind: IdKind, number: u32, whole: u32) -> bool {
        match kind {
            // Whatever base it stands on.
            IdKind::Class => self.actual.is_taken(kind, number),
            _ => self.actual.is_taken(kind, whole),
        }
    }
}

impl CapacityError {
    /// All numbers of a kind are in use; `count` is how many there are.
    fn numbers(count: u32) -> Self {
        Self {
            map: map::IDS,
            size: count,
            needed: count as usize + 1,
            flag: "--max-ids",
        }
    }
}
