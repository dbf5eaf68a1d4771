//! From what the kernel holds to what it should hold: which writes, in which order.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::policy::IdKind;
use weir_abi::service::{Backend, BackendId, BackendState, Service, ServiceKey, SetId, SlotKey};

use super::actual::{ServiceActual, ServiceWrite};
use super::collect::Garbage;
use super::desired::{Changed, Desired, Target};
use super::hash::Hash;

/// Writes to be made in this order, stopping at the first that fails. Wherever it stops, every
/// frontend has its old or its new backends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// New numbers, backends and sets: nothing refers to them yet.
    pub build: Vec<ServiceWrite>,
    /// One write moves one frontend.
    pub flip: Vec<ServiceWrite>,
    /// Backends that are in no set any more say so, and their UDP flows leave them.
    pub retire: Vec<ServiceWrite>,
    /// What nothing refers to after that; [`super::Collector`] deletes it when no program can still
    /// be reading it.
    pub garbage: Vec<Garbage>,
    /// What may have been garbage before and is wanted again.
    pub wanted: Vec<Garbage>,
}

impl Plan {
    /// All writes in order.
    pub fn writes(&self) -> impl Iterator<Item = &ServiceWrite> {
        self.build.iter().chain(&self.flip).chain(&self.retire)
    }
}

/// Plans the change of everything that differs, or only of what has `changed` if all the rest is
/// known to agree.
pub fn plan(actual: &ServiceActual, desired: &Desired, changed: Option<&Changed>) -> Plan {
    let mut planner = Planner::new(actual, changed);
    planner.build(desired);
    planner.flip(desired);
    planner.retire(desired);
    planner.garbage(desired);
    planner.plan
}

/// The entries of a map, or those of the given keys.
fn among<'a, K: Ord, V>(
    map: &'a BTreeMap<K, V>,
    keys: Option<&'a BTreeSet<K>>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    let some = keys.map(|keys| keys.iter().filter_map(|key| map.get_key_value(key)));
    let all = keys.is_none().then(|| map.iter());
    some.into_iter().flatten().chain(all.into_iter().flatten())
}

struct Planner<'a> {
    actual: &'a ServiceActual,
    changed: Option<&'a Changed>,
    sets: Numbers<'a, SetId>,
    backends: Numbers<'a, BackendId>,
    plan: Plan,
}

/// Numbers that are given and those that this plan gives.
struct Numbers<'a, Id> {
    given: &'a BTreeMap<Hash, Id>,
    new: BTreeMap<Hash, Id>,
    make: fn(u32) -> Id,
    cursor: u32,
}

impl<Id: Copy> Numbers<'_, Id> {
    fn find(&self, hash: Hash) -> Option<Id> {
        self.given
            .get(&hash)
            .or_else(|| self.new.get(&hash))
            .copied()
    }

    /// The number of the content, and whether it is new. There are 2^32 - 1, and the map of them
    /// holds far fewer.
    fn give(&mut self, hash: Hash, is_used: impl Fn(u32) -> bool) -> (Id, bool) {
        if let Some(id) = self.find(hash) {
            return (id, false);
        }
        loop {
            self.cursor = self.cursor.wrapping_add(1).max(1);
            if !is_used(self.cursor) {
                break;
            }
        }
        let id = (self.make)(self.cursor);
        self.new.insert(hash, id);
        (id, true)
    }
}

impl<'a> Planner<'a> {
    fn new(actual: &'a ServiceActual, changed: Option<&'a Changed>) -> Self {
        let cursor = actual.cursor();
        Self {
            actual,
            changed,
            sets: Numbers {
                given: &actual.set_ids,
                new: BTreeMap::new(),
                make: SetId,
                cursor,
            },
            backends: Numbers {
                given: &actual.backend_ids,
                new: BTreeMap::new(),
                make: BackendId,
                cursor,
            },
            plan: Plan::default(),
        }
    }

