//! Links, addresses and routes of the lab's own namespaces. Every call acts on the network
//! namespace of the calling thread; see [`crate::spawn::run_in`].

use std::net::IpAddr;
use std::os::fd::RawFd;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

/// The index of an interface.
///
/// # Errors
/// When there is none of that name.
pub fn index(name: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(name).with_context(|| format!("no interface named {name}"))
}

fn with_handle<T>(work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("opening a netlink socket")?;
        tokio::spawn(connection);
        work(handle).await
    })
}

/// Brings `lo` up.
///
/// # Errors
/// The kernel's.
pub fn raise_loopback() -> Result<()> {
    raise("lo")
}

/// Brings an interface up.
///
/// # Errors
/// The kernel's.
pub fn raise(name: &str) -> Result<()> {
    let index = index(name)?;
    with_handle(async |handle| {
        let message = LinkUnspec::new_with_index(index).up().build();
        handle
            .link()
            .set(message)
            .execute()
            .await
            .with_context(|| format!("bringing {name} up"))
    })
}

/// Creates a bridge and brings it up.
///
/// # Errors
/// The kernel's.
pub fn add_bridge(name: &str, mtu: u32) -> Result<()> {
    with_handle(async |handle| {
        handle
            .link()
            .add(LinkBridge::new(name).mtu(mtu).up().build())
            .execute()
            .await
            .with_context(|| format!("creating the bridge {name}"))
    })
}

/// Creates a veth pair: `name` here, on the bridge and up; `peer` in another namespace, down.
///
/// # Errors
/// The kernel's.
pub fn add_uplink(name: &str, peer: &str, peer_ns: RawFd, bridge: &str, mtu: u32) -> Result<()> {
    let bridge = index(bridge)?;
    let peer_message = LinkMessageBuilder::<LinkUnspec>::new()
        .name(peer.to_owned())
        .setns_by_fd(peer_ns)
        .mtu(mtu)
        .build();
    with_handle(async |handle| {
        let message = LinkMessageBuilder::<LinkVeth>::new(name, peer)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer_message)))
            .mtu(mtu)
            .controller(bridge)
            .up()
            .build();
        handle
            .link()
            .add(message)
            .execute()
            .await
            .with_context(|| format!("creating the veth pair {name} {peer}"))
    })
}

/// Adds an address, usable at once (no duplicate address detection).
///
/// # Errors
/// The kernel's.
pub fn add_address(name: &str, address: IpNetwork) -> Result<()> {
    let index = index(name)?;
    with_handle(async |handle| {
        let mut request = handle.address().add(index, address.ip(), address.prefix());
        if address.is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request
            .execute()
            .await
            .with_context(|| format!("adding {address} to {name}"))
    })
}

/// Adds a route by a gateway; a default route where the prefix is 0.
///
/// # Errors
/// The kernel's.
pub fn add_route(to: IpNetwork, via: IpAddr) -> Result<()> {
    with_handle(async |handle| {
        let message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(to.network(), to.prefix())?
            .gateway(via)?
            .build();
        handle
            .route()
            .add(message)
            .execute()
            .await
            .with_context(|| format!("adding the route to {to} via {via}"))
    })
}

/// Writes a sysctl of the calling thread's network namespace, as `net/ipv4/ip_forward`.
///
/// # Errors
/// The kernel's.
pub fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    std::fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))
}
