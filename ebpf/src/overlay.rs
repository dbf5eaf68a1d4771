//! The overlay: which node a packet goes to, whether it came from the node that it says, and what
//! would make another node believe so. Kernel only.
//!
//! The device packs and unpacks (VXLAN or Geneve, collect metadata): these programs only set and read
//! the other end of the tunnel. A tunnel is trusted for the address it comes from, so nothing may
//! send to the overlay's port from a node's address but the device.

use aya_ebpf::programs::TcContext;
use weir_abi::counter::Counter;
use weir_abi::node::{config, node_cidr};
use weir_abi::{Addr, Proto};

use crate::neighbour::is_group;
use crate::outcome::Outcome;
use crate::packet::{Bytes, ETH_LEN, Kind, Packet};
use crate::scratch::{Hook, Scratch};
use crate::skb::{Failed, LOOPBACK, Skb};
use crate::{dry_run, maps};

/// Number of the one network that all nodes share (VXLAN's and Geneve's VNI).
pub const VNI: u32 = 0x57;

/// A frame's first 12 bytes inside the overlay: to the address that every node's device has
/// (`weir_abi::node::OVERLAY_MAC`), from another one: a device drops what comes from its own.
pub const MACS: [u32; 3] = {
    let [a, b, c, d, e, f] = weir_abi::node::OVERLAY_MAC;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, a, b]),
        u32::from_ne_bytes([c, d, e, f ^ 1]),
    ]
};

/// What packing adds to a packet: IP, UDP, VXLAN or Geneve (8 bytes each), and the inner Ethernet header.
const OVERHEAD_V4: u32 = 20 + 8 + 8 + 14;
/// The same over IPv6.
const OVERHEAD_V6: u32 = 40 + 8 + 8 + 14;

/// The overlay's device, by index; 0 for none.
#[inline(always)]
pub fn ifindex() -> u32 {
    maps::config_word(config::OVERLAY) as u32
}

/// Whether there is an overlay.
#[inline(always)]
pub fn is_on() -> bool {
    ifindex() != 0
}

/// Whether a packet is to the overlay's port: if it is to a node, a packed one.
#[inline(always)]
pub fn is_outer(p: &Packet) -> bool {
    p.proto.0 == Proto::UDP.0
        && p.kind as u8 == Kind::Flow as u8
        && is_port(p.tuple.dport.get())
}

/// Whether this is the overlay's UDP port.
#[inline(always)]
pub fn is_port(port: u16) -> bool {
    let word = maps::config_word(config::OVERLAY);
    word as u32 != 0 && (word >> 32) as u16 == port
}

/// Whether an address is that of a pod that is reached by the overlay: it comes from there, and
/// never bare.
#[inline(always)]
pub fn is_behind(addr: &Addr) -> bool {
    maps::owner(addr).is_some_and(|owner| owner.flags & node_cidr::OVERLAY != 0)
}

/// The overlay's device, if it leads to the node that has the address, or whose pod has; else 0.
#[inline(never)]
pub fn towards(addr: &Addr) -> u32 {
    maps::tunnel(addr).map_or(0, |_| ifindex())
}

/// The uplink towards the node that has the address, or whose pod has: the overlay's device also for
/// the node's own address. 0 for none.
#[inline(never)]
pub fn or_uplink_to(addr: &Addr) -> u32 {
    match maps::owner(addr) {
        None => 0,
        Some(owner) if owner.ifindex == 0 && !owner.tunnel.is_none() => ifindex(),
        Some(owner) => owner.ifindex,
    }
}

/// Whether a planned packet would reach a node's overlay as if a node had sent it: it is to the
/// overlay's port, and to a node from a pod, or gets a node's address for its source. 1 if so.
#[inline(never)]
pub fn would_forge(s: &Scratch) -> u32 {
    if s.packet.proto.0 != Proto::UDP.0
        || s.packet.kind as u8 != Kind::Flow as u8
        || !is_port(s.out.dport.get())
    {
        return 0;
    }
    let to_node = s.hook == Hook::FROM_POD
        && (maps::is_node_addr(&s.out.dst) || maps::is_other_node(&s.out.dst));
    let from_node = s.out.src != s.packet.tuple.src && maps::is_node_addr(&s.out.src);
    (to_node || from_node) as u32
}

/// Whether the packet has come from the node that has its source address, or whose pod has: 1 if
/// so. A dry run has no tunnel, and takes that for given.
#[inline(never)]
pub fn is_from_owner(skb: Skb, s: &Scratch) -> u32 {
    comes_from(skb, &s.packet.tuple.src) as u32
}

/// See [`is_from_owner`].
#[inline(always)]
pub fn comes_from(skb: Skb, src: &Addr) -> bool {
    let Some(tunnel) = maps::tunnel(src) else {
        return false;
    };
    dry_run::is_on() || skb.tunnel_from(VNI, tunnel.is_v4()) == Some(tunnel)
}

/// The mark of a packet that has been given its tunnel by [`send_to`], on its way to the device's egress hook. A
/// packet that bears it without a tunnel is dropped by the device.
const PACKED: u32 = 0x5700_0000;

/// Whether an interface is a device that packs what it is told by a packet's tunnel.
#[inline(always)]
pub fn is_told(ifindex: u32) -> bool {
    let word = maps::config_word(config::OVERLAY);
    word as u32 == ifindex && word & config::OVERLAY_IS_TOLD != 0
}

/// Whether the programs may pack and unpack in the device's place.
#[inline(always)]
pub fn is_vxlan() -> bool {
    maps::config_word(config::OVERLAY) & config::OVERLAY_IS_VXLAN != 0
}

