//! Network address translation: rewriting of packets, and source ports for what the node translates to
//! its own address. Kernel only.

mod ports;
mod rewrite;

pub use ports::{Candidate, NatPorts};
pub use rewrite::{difference, translate};
