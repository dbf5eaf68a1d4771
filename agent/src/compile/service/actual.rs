//! What the kernel's maps hold, mirrored as plain data.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::service::{Backend, BackendId, RangeKey, Service, ServiceKey, SetId, Slot, SlotKey};

use super::free::Free;
use super::hash::{Content, RangesHash, SetHash};
use crate::refill::Refill as _;

/// One write of one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceWrite {
    /// `BACKENDS`: where there was none, or another state of the same.
    PutBackend(BackendId, Backend),
    /// `BACKENDS`.
    DeleteBackend(BackendId),
    /// `SLOTS`: a whole set, to which nothing refers yet.
    PutSet(SetId, Box<[Slot]>),
    /// `SLOTS`: so many from this on.
    DeleteSet(SetId, u32),
    /// `SERVICES`.
    PutService(ServiceKey, Service),
    /// `SERVICES`.
    DeleteService(ServiceKey),
    /// `SOURCE_RANGES`: all prefixes of a number to which nothing refers yet.
    PutRanges(u32, Box<[RangeKey]>),
    /// `SOURCE_RANGES`.
    DeleteRanges(u32, Box<[RangeKey]>),
}

/// A range of `SLOTS` that is in use.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    len: u32,
    /// What it is; `None` if nobody knows: what a killed agent left.
    hash: Option<SetHash>,
}

/// The maps' content, as read back at start and as changed by every write since.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceActual {
    /// `SERVICES`.
    pub services: BTreeMap<ServiceKey, Service>,
    /// `SLOTS` and `BACKENDS`, as far as they are in use.
    slots: Vec<Slot>,
    backends: Vec<Option<Backend>>,
    /// Numbers of backends by content.
    backend_ids: BTreeMap<Content, BackendId>,
    /// Numbers below the end of `backends` that no backend has.
    free_backends: BTreeSet<u32>,
    /// Sets by content.
    sets: BTreeMap<SetHash, SetId>,
    /// First slot → the range.
    ranges: BTreeMap<u32, Range>,
    free: Free,
    /// `SOURCE_RANGES`, by number, each sorted.
    source_ranges: BTreeMap<u32, Box<[RangeKey]>>,
    /// Numbers of source ranges by content.
    ranges_ids: BTreeMap<RangesHash, u32>,
}

impl ServiceActual {
    /// From the maps' content. A set is what a frontend refers to; other slots are what a killed agent
    /// left, and stay in use until they are collected.
    pub fn new(
        services: impl IntoIterator<Item = (ServiceKey, Service)>,
        slots: Vec<Slot>,
        backends: impl IntoIterator<Item = (BackendId, Backend)>,
        source_ranges: impl IntoIterator<Item = RangeKey>,
    ) -> Self {
        let mut actual = Self {
            services: services.into_iter().collect(),
            slots,
            ..Self::default()
        };
        for (id, backend) in backends {
            actual.put_backend(id, backend);
        }
        let used = actual
            .slots
            .iter()
            .rposition(|slot| *slot != Slot::default());
        actual.slots.truncate(used.map_or(0, |last| last + 1));
        let all = actual.services.values().filter(|s| s.count > 0);
        let referred: BTreeSet<(u32, u32)> = all.map(|s| (s.set.0, s.count)).collect();
        for (start, len) in referred {
            actual.adopt(start, len);
        }
        actual.adopt_rest();
        let mut lists: BTreeMap<u32, BTreeSet<RangeKey>> = BTreeMap::new();
        for key in source_ranges {
            lists.entry(key.ranges).or_default().insert(key);
        }
        for (id, list) in lists {
            actual.put_ranges(id, list.into_iter().collect());
        }
        actual
    }

    /// Does in the mirror what the write does in the kernel.
    pub fn apply(&mut self, write: &ServiceWrite) {
        match write {
            ServiceWrite::PutBackend(id, backend) => self.put_backend(*id, *backend),
            ServiceWrite::DeleteBackend(id) => self.delete_backend(*id),
            ServiceWrite::PutSet(set, slots) => self.put_set(*set, slots),
            ServiceWrite::DeleteSet(set, len) => self.delete_set(*set, *len),
            ServiceWrite::PutService(key, service) => {
                self.services.insert(*key, *service);
            }
            ServiceWrite::DeleteService(key) => {
                self.services.remove(key);
            }
            ServiceWrite::PutRanges(id, keys) => self.put_ranges(*id, keys.clone()),
            ServiceWrite::DeleteRanges(id, _) => self.delete_ranges(*id),
        }
    }

