//! Deletes what nothing refers to any more, once no program can still be reading it.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_abi::policy::IdKind;
use weir_abi::service::{BackendId, SetId};

use super::actual::{ServiceActual, ServiceWrite};
use super::hash::Hash;
use super::plan::Plan;

/// A number that is in use for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Garbage {
    /// A set with its slots.
    Set(Hash, SetId),
    /// A backend.
    Backend(Hash, BackendId),
}

/// Remembers since when each piece of garbage is garbage. Times are those of any clock that does
/// not go back, as a span since any moment.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    since: BTreeMap<Garbage, Duration>,
}

impl Collector {
    /// Takes the garbage of the latest plan, and forgets what it wants again.
    pub fn note(&mut self, now: Duration, plan: &Plan) {
        for garbage in &plan.wanted {
            self.since.remove(garbage);
        }
        for garbage in &plan.garbage {
            self.since.entry(*garbage).or_insert(now);
        }
    }

    /// When the next piece is due, if `grace` must have passed.
    pub fn next(&self, grace: Duration) -> Option<Duration> {
        self.since.values().min().map(|since| *since + grace)
    }

    /// The writes that delete what is due. A number is freed last: until then it still stands for
    /// its content, of which a part may be gone.
    pub fn due(
        &mut self,
        now: Duration,
        grace: Duration,
        actual: &ServiceActual,
    ) -> Vec<ServiceWrite> {
        let due = |since: &Duration| *since + grace <= now;
        let mut writes = Vec::new();
        for (garbage, _) in self.since.iter().filter(|(_, since)| due(since)) {
            match *garbage {
                Garbage::Set(hash, id) => {
                    writes.extend(actual.slots_of(id).map(ServiceWrite::DeleteSlot));
                    writes.push(ServiceWrite::DeleteId(hash.key(IdKind::Set)));
                }
                Garbage::Backend(hash, id) => {
                    if actual.backends.contains_key(&id) {
                        writes.push(ServiceWrite::DeleteBackend(id));
                    }
                    writes.push(ServiceWrite::DeleteId(hash.key(IdKind::Backend)));
                }
            }
        }
        self.since.retain(|_, since| !due(since));
        writes
    }
}
