//! ARP and IPv6 neighbour discovery at the pod's edge. Kernel only.
//!
//! A pod has one neighbour, its gateway, and both sides know each other by permanent entries. What
//! is asked all the same about the gateway is answered here; nothing else passes, so that no pod
//! can speak for another.

use weir_abi::{Addr, Proto};
use weir_abi::counter::Counter;
use weir_abi::endpoint::{Endpoint, GATEWAY_V4, GATEWAY_V6};

use crate::answer;
use crate::checksum;
use crate::deliver::{self, L3};
use crate::packet::{Bytes, Packet, icmp};
use crate::outcome::Outcome;
use crate::scratch::Local;
use crate::skb::{Failed, Skb};

/// Ethernet, IPv4, 6- and 4-byte addresses (RFC 826).
const ARP_HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;

/// ARP from a pod.
#[inline(always)]
pub fn arp_from_pod(skb: Skb, pod: &Endpoint) -> Outcome {
    Outcome::from_code(arp(skb, pod))
}

/// In a function of its own, whose stack the packet's way does not pay for.
#[inline(never)]
fn arp(skb: Skb, pod: &Endpoint) -> u32 {
    judge_arp(skb, pod).code()
}

#[inline(always)]
fn judge_arp(skb: Skb, pod: &Endpoint) -> Outcome {
    let Some(arp) = skb.read::<28>(L3) else {
        return Outcome::drop(Counter::DropMalformed);
    };
    let [a, b, c, d, e, f, 0, op, ..] = arp else {
        return Outcome::drop(Counter::DropMalformed);
    };
    if [a, b, c, d, e, f] != ARP_HEADER || (op != ARP_REQUEST && op != ARP_REPLY) {
        return Outcome::drop(Counter::DropMalformed);
    }
    let sender_mac = [arp[8], arp[9], arp[10], arp[11], arp[12], arp[13]];
    let sender = Addr::from_v4([arp[14], arp[15], arp[16], arp[17]]);
    let target = Addr::from_v4([arp[24], arp[25], arp[26], arp[27]]);
    let probe = sender.v4_word() == 0 && op == ARP_REQUEST;
    if sender_mac != pod.pod_mac || (sender != pod.addr4 && !probe) {
        return Outcome::drop(Counter::DropSpoofed);
    }
    if op == ARP_REPLY {
        return Outcome::Stack;
    }
    if target != GATEWAY_V4 {
        return Outcome::drop(Counter::IgnoredNoise);
    }
    match answer_arp(skb, pod, &arp) {
        Ok(()) => Outcome::redirected(Counter::AnsweredNeighbour),
        Err(Failed) => Outcome::drop(Counter::DropInternal),
    }
}

#[inline(always)]
fn answer_arp(skb: Skb, pod: &Endpoint, arp: &[u8; 28]) -> Result<(), Failed> {
    skb.store(L3 + 6, &[0, ARP_REPLY])?;
    skb.store(L3 + 8, &pod.host_mac)?;
    skb.store(L3 + 14, &GATEWAY_V4.v4_word().to_ne_bytes())?;
    skb.store(L3 + 18, &pod.pod_mac)?;
    skb.store(L3 + 24, &[arp[14], arp[15], arp[16], arp[17]])?;
    skb.set_to_host();
    deliver::into_pod(skb, &Local::of(pod))
}

/// All hosts on the link (RFC 4291 §2.7.1).
const ALL_NODES: Addr = Addr::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// `fe80::/10`.
#[inline(always)]
pub fn is_link_local(addr: &Addr) -> bool {
    addr.0[0] & u32::from_ne_bytes([0xff, 0xc0, 0, 0]) == u32::from_ne_bytes([0xfe, 0x80, 0, 0])
}

/// Multicast or broadcast.
#[inline(always)]
pub fn is_group(addr: &Addr) -> bool {
    let [first, ..] = if addr.is_v4() {
        addr.v4_word().to_ne_bytes()
    } else {
        addr.0[0].to_ne_bytes()
    };
    if addr.is_v4() {
        first & 0xf0 == 0xe0 || addr.v4_word() == u32::MAX
    } else {
        first == 0xff
    }
}

