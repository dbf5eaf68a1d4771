//! The veth pair and what makes it reachable, on both sides.
//!
//! Order matters in two ways. A process that is killed leaves nothing that DEL and GC do not find:
//! the host side's name follows from the container id and the interface's name, and everything
//! else goes with the pair. And the pod is out of reach until the agent has adopted it: the host
//! side is down until then, so that no packet passes an interface without programs.

mod host;
mod names;
mod pod;

use std::net::IpAddr;

use weir_api::endpoint::{GATEWAY_V4, GATEWAY_V6};
use weir_net::netlink::Mac;

pub use host::{make_pair, prepare_host, raise_host};
pub use names::{host_ifname, mac};
pub use pod::configure_pod;

/// What an attachment will look like.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// Name of the host side.
    pub host_ifname: &'a str,
    /// Name of the pod's side.
    pub ifname: &'a str,
    /// Address of the host side: the pod's gateways.
    pub host_mac: Mac,
    /// Address of the pod's side.
    pub pod_mac: Mac,
    /// IP MTU, bytes.
    pub mtu: u32,
    /// The pod's addresses, at most one of each family.
    pub addresses: &'a [IpAddr],
}

impl Plan<'_> {
    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }
}

/// The gateway of an address's family.
pub fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => GATEWAY_V4.into(),
        IpAddr::V6(_) => GATEWAY_V6.into(),
    }
}
