//! Tests of the reference evaluator through its public interface.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod cluster_peers;
mod cluster_policy_refusals;
mod cluster_refusals;
mod ends;
mod finer;
mod policies;
mod ports;
mod refusals;
mod services;
mod support;
mod tiers;
