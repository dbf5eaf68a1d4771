//! VXLAN (RFC 7348) over IPv4 without its device. Kernel only.
//!
//! The device asks for a route and makes metadata for each packet at one end, and takes it through a socket and a
//! queue at the other. What goes the short way is packed and unpacked here instead, as the device would have it:
//! trains of segments are left to the device, which has offloads for them.

use aya_ebpf::programs::TcContext;
use weir_abi::conntrack::Tuple;
use weir_abi::counter::Counter;
use weir_abi::node::VXLAN_SOURCE_PORTS;
use weir_abi::{Addr, PortBe, Proto};

use super::head::{Head, at, at_mut};
use crate::outcome::Outcome;
use crate::packet::{Bytes, ETH_LEN};
use crate::skb::{Failed, NextHop, Skb};
use crate::{checksum, maps, overlay};

/// An outer packet's headers, from its IP header to the end of the inner frame's.
#[repr(C, packed(2))]
struct Outer {
    version: u8,
    tos: u8,
    total: [u8; 2],
    id: u16,
    fragment: [u8; 2],
    ttl: u8,
    proto: u8,
    check: u16,
    src: u32,
    dst: u32,
    sport: u16,
    dport: u16,
    udp_len: [u8; 2],
    udp_check: u16,
    flags: u32,
    vni: u32,
    inner_macs: [u32; 3],
    inner_ethertype: [u8; 2],
}

/// What packing adds to a packet.
const ADDED: usize = size_of::<Outer>();
const _: () = assert!(ADDED == IP_HEADER + UDP_HEADER + VXLAN_HEADER + ETH_LEN as usize);
/// Where the inner frame begins in the outer one.
const INNER: usize = ETH_LEN as usize + IP_HEADER + UDP_HEADER + VXLAN_HEADER;

/// The beginning of the outer packet's frame.
#[repr(C, packed(2))]
struct OuterFrame {
    macs: [u32; 3],
    ethertype: [u8; 2],
    outer: Outer,
}

/// The header has a network's number (RFC 7348 §5, the flag I).
const HAS_VNI: u32 = u32::from_ne_bytes([0x08, 0, 0, 0]);
const VNI: u32 = (overlay::VNI << 8).to_be();
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
const LIFE: u8 = 64;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const VXLAN_HEADER: usize = 8;
/// ECN's bits of the type of service (RFC 3168 §5).
const ECN: u8 = 3;
const ECT_0: u8 = 2;
const CE: u8 = 3;
/// In CE and in ECT(1): the inner packet's has to be set by it (RFC 6040 §4.2).
const TO_BE_SET: u8 = 1;

/// Packs a packet for the node that has its destination, and sends it. `None`: it is as it was, and for the device.
#[inline(always)]
pub fn send(ctx: &TcContext, skb: Skb, device: u32, head: &Head) -> Option<Outcome> {
    if !overlay::is_vxlan() || skb.gso_size() != 0 {
        return None;
    }
    let tunnel = maps::tunnel(&head.tuple.dst)?;
    let local = maps::uplink_addr(device, true);
    if !tunnel.is_v4() || local.is_none() {
        return None;
    }
    let udp_len = skb.len() + (UDP_HEADER + VXLAN_HEADER) as u32;
    let total = udp_len + IP_HEADER as u32;
    if total > u16::MAX as u32 {
        return None;
    }
    let total = total as u16;
    let ends = Tuple {
        src: local,
        dst: tunnel,
        sport: PortBe::new(source_port(skb.flow_hash())),
        dport: PortBe::new(overlay::port()),
    };
    let hop = skb.next_hop(&ends, Proto::UDP, total)?;
    skb.grow_to_pack(ADDED as i32).ok()?;
    Some(match write(ctx, skb, head, &ends, &hop, total) {
        Ok(()) => {
            skb.redirect(hop.ifindex, false);
            Outcome::redirected(Counter::Forwarded)
        }
        Err(Failed) => Outcome::drop(Counter::DropInternal),
    })
}

