//! From what the kernel holds to what it should hold: which writes, in which order.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::service::{BackendId, BackendState, Service, ServiceKey, SetId, Slot, scope};

use super::actual::{ServiceActual, ServiceWrite};
use super::collect::Garbage;
use super::desired::{Changed, Desired, Target};
use super::free::Free;
use super::hash::{Content, RangesHash, SetHash};

/// Writes to be made in this order, stopping at the first that fails. Wherever it stops, every
/// frontend has its old or its new backends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// New backends and sets: nothing refers to them yet.
    pub build: Vec<ServiceWrite>,
    /// One write moves one frontend.
    pub flip: Vec<ServiceWrite>,
    /// Backends that are in no set any more say so, and their UDP flows leave them.
    pub retire: Vec<ServiceWrite>,
    /// Backends that take nothing from now on.
    pub retired: Vec<Retired>,
    /// What nothing refers to after that; [`super::Collector`] deletes it when no program can still
    /// be reading it.
    pub garbage: Vec<Garbage>,
    /// What may have been garbage before and is wanted again.
    pub wanted: Vec<Garbage>,
    /// How large the maps must be for these writes.
    pub needs: Needs,
}

/// A backend that takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retired {
    /// Its number.
    pub id: BackendId,
    /// What stood under it.
    pub backend: weir_abi::service::Backend,
    /// No EndpointSlice has it any more. Otherwise it is there, but neither ready nor serving.
    pub deleted: bool,
}

