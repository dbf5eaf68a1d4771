//! Tests of the reference evaluator through its public interface.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod ends;
mod policies;
mod ports;
mod refusals;
mod services;
mod support;