/// Writes all headers of the outer packet, `total` bytes, and takes a hop from the inner one.
#[inline(always)]
fn write(
    ctx: &TcContext,
    skb: Skb,
    head: &Head,
    ends: &Tuple,
    hop: &NextHop,
    total: u16,
) -> Result<(), Failed> {
    let front = at_mut::<OuterFrame>(ctx, 0).ok_or(Failed)?;
    front.macs = hop.macs;
    front.ethertype = [0x08, 0x00];
    let (src, dst) = (ends.src.v4_word(), ends.dst.v4_word());
    let tos = outer_tos(head.tos);
    let o = &mut front.outer;
    o.version = 0x45;
    o.tos = tos;
    o.total = total.to_be_bytes();
    o.id = 0;
    o.fragment = DONT_FRAGMENT;
    o.ttl = LIFE;
    o.proto = Proto::UDP.0;
    o.check = header_check(tos, total, src, dst);
    o.src = src;
    o.dst = dst;
    o.sport = ends.sport.0;
    o.dport = ends.dport.0;
    o.udp_len = (total - IP_HEADER as u16).to_be_bytes();
    // The inner packet has checksums of its own.
    o.udp_check = 0;
    o.flags = HAS_VNI;
    o.vni = VNI;
    o.inner_macs = overlay::MACS;
    o.inner_ethertype = head.ethertype();
    head.forward::<INNER>(ctx, skb)
}

/// A packet of the overlay's network in an uplink's frame, which is to this node's address there.
pub struct Packed {
    /// The inner packet's.
    pub head: Head,
    /// Who has packed it.
    pub from: Addr,
    /// The node's address.
    pub to: Addr,
    /// The device would take it as it is, and there is nothing to it but one packet.
    pub is_usual: bool,
}

impl Packed {
    /// `outer` is the packet's own head.
    #[inline(always)]
    pub fn read(ctx: &TcContext, skb: Skb, outer: &Head) -> Option<Self> {
        if !overlay::is_vxlan() || !outer.v4 {
            return None;
        }
        let o: &Outer = at(ctx, ETH_LEN as usize)?;
        if o.flags != HAS_VNI || o.vni != VNI {
            return None;
        }
        let [a, b, _] = o.inner_macs;
        let for_device = a == overlay::MACS[0] && b as u16 == overlay::MACS[1] as u16;
        let is_usual = for_device
            && o.udp_check == 0
            && o.tos & TO_BE_SET == 0
            && outer.fills(skb)
            && skb.gso_size() == 0;
        // By an uplink that has another address the node's own rules may not let it in.
        if maps::uplink_addr(skb.ifindex(), true) != outer.tuple.dst {
            return None;
        }
        Some(Self {
            head: Head::read::<INNER>(ctx, skb)?,
            from: outer.tuple.src,
            to: outer.tuple.dst,
            is_usual,
        })
    }

    /// Whether it was packed by the node that its source is on.
    #[inline(always)]
    pub fn is_from_owner(&self) -> bool {
        maps::tunnel(&self.head.tuple.src) == Some(self.from)
    }

    /// Takes the outer headers off.
    #[inline(always)]
    pub fn unpack(&self, skb: Skb) -> Result<(), Failed> {
        skb.shrink_to_unpack(ADDED as i32, self.head.v4)
    }
}

/// As the kernel chooses it (`udp_flow_src_port`, net/udp.h): packets of a flow that the device packs must not take
/// another way than those that are packed here.
#[inline(always)]
fn source_port(hash: u32) -> u16 {
    let (first, end) = VXLAN_SOURCE_PORTS;
    let mixed = hash ^ hash << 16;
    ((mixed as u64 * (end - first) as u64) >> 32) as u16 + first
}

/// RFC 6040 §4.1, as the kernel's tunnels do: ECN is carried on, but that congestion was met before is not.
#[inline(always)]
fn outer_tos(inner: u8) -> u8 {
    match inner & ECN {
        CE => ECT_0,
        ecn => ecn,
    }
}

#[inline(always)]
fn header_check(tos: u8, total: u16, src: u32, dst: u32) -> u16 {
    let halves = u16::from_ne_bytes([0x45, tos]) as u64
        + u16::from_ne_bytes(total.to_be_bytes()) as u64
        + u16::from_ne_bytes(DONT_FRAGMENT) as u64
        + u16::from_ne_bytes([LIFE, Proto::UDP.0]) as u64;
    !checksum::fold(halves + src as u64 + dst as u64)
}