    /// Takes less memory from now on, after many writes.
    pub fn refill(&mut self) {
        self.services.refill();
        self.backend_ids.refill();
        self.sets.refill();
        self.ranges.refill();
        self.slots.shrink_to_fit();
        self.backends.shrink_to_fit();
    }

    /// A backend by its number.
    pub fn backend(&self, id: BackendId) -> Option<Backend> {
        self.backends.get(id.0 as usize).copied().flatten()
    }

    /// All backends, by number.
    pub fn backends(&self) -> impl Iterator<Item = (BackendId, Backend)> {
        let numbered = (0..).zip(&self.backends);
        numbered.filter_map(|(id, backend)| Some((BackendId(id), (*backend)?)))
    }

    /// A backend's number.
    pub fn backend_id(&self, content: &Content) -> Option<BackendId> {
        self.backend_ids.get(content).copied()
    }

    /// A set's slot.
    pub fn slot(&self, key: &SlotKey) -> Option<Slot> {
        let slot = self.slots.get(key.at() as usize).copied();
        slot.filter(|slot| *slot != Slot::default())
    }

    /// `SLOTS` as far as it is in use.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Where a set stands.
    pub fn set(&self, hash: &SetHash) -> Option<SetId> {
        self.sets.get(hash).copied()
    }

    /// The number of source ranges.
    pub fn ranges_id(&self, hash: &RangesHash) -> Option<u32> {
        self.ranges_ids.get(hash).copied()
    }

    /// All source ranges: number, and prefixes.
    pub fn source_ranges(&self) -> impl Iterator<Item = (u32, &[RangeKey])> {
        self.source_ranges.iter().map(|(id, keys)| (*id, &**keys))
    }

    pub(super) fn ranges_of(&self, id: u32) -> Option<&[RangeKey]> {
        self.source_ranges.get(&id).map(|keys| &**keys)
    }

    /// How many sets there are, those among them that are not known.
    pub fn set_count(&self) -> usize {
        self.ranges.len()
    }