/// Whether what comes from an address by an uplink, for one of this node's, would pass that uplink's reverse path
/// filter.
#[inline(always)]
pub fn passes_reverse_path(skb: Skb, from: &Addr, to: &Addr) -> bool {
    let strict = maps::config_word(config::OVERLAY) & config::UPLINKS_ARE_STRICT != 0;
    !strict || skb.routed_by(LOOPBACK, to, from) == skb.ifindex()
}

/// The overlay's UDP port.
#[inline(always)]
pub fn port() -> u16 {
    (maps::config_word(config::OVERLAY) >> 32) as u16
}

/// Sends a packet through the device to the node that has the address, or whose pod has: its only hop there is
/// the tunnel, so that no route and no neighbour is asked for.
#[inline(always)]
pub fn send_to(skb: Skb, device: u32, dst: &Addr) -> Result<(), Failed> {
    let tunnel = maps::tunnel(dst).ok_or(Failed)?;
    let local = maps::uplink_addr(device, tunnel.is_v4());
    if local.is_none() {
        return Err(Failed);
    }
    pack(skb, &local, &tunnel, true)?;
    skb.set_mark(PACKED);
    skb.redirect(device, false);
    Ok(())
}

/// How large a packet may be that leaves by `device` to the node that has the address, or whose pod has:
/// the way between the nodes may have less room than their links, which the kernel learns from what
/// routers say of outer packets. As long as none has said anything, nothing is looked up.
#[inline(always)]
pub fn room(skb: Skb, device: u32, dst: &Addr) -> u32 {
    if may_be_narrow(device) {
        room_of_way(skb, dst)
    } else {
        u32::MAX
    }
}

/// Whether the ways of a device's tunnels have to be looked at. WireGuard's outer packets may go in fragments.
#[inline(always)]
pub fn may_be_narrow(device: u32) -> bool {
    is_told(device) && maps::config_word(config::TUNNEL_ERROR) != 0
}

#[inline(never)]
fn room_of_way(skb: Skb, dst: &Addr) -> u32 {
    let Some(tunnel) = maps::tunnel(dst) else {
        return u32::MAX;
    };
    let v4 = tunnel.is_v4();
    let local = maps::uplink_addr(ifindex(), v4);
    let mtu = skb.path_mtu(skb.ifindex(), &local, &tunnel);
    if mtu == 0 {
        return u32::MAX;
    }
    mtu.saturating_sub(if v4 { OVERHEAD_V4 } else { OVERHEAD_V6 })
}

/// Notes that an ICMP error from an uplink is about an outer packet of this node's. What it says is the
/// kernel's to judge.
#[inline(never)]
pub fn note_error(s: &Scratch) -> u32 {
    let quoted = &s.inner;
    if s.hook == Hook::FROM_UPLINK
        && quoted.proto.0 == Proto::UDP.0
        && is_port(quoted.tuple.dport.get())
        && maps::is_node_addr(&quoted.tuple.src)
    {
        maps::set_config_word(config::TUNNEL_ERROR, 1);
    }
    0
}

/// Egress of the overlay's device: sends a packet to the node that has its destination.
#[inline(always)]
pub fn send(ctx: &TcContext) -> Outcome {
    let skb = Skb::new(ctx.skb.skb);
    if skb.mark() == PACKED {
        skb.set_mark(0);
        return Outcome::Stack;
    }
    let Some(dst) = destination(skb) else {
        return Outcome::drop(Counter::DropOtherProtocol);
    };
    let Some(tunnel) = maps::tunnel(&dst) else {
        // The device's own multicast reports and the like are no loss.
        return Outcome::drop(if is_group(&dst) {
            Counter::IgnoredNoise
        } else {
            Counter::DropNoTunnel
        });
    };
    let local = maps::uplink_addr(skb.ifindex(), tunnel.is_v4());
    if local.is_none() {
        return Outcome::drop(Counter::DropNoTunnel);
    }
    match pack(skb, &local, &tunnel, fits(skb, &dst) != 0) {
        Ok(()) => Outcome::Stack,
        Err(Failed) => Outcome::drop(Counter::DropInternal),
    }
}

#[inline(always)]
fn pack(skb: Skb, local: &Addr, remote: &Addr, whole: bool) -> Result<(), Failed> {
    skb.store_words(0, &MACS)?;
    skb.tunnel_to(VNI, local, remote, whole)
}

/// Headers of a packet that has segments, at most: those of IPv6 and TCP with all options.
const SEGMENT_HEADERS: u32 = 40 + 60;

/// Whether the outer packet need not be fragmented, 1 or 0. What has come in by another interface has been
/// measured, but for what other nodes send; what the node itself sends has not.
#[inline(never)]
fn fits(skb: Skb, dst: &Addr) -> u32 {
    let device = skb.ifindex();
    let size = match skb.gso_size() {
        0 => skb.len() - ETH_LEN,
        payload => payload + SEGMENT_HEADERS,
    };
    let mut mtu = 0;
    if skb.ingress_ifindex() == 0 || !skb.fits(device, size, &mut mtu) {
        return 0;
    }
    (size <= room(skb, device, dst)) as u32
}

/// Where a packet goes; `None` if it is no IP.
#[inline(always)]
fn destination(skb: Skb) -> Option<Addr> {
    match skb.read::<2>(12)? {
        [0x08, 0x00] => Some(Addr::from_v4(skb.read(ETH_LEN + 16)?)),
        [0x86, 0xdd] => Some(Addr::from_v6(skb.read(ETH_LEN + 24)?)),
        _ => None,
    }
}
