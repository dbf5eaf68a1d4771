//! Deletes what nothing refers to any more, once no program can still be reading it.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_abi::service::{BackendId, SetId};

use super::actual::{ServiceActual, ServiceWrite};
use super::plan::Plan;

/// What is in use for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Garbage {
    /// A set with its slots.
    Set(SetId),
    /// A backend.
    Backend(BackendId),
    /// Source ranges, by their number.
    Ranges(u32),
}

/// Remembers since when each piece of garbage is garbage. Times are those of any clock that does
/// not go back, as a span since any moment.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    since: BTreeMap<Garbage, Duration>,
}

impl Collector {
    /// Forgets what a plan wants again: before its writes.
    pub fn forget(&mut self, plan: &Plan) {
        for garbage in &plan.wanted {
            self.since.remove(garbage);
        }
    }

    /// Takes a plan's garbage: once all its writes are done, for until then it may be in use.
    pub fn note(&mut self, now: Duration, plan: &Plan) {
        for garbage in &plan.garbage {
            self.since.entry(*garbage).or_insert(now);
        }
    }

    /// When the next piece is due, if `grace` must have passed.
    pub fn next(&self, grace: Duration) -> Option<Duration> {
        self.since.values().min().map(|since| *since + grace)
    }

    /// The writes that delete what is due. From then on its place may be another's.
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
                Garbage::Set(set) => {
                    let len = actual.len_of(set);
                    writes.extend(len.map(|len| ServiceWrite::DeleteSet(set, len)));
                }
                Garbage::Backend(id) => {
                    let there = actual.backend(id);
                    writes.extend(there.map(|_| ServiceWrite::DeleteBackend(id)));
                }
                Garbage::Ranges(id) => {
                    let keys = actual.ranges_of(id);
                    writes.extend(keys.map(|keys| ServiceWrite::DeleteRanges(id, keys.into())));
                }
            }
        }
        self.since.retain(|_, since| !due(since));
        writes
    }
}
