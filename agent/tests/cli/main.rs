//! Tests of the `weir` command: what it prints, and how it exits.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod agent;
mod basics;
mod diff;
mod golden;
mod install;
mod lists;
mod matrix;
mod policy_test;
mod support;
mod tiers;
mod trace;
mod trace_kernel;
mod trace_live;
