//! In which order to write.

mod ids;
mod moves;
mod planner;
mod routes;
mod sizes;
mod slots;
mod sweep;
mod tables;
#[cfg(test)]
mod tests;

use crate::actual::Actual;
use crate::desired::Desired;
use crate::established::Established;
use crate::limits::{CapacityError, Limits};
use crate::write::Write;
use planner::{Extent, Planner};

/// The writes of one change, in four phases. They are performed in order, and not further than the
/// first that fails; a new plan made from what the kernel then holds goes on from there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Adds everything that is new. No verdict changes.
    pub extend: Vec<Write>,
    /// Gives endpoints their new groups, each by one write.
    pub flip: Vec<Write>,
    /// Gives addresses their new classes where that changes verdicts, then raises epochs.
    pub follow: Vec<Write>,
    /// Gives the other addresses their new classes and removes what is gone. No verdict changes.
    pub shrink: Vec<Write>,
}

impl Plan {
    /// The phases in order. Between two that have writes, wait [`crate::PHASE_GAP`].
    pub fn phases(&self) -> [&[Write]; 4] {
        [&self.extend, &self.flip, &self.follow, &self.shrink]
    }

    /// All writes in order.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.phases().into_iter().flatten()
    }

    /// Whether the kernel holds what it ought to.
    pub fn is_empty(&self) -> bool {
        self.writes().next().is_none()
    }
}

/// How to get from `actual` to `desired`, in maps of the default limits' sizes.
pub fn plan(actual: &Actual, desired: &Desired) -> Result<Plan, CapacityError> {
    plan_within(actual, desired, &Limits::default(), Established::Apply)
}

/// How to get from `actual` to `desired`; the error says which map is too small for it. With
/// [`Established::Keep`] no epoch rises.
pub fn plan_within(
    actual: &Actual,
    desired: &Desired,
    limits: &Limits,
    established: Established,
) -> Result<Plan, CapacityError> {
    Planner::new(actual, desired, limits, established, Extent::Whole).plan()
}

/// The same, where `actual` is what the last plan was performed on and [`crate::Index::settled`] was
/// told so: only what has changed since is looked at.
pub fn plan_changes(
    actual: &Actual,
    desired: &Desired,
    limits: &Limits,
    established: Established,
) -> Result<Plan, CapacityError> {
    Planner::new(actual, desired, limits, established, Extent::Touched).plan()
}

/// Deletes rows, rules and ids that nothing refers to, in maps of the default limits' sizes; see
/// [`sweep_within`].
pub fn sweep(actual: &Actual, desired: &Desired) -> Vec<Write> {
    sweep_within(actual, desired, &Limits::default(), Established::Apply)
}

/// Deletes rows, rules and ids that nothing refers to. To be made (after [`Actual::settle`]) and
/// performed when at least [`crate::GRACE`] has passed since the last write of a plan, for a
/// program may be in the middle of a lookup. Empty while there is a plan to perform, but not while
/// one does not fit: what former states have left may be all that is in its way.
pub fn sweep_within(
    actual: &Actual,
    desired: &Desired,
    limits: &Limits,
    established: Established,
) -> Vec<Write> {
    match plan_within(actual, desired, limits, established) {
        Ok(plan) if !plan.is_empty() => Vec::new(),
        _ => sweep::unused(actual),
    }
}

/// The same, on the condition of [`plan_changes`].
pub fn sweep_changes(
    actual: &Actual,
    desired: &Desired,
    limits: &Limits,
    established: Established,
) -> Vec<Write> {
    match plan_changes(actual, desired, limits, established) {
        Ok(plan) if !plan.is_empty() => Vec::new(),
        _ => sweep::unused(actual),
    }
}
