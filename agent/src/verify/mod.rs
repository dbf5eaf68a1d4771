//! The kernel's policy tables, entry by entry, against the reference evaluator.

pub mod objects;
