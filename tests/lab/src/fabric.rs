//! The network between the nodes: a bridge in a namespace of its own, which is also the nodes'
//! gateway and all that is outside the cluster.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Result;
use ipnetwork::IpNetwork;

use crate::netlink;
use crate::node::{Holder, Node, UPLINK};
use crate::spawn::{Place, run_in};

/// The bridge in the fabric namespace.
const BRIDGE: &str = "fabric";
/// The fabric's own addresses: the nodes' default gateway.
const GATEWAY: [&str; 2] = ["172.18.0.1/24", "fd00:18::1/64"];

/// Makes the bridge with the gateway's addresses.
pub(crate) fn raise(fabric: &Holder, wire: Wire) -> Result<()> {
    run_in(&fabric.place.net_only(), || {
        no_surprises("lo")?;
        netlink::add_bridge(BRIDGE, wire.mtu)?;
        for address in GATEWAY {
            let address: IpNetwork = address.parse()?;
            if wire.families.has(address.ip()) {
                netlink::add_address(BRIDGE, address)?;
            }
        }
        if wire.narrow.is_none() {
            return Ok(());
        }
        netlink::sysctl("net/ipv4/ip_forward", "1")?;
        netlink::sysctl("net/ipv6/conf/all/forwarding", "1")?;
        // All machines are on one link, and must not find out.
        for scope in ["all", BRIDGE] {
            netlink::sysctl(&format!("net/ipv4/conf/{scope}/send_redirects"), "0")?;
        }
        Ok(())
    })
}

/// What the fabric has routes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knows {
    /// Its own subnet alone.
    Nodes,
    /// Also each node's pods.
    NodesAndPods,
}

/// The address families of a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 and IPv6.
    Dual,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

impl Families {
    /// Whether an address is of one of them.
    #[must_use]
    pub fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Dual => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// What the network is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    /// MTU of the machines' links, bytes.
    pub(crate) mtu: u32,
    /// Between any two machines is a router, with room for packets of so many bytes only.
    pub(crate) narrow: Option<u32>,
    pub(crate) knows: Knows,
    pub(crate) families: Families,
}

/// Connects a node to the fabric.
pub(crate) fn wire(fabric: &Holder, node: &Node, wire: Wire) -> Result<()> {
    plug(fabric, &node.name, node.holder_pid(), &node.addresses, wire)?;
    if wire.knows == Knows::Nodes {
        return Ok(());
    }
    // The way back from outside the cluster to its pods.
    run_in(&fabric.place.net_only(), || {
        for (cidr, via) in node.pod_cidrs.iter().zip(node.addresses) {
            match wire.narrow {
                _ if !wire.families.has(via) => {}
                Some(mtu) => netlink::add_narrow_route(*cidr, BRIDGE, Some(via), mtu)?,
                None => netlink::add_route(*cidr, BRIDGE, via)?,
            }
        }
        Ok(())
    })
}

/// Gives the network namespace of a process an uplink with these addresses and the gateway as its
/// default route; `name` is the other end's, on the fabric.
pub(crate) fn plug(
    fabric: &Holder,
    name: &str,
    pid: u32,
    addresses: &[IpAddr; 2],
    wire: Wire,
) -> Result<()> {
    let inside = Place::of_process(pid)?.net_only();
    let target = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let pairs = addresses.iter().zip(GATEWAY);
    let pairs: Vec<(IpAddr, IpNetwork)> = pairs
        .filter(|(address, _)| wire.families.has(**address))
        .map(|(address, gateway)| Ok((*address, gateway.parse()?)))
        .collect::<Result<_>>()?;
    run_in(&fabric.place.net_only(), || {
        netlink::add_uplink(name, UPLINK, &target, BRIDGE, wire.mtu)?;
        for (address, _) in &pairs {
            if let Some(mtu) = wire.narrow {
                netlink::add_narrow_route((*address).into(), BRIDGE, None, mtu)?;
            }
        }
        Ok(())
    })?;
    run_in(&inside, || {
        no_surprises(UPLINK)?;
        netlink::raise(UPLINK)?;
        for (address, gateway) in pairs {
            if wire.narrow.is_some() {
                netlink::add_address(UPLINK, address.into())?;
                netlink::add_link_route(gateway.ip().into(), UPLINK)?;
            } else {
                netlink::add_address(UPLINK, IpNetwork::new(address, gateway.prefix())?)?;
            }
            let all = if address.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            netlink::add_route(all.parse()?, UPLINK, gateway.ip())?;
        }
        netlink::await_active(UPLINK)
    })?;
    run_in(&fabric.place.net_only(), || netlink::await_active(name))
}

/// No duplicate address detection (the link-local address is needed at once, to find the next
/// hop), no router advertisements and no redirects.
pub(crate) fn no_surprises(interface: &str) -> Result<()> {
    for scope in ["all", "default", interface] {
        for key in ["accept_dad", "accept_ra", "accept_redirects"] {
            netlink::sysctl(&format!("net/ipv6/conf/{scope}/{key}"), "0")?;
        }
    }
    Ok(())
}
