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
pub(crate) fn raise(fabric: &Holder, mtu: u32) -> Result<()> {
    run_in(&fabric.place.net_only(), || {
        no_surprises("lo")?;
        netlink::add_bridge(BRIDGE, mtu)?;
        GATEWAY
            .iter()
            .try_for_each(|address| netlink::add_address(BRIDGE, address.parse()?))
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

/// Connects a node to the fabric, both families.
pub(crate) fn wire(fabric: &Holder, node: &Node, mtu: u32, knows: Knows) -> Result<()> {
    plug(fabric, &node.name, node.holder_pid(), &node.addresses, mtu)?;
    if knows == Knows::Nodes {
        return Ok(());
    }
    // The way back from outside the cluster to its pods.
    run_in(&fabric.place.net_only(), || {
        for (cidr, via) in node.pod_cidrs.iter().zip(node.addresses) {
            netlink::add_route(*cidr, BRIDGE, via)?;
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
    mtu: u32,
) -> Result<()> {
    let inside = Place::of_process(pid)?.net_only();
    let target = PathBuf::from(format!("/proc/{pid}/ns/net"));
    run_in(&fabric.place.net_only(), || {
        netlink::add_uplink(name, UPLINK, &target, BRIDGE, mtu)
    })?;
    run_in(&inside, || {
        no_surprises(UPLINK)?;
        netlink::raise(UPLINK)?;
        for (address, gateway) in addresses.iter().zip(GATEWAY) {
            let gateway: IpNetwork = gateway.parse()?;
            netlink::add_address(UPLINK, IpNetwork::new(*address, gateway.prefix())?)?;
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
/// hop) and no router advertisements.
fn no_surprises(interface: &str) -> Result<()> {
    for scope in ["all", "default", interface] {
        for key in ["accept_dad", "accept_ra"] {
            netlink::sysctl(&format!("net/ipv6/conf/{scope}/{key}"), "0")?;
        }
    }
    Ok(())
}
