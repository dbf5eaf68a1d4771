//! From policy objects to the kernel's decision tables, and the order in which to write them.
//!
//! ```text
//! Event ──apply──▶ Index ──compile──▶ Desired ─┐
//!                                              ├─plan──▶ Plan: lists of Write
//! the kernel's maps ─────read───────▶ Actual ──┘
//! ```
//!
//! Everything here is a function of plain data: no I/O, no clock, no threads. `docs/policy.md` has
//! the model.
#![forbid(unsafe_code)]

use std::time::Duration;

mod actual;
mod census;
mod cidr;
mod class;
mod cluster_policy;
mod condition;
mod desired;
mod established;
mod event;
mod flatten;
mod group;
mod hash;
mod index;
mod limits;
mod lpm;
mod plan;
mod policy;
mod port;
mod problem;
mod query;
mod rule;
mod scope;
mod selector;
mod slab;
mod tier;
mod usage;
mod write;

pub use actual::{Actual, Direction, MapVerdict};
pub use condition::{ClusterPolicyStatus, Condition, ConditionType};
pub use desired::{Desired, Subject};
pub use established::Established;
pub use event::{Dirty, Event, LocalEndpoint, ObjectName, PodRef};
pub use hash::Key;
pub use index::Index;
pub use limits::{CapacityError, Limits};
pub use lpm::Lpm;
pub use plan::{Plan, plan, plan_changes, plan_within, sweep, sweep_changes, sweep_within};
pub use problem::Problem;
pub use query::CellView;
pub use write::Write;

/// How long after the last write of a plan [`sweep`] may be performed, and how long after the last
/// write of a sweep what it freed may be used again ([`Actual::settle`]).
pub const GRACE: Duration = Duration::from_secs(5);

/// How long to wait between two phases of a [`Plan`] that both have writes: longer than a program
/// takes for one packet, so that none sees the endpoint's group of one phase and the peer's class
/// of the next.
pub const PHASE_GAP: Duration = Duration::from_millis(1);

/// Set in [`weir_abi::policy::PolicySlot::epoch`] from before the first write that changes one of
/// the endpoint's verdicts until the epoch is raised after the last: what a restarted agent raises
/// the epoch by. With [`Established::Keep`] it stays. Programs look at the low 32 bits only.
pub const EPOCH_PENDING: u64 = 1 << 32;
