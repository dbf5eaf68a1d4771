//! Policy's way into the kernel: extend, flip, follow, shrink, and after a while sweep.

use std::{
    thread,
    time::{Duration, Instant},
};

use weir_abi::{map, policy::PolicySlot};
use weir_api::endpoint::Direction;
use weir_policy::{
    CapacityError, Established, Event, GRACE, Index, Limits, LocalEndpoint, ObjectName, PHASE_GAP,
    Plan, PodRef, plan_changes, plan_within, sweep_changes, sweep_within,
};

use super::{endpoints::Record, grow::Failure};
use crate::{
    dataplane::{Error, pins::Pins, policy::PolicyMaps, sizes::Shortage, table::Writes},
    state::{Change, Kind, Object, ObjectKey},
};

/// The policy index and the kernel's maps.
pub struct Policy {
    index: Index,
    maps: PolicyMaps,
    established: Established,
    /// How large the maps may become.
    most: Limits,
    /// Whether all that was compiled last is in the maps: the next plan then looks only at what has
    /// changed since.
    in_force: bool,
    /// When the last phase ended, of whatever plan.
    wrote_at: Option<Instant>,
    /// When what was unlinked may be deleted, or used again.
    settle_at: Option<Instant>,
}

impl Policy {
    /// Of the node of that name; `maps` have been read back, and grow up to `most`.
    pub fn new(node: &str, maps: PolicyMaps, most: Limits, established: Established) -> Self {
        // What a former agent unlinked just before it ended must rest as well.
        let settle_at = Some(Instant::now() + GRACE);
        Self {
            index: Index::new(node),
            maps,
            established,
            most,
            in_force: false,
            wrote_at: None,
            settle_at,
        }
    }

    /// How many endpoints there can be.
    pub fn slots(&self) -> u32 {
        self.maps.slots()
    }

    /// Takes an object's change in; whether policy depends on it.
    pub fn apply(&mut self, change: &Change) -> bool {
        event(change).is_some_and(|event| self.apply_event(event))
    }

    /// The same, of what the index is told.
    pub fn apply_event(&mut self, event: Event) -> bool {
        self.index.apply(event).0
    }

    /// An endpoint is here.
    pub fn apply_endpoint(&mut self, record: &Record) {
        let pod = record.attachment.pod.as_ref().map(|pod| PodRef {
            name: ObjectName::new(&pod.namespace, &pod.name),
            uid: record.pod_uid.clone(),
        });
        let _ = self.index.apply(Event::ApplyEndpoint(LocalEndpoint {
            slot: record.slot,
            pod,
            addresses: record.attachment.addresses.clone(),
        }));
    }

    /// An endpoint is gone.
    pub fn remove_endpoint(&mut self, slot: u32) {
        let _ = self.index.apply(Event::DeleteEndpoint(slot));
    }

    /// Brings the kernel up to date.
    ///
    /// # Errors
    /// Something does not fit, and nothing was written; or a write failed, and those after it were
    /// not performed.
    pub fn sync(&mut self, now: Instant) -> Result<(), Failure> {
        let _ = self.index.compile();
        let mut plan = self.plan();
        if plan.is_err() && self.settle_at.is_some_and(|at| at <= now) {
            // What former states have left may be all that is in its way.
            self.sweep()?;
            plan = self.plan();
        }
        let plan = plan.map_err(|error| self.too_small(error))?;
        if plan.is_empty() {
            self.settled();
            if self.settle_at.is_some_and(|at| at <= now) {
                self.sweep()?;
            }
            return Ok(());
        }
        self.settle_at = Some(now + GRACE);
        // Until the last write nobody knows how much of it is there.
        self.in_force = false;
        for phase in plan.phases().into_iter().filter(|phase| !phase.is_empty()) {
            // Programs that have begun with the former phase's maps must be through, also if that was
            // another plan's.
            thread::sleep(pause(self.wrote_at, Instant::now()));
            let done = self.maps.perform(phase);
            self.wrote_at = Some(Instant::now());
            done?;
        }
        self.settled();
        self.settle_at = Some(Instant::now() + GRACE);
        Ok(())
    }

    fn settled(&mut self) {
        self.index.settled();
        self.in_force = true;
    }

    /// Why nothing was written, with every table that is too small: so that all grow at once.
    fn too_small(&self, error: CapacityError) -> Failure {
        let plan = match self.plan_in(&self.most) {
            Ok(plan) => plan,
            Err(at_the_limit) => return at_the_limit.into(),
        };
        let limits = self.maps.limits();
        let needs = plan.needs(self.maps.actual()).into_iter();
        let shortages = needs.filter_map(|(map, needed)| {
            let size = limits.of(map);
            (needed > size as usize).then_some(Shortage { map, size, needed })
        });
        Failure {
            message: error.to_string(),
            shortages: shortages.collect(),
        }
    }

    fn plan(&self) -> Result<Plan, CapacityError> {
        self.plan_in(&self.maps.limits())
    }

    fn plan_in(&self, limits: &Limits) -> Result<Plan, CapacityError> {
        let plan = if self.in_force {
            plan_changes
        } else {
            plan_within
        };
        plan(
            self.maps.actual(),
            self.index.desired(),
            limits,
            self.established,
        )
    }