    /// Every range of slots in use: where it begins, and what it is if it is the only one with this
    /// content.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (SetId, Option<SetHash>)> {
        self.ranges.iter().map(|(start, range)| {
            let hash = range.hash.filter(|h| self.set(h) == Some(SetId(*start)));
            (SetId(*start), hash)
        })
    }

    /// How many slots the range has that begins here.
    pub(super) fn len_of(&self, set: SetId) -> Option<u32> {
        self.ranges.get(&set.0).map(|range| range.len)
    }

    pub(super) fn free(&self) -> &Free {
        &self.free
    }

    /// Numbers for new backends, in the order in which they are to be taken.
    pub(super) fn free_backends(&self) -> impl Iterator<Item = BackendId> {
        let behind = self.backends_end()..=u32::MAX;
        self.free_backends
            .iter()
            .copied()
            .chain(behind)
            .map(BackendId)
    }

    /// One more than the last number in use, at least 1.
    pub(super) fn backends_end(&self) -> u32 {
        u32::try_from(self.backends.len())
            .unwrap_or(u32::MAX)
            .max(1)
    }

    fn put_backend(&mut self, id: BackendId, backend: Backend) {
        let at = id.0 as usize;
        if at >= self.backends.len() {
            self.free_backends.extend(self.backends_end()..id.0);
            self.backends.resize(at + 1, None);
        }
        if let Some(old) = self.backends[at].replace(backend) {
            self.forget(id, &old);
        }
        self.free_backends.remove(&id.0);
        self.backend_ids.entry(Content::of(&backend)).or_insert(id);
    }

    fn delete_backend(&mut self, id: BackendId) {
        let Some(old) = self.backends.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        self.forget(id, &old);
        self.free_backends.insert(id.0);
        while self.backends.pop_if(|last| last.is_none()).is_some() {}
        self.free_backends.split_off(&self.backends_end());
    }

    fn forget(&mut self, id: BackendId, old: &Backend) {
        let content = Content::of(old);
        if self.backend_ids.get(&content) == Some(&id) {
            self.backend_ids.remove(&content);
        }
    }

    fn put_ranges(&mut self, id: u32, keys: Box<[RangeKey]>) {
        self.delete_ranges(id);
        self.ranges_ids.entry(RangesHash::of(&keys)).or_insert(id);
        self.source_ranges.insert(id, keys);
    }

    fn delete_ranges(&mut self, id: u32) {
        if let Some(keys) = self.source_ranges.remove(&id) {
            let hash = RangesHash::of(&keys);
            if self.ranges_id(&hash) == Some(id) {
                self.ranges_ids.remove(&hash);
            }
        }
    }

    fn put_set(&mut self, set: SetId, slots: &[Slot]) {
        let (start, end) = (set.0 as usize, set.0 as usize + slots.len());
        if end > self.slots.len() {
            self.slots.resize(end, Slot::default());
        }
        self.slots[start..end].copy_from_slice(slots);
        self.adopt(set.0, u32::try_from(slots.len()).unwrap_or(u32::MAX));
    }

    fn delete_set(&mut self, set: SetId, len: u32) {
        for slot in self
            .slots
            .iter_mut()
            .skip(set.0 as usize)
            .take(len as usize)
        {
            *slot = Slot::default();
        }
        while self.slots.pop_if(|last| *last == Slot::default()).is_some() {}
        self.drop_range(set.0);
    }

    fn drop_range(&mut self, start: u32) {
        if let Some(Range { len, hash }) = self.ranges.remove(&start) {
            self.free.give(start, len);
            if let Some(hash) = hash.filter(|h| self.set(h) == Some(SetId(start))) {
                self.sets.remove(&hash);
            }
        }
    }

    /// Takes a range in. One that overlaps another, which no agent writes, becomes one with it of which
    /// nothing is known.
    fn adopt(&mut self, start: u32, len: u32) {
        let (mut first, mut end) = (start, start.saturating_add(len));
        let before = self.ranges.range(..end).rev();
        let touching = before.take_while(|(s, r)| *s + r.len > start);
        let touching: Vec<u32> = touching.map(|(s, _)| *s).collect();
        for other in &touching {
            end = end.max(other + self.len_of(SetId(*other)).unwrap_or(0));
            first = first.min(*other);
            self.drop_range(*other);
        }
        let hash = touching
            .is_empty()
            .then(|| self.content(start, len))
            .flatten();
        let len = end - first;
        self.free.reserve(first, len);
        self.ranges.insert(first, Range { len, hash });
        if let Some(hash) = hash {
            self.sets.entry(hash).or_insert(SetId(first));
        }
    }

    /// What a range holds, if all its slots name backends that are found by their content.
    fn content(&self, start: u32, len: u32) -> Option<SetHash> {
        let mut members = Vec::new();
        for index in 0..len {
            let set = SetId(start);
            let slot = self.slot(&SlotKey { set, index })?;
            let backend = self.backend(slot.backend)?;
            let content = Content::of(&backend);
            let known = self.backend_id(&content) == Some(slot.backend);
            if !known || backend.incarnation != slot.incarnation {
                return None;
            }
            members.push(content);
        }
        Some(SetHash::of(members))
    }

    /// Takes in the slots that no frontend refers to.
    fn adopt_rest(&mut self) {
        let mut rest = Vec::new();
        let mut taken = self.ranges.iter().map(|(s, r)| *s..*s + r.len).peekable();
        for (at, slot) in (0..).zip(&self.slots) {
            while taken.next_if(|range| range.end <= at).is_some() {}
            let is_taken = taken.peek().is_some_and(|range| range.contains(&at));
            if is_taken || *slot == Slot::default() {
                continue;
            }
            match rest.last_mut() {
                Some((start, len)) if *start + *len == at => *len += 1,
                _ => rest.push((at, 1)),
            }
        }
        for (start, len) in rest {
            self.free.reserve(start, len);
            self.ranges.insert(start, Range { len, hash: None });
        }
    }
}
