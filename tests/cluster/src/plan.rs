//! Which addresses a cluster has: a function of its options.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnetwork::IpNetwork;

use crate::args::Options;

/// Nodes have the addresses 11 to 19.
pub const MAX_NODES: u8 = 9;

/// The API server's port in the nodes.
pub const API_PORT: u16 = 6443;

/// The cluster's domain.
pub const DOMAIN: &str = "cluster.local";

/// One of the two families, with what the cluster has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// A cluster's addresses.
#[derive(Clone, Debug)]
pub struct Plan {
    families: Vec<Family>,
}

/// A network of which the address is a part.
fn network(address: IpAddr, prefix: u8) -> IpNetwork {
    // The constants below are within range; what would not be is the host itself.
    IpNetwork::new(address, prefix).unwrap_or_else(|_| address.into())
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, d).into()
}

fn v6(first: u16, last: u16) -> IpAddr {
    Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last).into()
}

impl Plan {
    /// The addresses of a cluster.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let families = match (options.dual_stack, options.ipv6) {
            (true, _) => vec![Family::V4, Family::V6],
            (false, true) => vec![Family::V6],
            (false, false) => vec![Family::V4],
        };
        Self { families }
    }

    fn each<T>(&self, f: impl Fn(Family) -> T) -> Vec<T> {
        self.families.iter().map(|&family| f(family)).collect()
    }

    /// Node addresses, the primary family's first; nodes count from 1.
    #[must_use]
    pub fn node(&self, number: u8) -> Vec<IpAddr> {
        self.each(|family| match family {
            Family::V4 => v4(172, 31, 0, 10 + number),
            // Written as the IPv4 one: fd31::11 is n1.
            Family::V6 => v6(0xfd31, 0x10 + u16::from(number)),
        })
    }

    /// The fabric's own addresses: the nodes' default gateway.
    #[must_use]
    pub fn fabric(&self) -> Vec<IpAddr> {
        self.each(|family| match family {
            Family::V4 => v4(172, 31, 0, 1),
            Family::V6 => v6(0xfd31, 1),
        })
    }

    /// Prefix length of the wire that `address` is on.
    #[must_use]
    pub fn on_wire(address: IpAddr) -> IpNetwork {
        network(address, if address.is_ipv4() { 24 } else { 64 })
    }

    /// Where pods get their addresses.
    #[must_use]
    pub fn pod_cidrs(&self) -> Vec<IpNetwork> {
        self.each(|family| match family {
            Family::V4 => network(v4(10, 244, 0, 0), 16),
            Family::V6 => network(v6(0xfd44, 0), 56),
        })
    }

    /// Where Services get theirs.
    #[must_use]
    pub fn service_cidrs(&self) -> Vec<IpNetwork> {
        self.each(|family| match family {
            Family::V4 => network(v4(10, 96, 0, 0), 16),
            Family::V6 => network(v6(0xfd96, 0), 112),
        })
    }

    /// The Service `kubernetes`: each range's first address.
    #[must_use]
    pub fn kubernetes(&self) -> Vec<IpAddr> {
        self.each(|family| match family {
            Family::V4 => v4(10, 96, 0, 1),
            Family::V6 => v6(0xfd96, 1),
        })
    }

    /// The cluster's DNS Service.
    #[must_use]
    pub fn dns(&self) -> Vec<IpAddr> {
        self.each(|family| match family {
            Family::V4 => v4(10, 96, 0, 10),
            Family::V6 => v6(0xfd96, 10),
        })
    }

    /// Any address of the primary family, to listen on.
    #[must_use]
    pub fn any(&self) -> IpAddr {
        match self.families[0] {
            Family::V4 if self.families.len() == 1 => Ipv4Addr::UNSPECIFIED.into(),
            _ => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// The API server in the nodes.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        SocketAddr::new(self.node(1)[0], API_PORT)
    }
}

/// Joined by commas, as Kubernetes' flags want them.
#[must_use]
pub fn commas<T: ToString>(all: &[T]) -> String {
    all.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cni, Containerd, NodeCidrs};

    fn options(dual_stack: bool, ipv6: bool) -> Options {
        Options {
            nodes: 2,
            cni: Cni::Weir,
            dual_stack,
            ipv6,
            containerd: Containerd::Two,
            node_cidrs: NodeCidrs::Controller,
        }
    }

    #[test]
    fn each_family_has_the_documented_addresses_and_ipv4_comes_first() {
        let both = Plan::new(&options(true, false));
        assert_eq!(commas(&both.node(2)), "172.31.0.12,fd31::12");
        assert_eq!(commas(&both.pod_cidrs()), "10.244.0.0/16,fd44::/56");
        assert_eq!(commas(&both.service_cidrs()), "10.96.0.0/16,fd96::/112");
        assert_eq!(commas(&both.dns()), "10.96.0.10,fd96::a");
        assert_eq!(both.api().to_string(), "172.31.0.11:6443");
        let six = Plan::new(&options(false, true));
        assert_eq!(six.api().to_string(), "[fd31::11]:6443");
        assert_eq!(commas(&six.kubernetes()), "fd96::1");
        assert_eq!(
            commas(&Plan::new(&options(false, false)).node(9)),
            "172.31.0.19"
        );
    }

    #[test]
    fn the_wire_has_room_for_every_node() {
        let plan = Plan::new(&options(true, false));
        for (node, fabric) in plan.node(MAX_NODES).into_iter().zip(plan.fabric()) {
            assert!(Plan::on_wire(fabric).contains(node), "{node}");
        }
    }
}