/// Entries that maps must have room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Of `SERVICES`.
    pub services: u32,
    /// Of `SLOTS`: sets that are being replaced stand beside the new ones.
    pub slots: u32,
    /// Of `BACKENDS`.
    pub backends: u32,
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
    planner.backends(desired);
    planner.sets(desired);
    planner.ranges(desired);
    planner.flip(desired);
    planner.retire(desired);
    planner.garbage(desired);
    planner.needs();
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
    /// Numbers that this plan gives.
    new_backends: BTreeMap<Content, BackendId>,
    new_sets: BTreeMap<SetHash, SetId>,
    new_ranges: BTreeMap<RangesHash, u32>,
    /// What will be free; made when the first range is taken.
    free: Option<Free>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(actual: &'a ServiceActual, changed: Option<&'a Changed>) -> Self {
        Self {
            actual,
            changed,
            new_backends: BTreeMap::new(),
            new_sets: BTreeMap::new(),
            new_ranges: BTreeMap::new(),
            free: None,
            plan: Plan::default(),
        }
    }

    fn backend_id(&self, content: &Content) -> Option<BackendId> {
        let given = self.actual.backend_id(content);
        given.or_else(|| self.new_backends.get(content).copied())
    }

    fn backends(&mut self, desired: &Desired) {
        let mut numbers = self.actual.free_backends();
        let changed = self.changed.map(|c| &c.backends);
        for (content, state) in among(&desired.backends, changed) {
            if *state != BackendState::Active {
                continue;
            }
            let backend = content.in_state(*state);
            let id = match self.actual.backend_id(content) {
                Some(id) if self.actual.backend(id) == Some(backend) => continue,
                Some(id) => id,
                // The numbers end far beyond any map.
                None => match numbers.next() {
                    Some(id) => id,
                    None => continue,
                },
            };
            self.new_backends.insert(*content, id);
            self.plan.build.push(ServiceWrite::PutBackend(id, backend));
        }
    }

    fn sets(&mut self, desired: &Desired) {
        for (hash, members) in among(&desired.sets, self.changed.map(|c| &c.sets)) {
            if self.actual.set(hash).is_some() {
                continue;
            }
            let slot = |content: &Content| Slot {
                backend: self.backend_id(content).unwrap_or_default(),
                incarnation: content.incarnation,
            };
            let slots: Box<[Slot]> = members.iter().map(slot).collect();
            let len = u32::try_from(slots.len()).unwrap_or(u32::MAX);
            let free = self.free.get_or_insert_with(|| self.actual.free().clone());
            let set = SetId(free.take(len));
            self.new_sets.insert(*hash, set);
            self.plan.build.push(ServiceWrite::PutSet(set, slots));
        }
    }

    fn ranges(&mut self, desired: &Desired) {
        let mut free = (1..u32::MAX).filter(|id| self.actual.ranges_of(*id).is_none());
        for (hash, (_, ranges)) in among(&desired.ranges, self.changed.map(|c| &c.ranges)) {
            if self.actual.ranges_id(hash).is_some() {
                continue;
            }
            // The numbers end far beyond any map.
            let Some(id) = free.next() else { break };
            self.new_ranges.insert(*hash, id);
            let keys = ranges.keys(id);
            self.plan.build.push(ServiceWrite::PutRanges(id, keys));
        }
    }

    /// An address serves nothing without its marker: one that goes loses it first, one that comes gets
    /// it last. A marker that changes decides for ports that are served neither before nor after, so
    /// it is written between what comes and what goes. Those outside are sent to a frontend of
    /// their own by the one for everyone, which is written after it, and deleted before it.
    fn flip(&mut self, desired: &Desired) {
        let changed = self.changed.map(|c| &c.frontends);
        let mut gone: Vec<&ServiceKey> = among(&self.actual.services, changed)
            .map(|(key, _)| key)
            .filter(|key| !desired.frontends.contains_key(key))
            .collect();
        gone.sort_by_key(|key| std::cmp::Reverse(step(key)));
        let is_hidden = |key: &&ServiceKey| self.is_hidden(key, desired);
        let (hidden, seen): (Vec<_>, Vec<_>) = gone.into_iter().partition(is_hidden);
        let mut puts = Vec::new();
        for (key, target) in among(&desired.frontends, changed) {
            let Some(value) = self.value(desired, target) else {
                continue;
            };
            if self.actual.services.get(key) != Some(&value) {
                puts.push((*key, value));
            }
        }
        puts.sort_by_key(|(key, _)| step(key));
        let delete = |key: &&ServiceKey| ServiceWrite::DeleteService(**key);
        let put = |(key, value): &(ServiceKey, Service)| ServiceWrite::PutService(*key, *value);
        let flip = &mut self.plan.flip;
        flip.extend(hidden.iter().map(delete));
        flip.extend(puts.iter().map(put));
        flip.extend(seen.iter().map(delete));
    }

    /// Whether a key that goes is a marker, or stands at an address without one, which a killed agent
    /// may have left: then it must not come to light by the marker of who has the address now.
    fn is_hidden(&self, key: &ServiceKey, desired: &Desired) -> bool {
        if step(key) == Step::Marker {
            return true;
        }
        let marker = ServiceKey::marker(key.addr);
        let stays =
            self.actual.services.contains_key(&marker) && desired.frontends.contains_key(&marker);
        !stays && key.addr != ServiceKey::node_wide(key.addr.is_v4())
    }

    /// `None` only if a set or a list has no number, which [`Planner::sets`] and
    /// [`Planner::ranges`] have given to all.
    fn value(&self, desired: &Desired, target: &Target) -> Option<Service> {
        match target {
            Target::Marker(flags) => Some(Service {
                flags: *flags,
                ..Service::default()
            }),
            Target::Frontend(frontend) => {
                let set_id = |hash: &SetHash| {
                    let set = self.actual.set(hash);
                    set.or_else(|| self.new_sets.get(hash).copied())
                };
                let ranges_id = |hash: &RangesHash| {
                    let id = self.actual.ranges_id(hash);
                    id.or_else(|| self.new_ranges.get(hash).copied())
                };
                frontend.value(desired, set_id, ranges_id)
            }
        }
    }

    fn retire(&mut self, desired: &Desired) {
        let contents = |c: &'a Changed| c.backends.iter().copied().collect::<Vec<_>>();
        let all = || self.actual.backends().map(|(_, b)| Content::of(&b));
        let contents = self.changed.map_or_else(|| all().collect(), contents);
        for content in contents {
            let wanted = desired.backends.get(&content).copied();
            let found = self.actual.backend_id(&content);
            let found = found.and_then(|id| Some((id, self.actual.backend(id)?)));
            let Some((id, backend)) = found else { continue };
            let state = wanted.unwrap_or(BackendState::Removed);
            // Those that are wanted Active were written before the flip.
            if state != BackendState::Active && state as u32 != backend.state {
                let write = ServiceWrite::PutBackend(id, content.in_state(state));
                self.plan.retire.push(write);
            }
            let deleted = wanted.is_none();
            let was_removed = backend.state == BackendState::Removed as u32;
            if state == BackendState::Removed && (deleted || !was_removed) {
                self.plan.retired.push(Retired {
                    id,
                    backend,
                    deleted,
                });
            }
        }
    }

    fn garbage(&mut self, desired: &Desired) {
        let mut note = |wanted: bool, garbage: Garbage| {
            if wanted {
                self.plan.wanted.push(garbage);
            } else {
                self.plan.garbage.push(garbage);
            }
        };
        let Some(changed) = self.changed else {
            for (set, hash) in self.actual.ranges() {
                let wanted = hash.is_some_and(|hash| desired.sets.contains_key(&hash));
                note(wanted, Garbage::Set(set));
            }
            for (id, backend) in self.actual.backends() {
                let content = Content::of(&backend);
                let is_known = self.actual.backend_id(&content) == Some(id);
                let wanted = is_known && desired.backends.contains_key(&content);
                note(wanted, Garbage::Backend(id));
            }
            for (id, keys) in self.actual.source_ranges() {
                let hash = RangesHash::of(keys);
                let is_known = self.actual.ranges_id(&hash) == Some(id);
                let wanted = is_known && desired.ranges.contains_key(&hash);
                note(wanted, Garbage::Ranges(id));
            }
            return;
        };
        for hash in &changed.sets {
            if let Some(set) = self.actual.set(hash) {
                note(desired.sets.contains_key(hash), Garbage::Set(set));
            }
        }
        for content in &changed.backends {
            if let Some(id) = self.actual.backend_id(content) {
                note(desired.backends.contains_key(content), Garbage::Backend(id));
            }
        }
        for hash in &changed.ranges {
            if let Some(id) = self.actual.ranges_id(hash) {
                note(desired.ranges.contains_key(hash), Garbage::Ranges(id));
            }
        }
    }

    fn needs(&mut self) {
        let puts = self.plan.flip.iter().filter(|write| match write {
            ServiceWrite::PutService(key, _) => !self.actual.services.contains_key(key),
            _ => false,
        });
        let services = self.actual.services.len() + puts.count();
        let free = self.free.as_ref().unwrap_or(self.actual.free());
        let given = self.new_backends.values().map(|id| id.0 + 1).max();
        self.plan.needs = Needs {
            services: u32::try_from(services).unwrap_or(u32::MAX),
            slots: free.end(),
            backends: self.actual.backends_end().max(given.unwrap_or(1)),
        };
    }
}

/// When a key is written, among those that come, and after which others it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Outside,
    Everyone,
    Marker,
}

fn step(key: &ServiceKey) -> Step {
    if *key == ServiceKey::marker(key.addr) {
        Step::Marker
    } else if key.scope == scope::OUTSIDE {
        Step::Outside
    } else {
        Step::Everyone
    }
}
