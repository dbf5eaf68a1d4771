//! Services, EndpointSlices and HostPorts of Pods → what `SERVICES`, `SLOTS`, `BACKENDS` and
//! `SOURCE_RANGES` should hold, and the writes that get them there. Pure: no I/O, no clock.
//!
//! ```text
//! Service, EndpointSlice, Pod → parse → index → compile (one object) → desired ─┐
//!                                   the kernel's maps, read back → actual ──────┴→ plan → writes
//! ```
//!
//! A frontend names a set of backends; a set is immutable, and its number stands for its content.
//! A change builds the new set beside the old one and then moves the frontend in one write, so that
//! at every instant a frontend has its old or its new backends.
//!
//! A backend's number stands for (Service port, address, port, pod), so a pod behind two Services is
//! two backends and can leave one of them.

mod actual;
mod claims;
mod collect;
mod compile;
mod desired;
mod endpoints;
mod free;
mod hash;
mod index;
mod list;
mod parse;
mod plan;
#[cfg(test)]
mod tests;

pub use actual::{ServiceActual, ServiceWrite};
pub use collect::{Collector, Garbage};
pub use desired::{Changed, Desired, Frontend, Ranges, Target};
pub use hash::{Content, RangesHash, SetHash};
pub use index::{HealthCheck, ServiceIndex, ServiceOptions};
pub use parse::{Problem, ServiceName};
pub use plan::{Needs, Plan, Retired, plan};
