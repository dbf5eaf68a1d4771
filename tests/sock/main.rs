//! The cgroup socket hooks with real sockets: each test runs in a process of its own, in a network
//! namespace and a sub-cgroup of its own, where the programs are attached.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod change;
mod clash;
mod close;
mod coexist;
mod connected;
mod external;
mod owner;
mod refuse;
mod rig;
mod rules;
mod servers;
mod unconnected;

/// One test for each way a socket can name its peer: IPv4, IPv6, and IPv4 from an IPv6 socket.
macro_rules! families {
    ($($(#[$meta:meta])* fn $name:ident($family:ident) $body:block)+) => { $(
        $(#[$meta])*
        mod $name {
            use super::*;
            use crate::rig::{self, Family};

            fn body($family: Family) $body

            #[test]
            fn v4() {
                rig::isolated(|| body(Family::V4));
            }
            #[test]
            fn v6() {
                rig::isolated(|| body(Family::V6));
            }
            #[test]
            fn v4_mapped() {
                rig::isolated(|| body(Family::Mapped));
            }
        }
    )+ };
}
use families;