/// What a pod sends of ICMPv6 that is about its link, not about flows; nothing if it is neither.
/// Of the senders only the pod's own address, link-local ones and none at all come so far.
#[inline(always)]
pub fn nd_from_pod(skb: Skb, pod: &Endpoint, p: &Packet) -> Option<Outcome> {
    let drop = |why| Some(Outcome::drop(why));
    match p.icmp_type {
        icmp::V6_MLD_FIRST..=icmp::V6_MLD_LAST
        | icmp::V6_MLD2_REPORT
        | icmp::V6_ROUTER_SOLICITATION => drop(Counter::IgnoredNoise),
        icmp::V6_ROUTER_ADVERTISEMENT | icmp::V6_REDIRECT => drop(Counter::DropForbiddenIcmp),
        icmp::V6_NEIGHBOUR_SOLICITATION | icmp::V6_NEIGHBOUR_ADVERTISEMENT => {
            Some(Outcome::from_code(neighbour(skb, pod, p)))
        }
        _ => None,
    }
}

#[inline(never)]
fn neighbour(skb: Skb, pod: &Endpoint, p: &Packet) -> u32 {
    judge_neighbour(skb, pod, p).code()
}

#[inline(always)]
fn judge_neighbour(skb: Skb, pod: &Endpoint, p: &Packet) -> Outcome {
    // A hop limit below 255 has come from elsewhere (RFC 4861 §7.1).
    if p.ttl != 255 || p.l4 + 24 > p.end {
        return Outcome::drop(Counter::DropMalformed);
    }
    let Some(target) = skb.read::<16>(p.l4 + 8) else {
        return Outcome::drop(Counter::DropMalformed);
    };
    let target = Addr::from_v6(target);
    if p.icmp_type == icmp::V6_NEIGHBOUR_ADVERTISEMENT {
        let own = target == pod.addr6 || (is_link_local(&target) && target != GATEWAY_V6);
        return if own {
            Outcome::Stack
        } else {
            Outcome::drop(Counter::DropSpoofed)
        };
    }
    if target != GATEWAY_V6 {
        return Outcome::drop(Counter::IgnoredNoise);
    }
    match advertise(skb, pod, p) {
        Ok(()) => Outcome::redirected(Counter::AnsweredNeighbour),
        Err(Failed) => Outcome::drop(Counter::DropInternal),
    }
}

/// The gateway's neighbour advertisement (RFC 4861 §4.4).
#[inline(always)]
fn advertise(skb: Skb, pod: &Endpoint, p: &Packet) -> Result<(), Failed> {
    const ROUTER: u8 = 0x80;
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let (to, flags) = if p.tuple.src.is_none() {
        (ALL_NODES, ROUTER | OVERRIDE)
    } else {
        (p.tuple.src, ROUTER | SOLICITED | OVERRIDE)
    };
    let l4 = L3 + 40;
    skb.resize(l4 + 32)?;
    let pseudo = answer::headers(skb, &Local::of(pod), &GATEWAY_V6, &to, Proto::ICMPV6, 255, 32)?;
    let [a, b, c, d, e, f] = pod.host_mac;
    let option = [2, 1, a, b, c, d, e, f];
    let mut sum = pseudo;
    sum += u32::from_ne_bytes([icmp::V6_NEIGHBOUR_ADVERTISEMENT, 0, 0, 0]) as u64;
    sum += u32::from_ne_bytes([flags, 0, 0, 0]) as u64;
    for word in GATEWAY_V6.0 {
        sum += word as u64;
    }
    sum += u32::from_ne_bytes([2, 1, a, b]) as u64 + u32::from_ne_bytes([c, d, e, f]) as u64;
    let [x, y] = (!checksum::fold(sum)).to_ne_bytes();
    let head = [
        icmp::V6_NEIGHBOUR_ADVERTISEMENT,
        0,
        x,
        y,
        flags,
        0,
        0,
        0,
    ];
    skb.store(l4, &head)?;
    skb.store(l4 + 8, &GATEWAY_V6.octets())?;
    skb.store(l4 + 24, &option)
}
