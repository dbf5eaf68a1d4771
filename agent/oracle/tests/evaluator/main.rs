//! Tests of the reference evaluator through its public interface.

mod ends;
mod policies;
mod refusals;
mod services;
mod support;