    fn sweep(&mut self) -> Result<(), Error> {
        self.maps.settle();
        self.settle_at = None;
        let sweep = if self.in_force {
            sweep_changes
        } else {
            sweep_within
        };
        let limits = self.maps.limits();
        let desired = self.index.desired();
        let writes = sweep(self.maps.actual(), desired, &limits, self.established);
        if !writes.is_empty() {
            self.settle_at = Some(Instant::now() + GRACE);
        }
        self.maps.perform(&writes)
    }

    /// When `sync` wants to be called again.
    pub fn due(&self) -> Option<Instant> {
        self.settle_at
    }

    /// Ingress and egress of a slot, as they are in the kernel; the policies' names are those of the
    /// last plan that got there.
    pub fn directions(&self, slot: u32) -> [Direction; 2] {
        let (ingress, egress) = PolicySlot::unpack(self.maps.actual().slot(slot).groups);
        let [by_ingress, by_egress] = self.index.isolated_by(slot);
        [(ingress, by_ingress), (egress, by_egress)].map(|(group, isolated_by)| Direction {
            group: group.0,
            isolated_by: isolated_by.iter().map(ToString::to_string).collect(),
        })
    }

    /// What is wrong with policy objects.
    pub fn problems(&self) -> Vec<String> {
        self.index
            .problems()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// Opens the maps again: they have another size.
    ///
    /// # Errors
    /// As [`PolicyMaps::reopen`].
    pub fn reopen(&mut self, pins: &Pins, writes: &Writes) -> Result<(), Error> {
        self.maps.reopen(pins, writes)
    }

    /// Name, entries and size of each map; of `INTERVALS` the elements up to the last in use.
    pub fn sizes(&self) -> Vec<(&'static str, usize, u32)> {
        let actual = self.maps.actual();
        let Limits {
            intervals,
            peers,
            cidrs,
            decisions,
            rules,
            ids,
        } = self.maps.limits();
        let sizes = [
            (map::PEERS, peers),
            (map::CIDRS, cidrs),
            (map::DECISIONS, decisions),
            (map::RULES, rules),
            (map::IDS, ids),
        ];
        let entries = actual.sizes();
        let mut all: Vec<_> = sizes
            .into_iter()
            .filter_map(|(map, size)| {
                let (_, entries) = entries.iter().find(|(name, _)| *name == map)?;
                Some((map, *entries, size))
            })
            .collect();
        let ends = actual.interval_ranges().into_iter().map(|range| range.end);
        let used = ends.max().unwrap_or(0);
        all.push((map::INTERVALS, used as usize, intervals));
        all
    }
}

/// How long to wait before the next phase, where the last one ended at `wrote_at`.
fn pause(wrote_at: Option<Instant>, now: Instant) -> Duration {
    wrote_at.map_or(Duration::ZERO, |at| {
        PHASE_GAP.saturating_sub(now.saturating_duration_since(at))
    })
}

/// What a change means to the policy index; `None` for kinds it does not read.
fn event(change: &Change) -> Option<Event> {
    match change {
        Change::Apply(Object::Namespace(o)) => Some(Event::ApplyNamespace(o.clone())),
        Change::Apply(Object::Node(o)) => Some(Event::ApplyNode(o.clone())),
        Change::Apply(Object::Pod(o)) => Some(Event::ApplyPod(o.clone())),
        Change::Apply(Object::NetworkPolicy(o)) => Some(Event::ApplyPolicy(o.clone())),
        Change::Apply(Object::ClusterNetworkPolicy(o)) => {
            Some(Event::ApplyClusterPolicy(o.clone()))
        }
        Change::Apply(Object::Service(_) | Object::EndpointSlice(_)) => None,
        Change::Delete(ObjectKey {
            kind,
            namespace,
            name,
        }) => {
            let object = ObjectName::new(namespace, name);
            match kind {
                Kind::Namespace => Some(Event::DeleteNamespace(name.clone())),
                Kind::Node => Some(Event::DeleteNode(name.clone())),
                Kind::Pod => Some(Event::DeletePod(object)),
                Kind::NetworkPolicy => Some(Event::DeletePolicy(object)),
                Kind::ClusterNetworkPolicy => Some(Event::DeleteClusterPolicy(name.clone())),
                Kind::Service | Kind::EndpointSlice => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_waits_for_the_rest_of_the_gap_after_whatever_was_written_last() {
        let now = Instant::now();
        let third = PHASE_GAP / 3;
        assert_eq!(pause(None, now), Duration::ZERO);
        assert_eq!(pause(Some(now), now), PHASE_GAP);
        assert_eq!(pause(Some(now), now + third), PHASE_GAP - third);
        assert_eq!(pause(Some(now), now + PHASE_GAP * 2), Duration::ZERO);
        assert_eq!(pause(Some(now + third), now), PHASE_GAP);
    }

    #[test]
    fn cluster_policies_reach_the_index_by_name() {
        let policy = serde_json::from_value(serde_json::json!({"metadata": {"name": "lock"}}));
        let object = Object::ClusterNetworkPolicy(policy.unwrap());
        let key = object.key();
        assert!(matches!(
            event(&Change::Apply(object)),
            Some(Event::ApplyClusterPolicy(policy)) if policy.metadata.name.as_deref() == Some("lock")
        ));
        assert!(matches!(
            event(&Change::Delete(key)),
            Some(Event::DeleteClusterPolicy(name)) if name == "lock"
        ));
    }
}