    fn build(&mut self, desired: &Desired) {
        let active = |b: &Backend| b.state == BackendState::Active as u8;
        let backends = among(&desired.backends, self.changed.map(|c| &c.backends));
        for (hash, backend) in backends.filter(|(_, b)| active(b)) {
            let (id, new) = self.backends.give(*hash, |id| self.actual.is_backend(id));
            if new {
                let key = hash.key(IdKind::Backend);
                self.plan.build.push(ServiceWrite::PutId(key, id.0));
            }
            if self.actual.backends.get(&id) != Some(backend) {
                self.plan.build.push(ServiceWrite::PutBackend(id, *backend));
            }
        }
        for (hash, members) in among(&desired.sets, self.changed.map(|c| &c.sets)) {
            let (set, new) = self.sets.give(*hash, |id| self.actual.is_set(id));
            if new {
                self.plan
                    .build
                    .push(ServiceWrite::PutId(hash.key(IdKind::Set), set.0));
            }
            for (index, member) in (0..).zip(members) {
                let key = SlotKey { set, index };
                let Some(backend) = self.backends.find(*member) else {
                    continue;
                };
                if self.actual.slots.get(&key) != Some(&backend) {
                    self.plan.build.push(ServiceWrite::PutSlot(key, backend));
                }
            }
        }
    }

    /// Without its marker an address serves nothing: what goes loses it first, what comes gets it
    /// last.
    fn flip(&mut self, desired: &Desired) {
        let is_marker = |key: &ServiceKey| *key == ServiceKey::marker(key.addr);
        let changed = self.changed.map(|c| &c.frontends);
        for markers in [true, false] {
            let keys = among(&self.actual.services, changed).map(|(key, _)| key);
            let keys = keys.filter(|key| is_marker(key) == markers);
            let gone = keys.filter(|key| !desired.frontends.contains_key(key));
            self.plan
                .flip
                .extend(gone.map(|key| ServiceWrite::DeleteService(*key)));
        }
        for markers in [false, true] {
            let frontends = among(&desired.frontends, changed);
            for (key, target) in frontends.filter(|(key, _)| is_marker(key) == markers) {
                let value = self.value(desired, target);
                if self.actual.services.get(key) != Some(&value) {
                    self.plan.flip.push(ServiceWrite::PutService(*key, value));
                }
            }
        }
    }

    fn value(&self, desired: &Desired, target: &Target) -> Service {
        match target {
            Target::Marker(flags) => Service {
                flags: *flags,
                ..Service::default()
            },
            Target::Set(hash) => {
                let set = hash.and_then(|h| self.sets.find(h).zip(desired.sets.get(&h)));
                match set {
                    Some((set, members)) => {
                        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
                        Service {
                            set,
                            count,
                            ..Service::default()
                        }
                    }
                    None => Service::default(),
                }
            }
        }
    }

    fn retire(&mut self, desired: &Desired) {
        let changed = self.changed.map(|c| &c.backends);
        for (hash, id) in among(&self.actual.backend_ids, changed) {
            let wanted = desired.backends.get(hash).map(|b| b.state);
            let wanted = wanted.unwrap_or(BackendState::Removed as u8);
            let Some(backend) = self.actual.backends.get(id) else {
                continue;
            };
            // Those that are wanted Active were written before the flip.
            if wanted != BackendState::Active as u8 && wanted != backend.state {
                let backend = Backend {
                    state: wanted,
                    ..*backend
                };
                self.plan
                    .retire
                    .push(ServiceWrite::PutBackend(*id, backend));
            }
        }
    }

    fn garbage(&mut self, desired: &Desired) {
        let sets = among(&self.actual.set_ids, self.changed.map(|c| &c.sets));
        let sets =
            sets.map(|(hash, id)| (desired.sets.contains_key(hash), Garbage::Set(*hash, *id)));
        let backends = among(&self.actual.backend_ids, self.changed.map(|c| &c.backends));
        let backends = backends.map(|(hash, id)| {
            (
                desired.backends.contains_key(hash),
                Garbage::Backend(*hash, *id),
            )
        });
        for (wanted, number) in sets.chain(backends) {
            if wanted {
                self.plan.wanted.push(number);
            } else {
                self.plan.garbage.push(number);
            }
        }
    }
}
