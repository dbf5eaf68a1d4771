//! The node's own network: links, addresses, routes and sysctls, as they are and as they must be.

mod facts;
pub mod monitor;
pub mod reverse_path;
pub mod sysctl;
pub mod wireguard_key;

pub use facts::{Network, Uplink};
