//! Random small clusters, with every field of the policy APIs, sometimes wrong; what the reference
//! evaluator says of their flows; and the least part of a cluster of which a test still fails.
//!
//! The tests of the compiler and those of the programs ask about the same clusters.
#![expect(clippy::unwrap_used, reason = "it serves tests, which may stop so")]

pub mod cluster_policies;
pub mod coverage;
pub mod judge;
mod labels;
pub mod policies;
pub mod random;
pub mod rng;
pub mod shrink;
pub mod tables;
pub mod world;

pub use coverage::Coverage;
pub use rng::Rng;
pub use world::{NODE, World};

use std::net::IpAddr;

use weir_abi::Proto;
use weir_policy::{Actual, Desired, Plan, plan};

/// What probes ask for: protocol, port (0 for ICMP).
pub const PORTS: &[(Proto, u16)] = &[
    (Proto::TCP, 80),
    (Proto::TCP, 81),
    (Proto::TCP, 443),
    (Proto::TCP, 8080),
    (Proto::TCP, 8050),
    (Proto::TCP, 1024),
    (Proto::TCP, 1),
    (Proto::TCP, 65535),
    (Proto::UDP, 53),
    (Proto::UDP, 80),
    (Proto::UDP, 9090),
    (Proto::SCTP, 80),
    (Proto::SCTP, 9090),
    (Proto::ICMP, 0),
];

/// ICMP has another number in IPv6.
pub fn protocol_for(addr: IpAddr, proto: Proto) -> Proto {
    if proto == Proto::ICMP && addr.is_ipv6() {
        Proto::ICMPV6
    } else {
        proto
    }
}

/// Performs all writes of a plan.
pub fn perform(actual: &mut Actual, plan: &Plan) {
    for write in plan.writes() {
        actual.apply(write);
    }
}

/// What an empty kernel becomes.
///
/// # Panics
/// When it does not fit.
pub fn from_nothing(desired: &Desired) -> Actual {
    let mut actual = Actual::default();
    let plan = plan(&actual, desired).expect("small clusters fit");
    perform(&mut actual, &plan);
    actual
}
