//! Tests of the loader through its public interface.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod cluster_policy;
mod expand;
mod load;
mod parse;
mod service;
mod yaml;
