//! Links, addresses and routes of the lab's own namespaces. Every call acts on the network
//! namespace of the calling thread; see [`crate::spawn::run_in`].

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use weir_net::NetNs;
use weir_net::netlink::{LinkChange, LinkWatch, Netlink, Route, Veth};

/// How long an interface may take until it sends.
const ACTIVATION: Duration = Duration::from_secs(5);

/// Brings `lo` up.
///
/// # Errors
/// The kernel's.
pub fn raise_loopback() -> Result<()> {
    raise("lo")
}

/// The index of an interface.
///
/// # Errors
/// When there is none of that name.
pub fn interface_index(name: &str) -> Result<u32> {
    Ok(Netlink::open()?.link(name)?.index)
}

/// Brings an interface up.
///
/// # Errors
/// The kernel's.
pub fn raise(name: &str) -> Result<()> {
    let netlink = Netlink::open()?;
    Ok(netlink.set_up(netlink.link(name)?.index)?)
}

/// Waits until an interface sends what it is given: for a moment after it has come up it does not,
/// and a first packet is lost.
///
/// # Errors
/// It is not active after five seconds.
pub fn await_active(name: &str) -> Result<()> {
    let netlink = Netlink::open()?;
    let watch = LinkWatch::open_in(&NetNs::current()?)?;
    Ok(netlink.await_active(netlink.link(name)?.index, &watch, ACTIVATION)?)
}

/// Creates a bridge and brings it up.
///
/// # Errors
/// The kernel's.
pub fn add_bridge(name: &str, mtu: u32) -> Result<()> {
    let netlink = Netlink::open()?;
    netlink.create_link(name, "bridge")?;
    let change = LinkChange {
        up: Some(true),
        mtu: Some(mtu),
        ..LinkChange::default()
    };
    Ok(netlink.set_link(netlink.link(name)?.index, change)?)
}

/// Creates a veth pair: `name` here, on the bridge and up; `peer` in another namespace, down.
///
/// # Errors
/// The kernel's.
pub fn add_uplink(name: &str, peer: &str, peer_ns: &Path, bridge: &str, mtu: u32) -> Result<()> {
    let netlink = Netlink::open()?;
    add_veth(&netlink, name, peer, peer_ns, mtu)?;
    let master = Some(netlink.link(bridge)?.index);
    let change = LinkChange {
        up: Some(true),
        master,
        ..LinkChange::default()
    };
    Ok(netlink.set_link(netlink.link(name)?.index, change)?)
}

/// Creates a veth pair: `name` here and up, `peer` in another namespace, down. Both ends have one MTU,
/// bytes.
///
/// # Errors
/// The kernel's.
pub fn add_cable(name: &str, peer: &str, peer_ns: &Path, mtu: u32) -> Result<()> {
    add_veth(&Netlink::open()?, name, peer, peer_ns, mtu)?;
    raise(name)
}

/// Both ends down.
fn add_veth(netlink: &Netlink, name: &str, peer: &str, peer_ns: &Path, mtu: u32) -> Result<()> {
    Ok(netlink.create_veth(&Veth {
        name,
        mac: None,
        peer_name: peer,
        peer_ns: &NetNs::open(peer_ns)?,
        peer_mac: None,
        mtu,
    })?)
}

/// Adds an address, usable at once (no duplicate address detection).
///
/// # Errors
/// The kernel's.
pub fn add_address(name: &str, address: IpNetwork) -> Result<()> {
    let netlink = Netlink::open()?;
    Ok(netlink.add_address(netlink.link(name)?.index, address)?)
}

/// Adds a route through an interface and a gateway; a default route where the prefix is 0.
///
/// # Errors
/// The kernel's.
pub fn add_route(to: IpNetwork, through: &str, gateway: IpAddr) -> Result<()> {
    let netlink = Netlink::open()?;
    let index = netlink.link(through)?.index;
    Ok(netlink.add_route(&Route::to(to).via(index, gateway))?)
}

/// Adds a route that packets of no more than `mtu` bytes fit; without a gateway to what is on the link.
///
/// # Errors
/// The kernel's.
pub fn add_narrow_route(
    to: IpNetwork,
    through: &str,
    gateway: Option<IpAddr>,
    mtu: u32,
) -> Result<()> {
    let netlink = Netlink::open()?;
    let index = netlink.link(through)?.index;
    let mut route = match gateway {
        Some(gateway) => Route::to(to).via(index, gateway),
        None => Route::to(to).on_link(index),
    };
    route.mtu = Some(mtu);
    Ok(netlink.add_route(&route)?)
}

/// Adds a route to what is on an interface's link.
///
/// # Errors
/// The kernel's.
pub fn add_link_route(to: IpNetwork, through: &str) -> Result<()> {
    let netlink = Netlink::open()?;
    let index = netlink.link(through)?.index;
    Ok(netlink.add_route(&Route::to(to).on_link(index))?)
}

/// Writes a sysctl of the calling thread's network namespace, as `net/ipv4/ip_forward`.
///
/// # Errors
/// The kernel's.
pub fn sysctl(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    std::fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))
}
