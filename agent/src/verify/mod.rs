//! The kernel's policy tables, entry by entry, against the reference evaluator.
//!
//! [`Tables`] is what the maps hold, as plain data; a [`Pass`] compares it with an evaluator, a slice
//! at a time. Neither does I/O: the maps are read by `dataplane`, the objects come from the engine
//! (`background`) or from whoever runs `weir policy verify`.

pub mod background;
mod compare;
mod ends;
pub mod objects;
mod pass;
mod probes;
mod tables;

pub use compare::Disagreement;
pub use ends::{Endpoint, Whose};
pub use pass::{Pass, Progress};
pub use tables::{Entry, Leftovers, Tables};
