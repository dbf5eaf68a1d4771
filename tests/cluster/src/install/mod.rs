//! What is put into a cluster once it runs.

pub mod bridge;
pub mod weir;
