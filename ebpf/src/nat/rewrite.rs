//! Rewriting of packets. Kernel only.
//!
//! What pods send is mostly CHECKSUM_PARTIAL: the field holds the sum of the pseudo header only
//! and the device fills in the rest. A direct write of the full checksum would corrupt it, so
//! transport checksums are changed by the kernel's helper only, which knows.

use weir_abi::conntrack::Tuple;
use weir_abi::{Addr, Proto};

use crate::checksum;
use crate::packet::{Bytes, Kind, Packet};
use crate::scratch::Scratch;
use crate::skb::{Failed, Skb};

/// Offset of the checksum in the transport header, if the pseudo header is part of it.
#[inline(always)]
fn checksum_offset(proto: Proto, family: u8) -> Option<u32> {
    match proto {
        Proto::TCP => Some(16),
        Proto::UDP => Some(6),
        Proto::ICMPV6 if family == 6 => Some(2),
        _ => None,
    }
}

/// Rewrites a packet, and what it quotes if it is an ICMP error. 1 if it worked.
#[inline(never)]
pub fn translate(skb: Skb, s: &Scratch) -> u32 {
    let quote_first = s.packet.kind as u8 == Kind::IcmpError as u8;
    if quote_first && rewrite_quote(skb, &s.packet, &s.inner, &s.inner_out) == 0 {
        return 0;
    }
    try_rewrite(skb, &s.packet, &s.out).is_ok() as u32
}

#[inline(always)]
fn try_rewrite(skb: Skb, p: &Packet, to: &Tuple) -> Result<(), Failed> {
    rewrite_addr(skb, p, &p.tuple.src, &to.src, true)?;
    rewrite_addr(skb, p, &p.tuple.dst, &to.dst, false)?;
    if p.kind as u8 == Kind::Flow as u8 && matches!(p.proto, Proto::TCP | Proto::UDP | Proto::SCTP)
    {
        rewrite_ports(skb, p, to)?;
    }
    if p.is_icmp() && p.kind as u8 == Kind::Flow as u8 {
        rewrite_echo(skb, p, to)?;
    }
    Ok(())
}

/// Offset in the frame of the transport checksum, if addresses are part of it, else 0. A number, where
/// an option would have the compiler read stack that nobody has written (Linux 6.1 refuses that).
#[inline(always)]
fn checksum_over_addrs(p: &Packet) -> u32 {
    if p.kind as u8 == Kind::LaterFragment as u8 {
        return 0;
    }
    checksum_offset(p.proto, p.family).map_or(0, |at| p.l4 + at)
}

/// One address, in the IP header and in the checksums over it.
#[inline(always)]
fn rewrite_addr(skb: Skb, p: &Packet, old: &Addr, new: &Addr, src: bool) -> Result<(), Failed> {
    if old == new {
        return Ok(());
    }
    let check = checksum_over_addrs(p);
    let udp = p.proto.0 == Proto::UDP.0;
    if p.family == 4 {
        let (old, new) = (old.v4_word(), new.v4_word());
        skb.store(p.l3 + if src { 12 } else { 16 }, &new.to_ne_bytes())?;
        let field = skb.read(p.l3 + 10).ok_or(Failed)?;
        let header = checksum::replace32(u16::from_ne_bytes(field), old, new);
        skb.store(p.l3 + 10, &header.to_ne_bytes())?;
        return match check {
            0 => Ok(()),
            at => skb.checksum_pseudo(at, old, new, udp),
        };
    }
    // The helper takes a pseudo-header change for one that the IPv4 header's checksum balances in
    // the device's sum over the packet. IPv6 has none, hence the store that corrects that sum.
    skb.store_summed(p.l3 + if src { 8 } else { 24 }, &new.0)?;
    match check {
        0 => Ok(()),
        at => skb.checksum_pseudo_sum(at, difference(old, new), udp),
    }
}

/// The sum that a change of four words adds.
#[inline(always)]
pub fn difference(old: &Addr, new: &Addr) -> u32 {
    let mut sum = 0u64;
    for i in 0..4 {
        sum += (!old.0[i]) as u64 + new.0[i] as u64;
    }
    checksum::fold(sum) as u32
}

#[inline(always)]
fn rewrite_ports(skb: Skb, p: &Packet, to: &Tuple) -> Result<(), Failed> {
    let (old_src, old_dst) = (p.tuple.sport.0, p.tuple.dport.0);
    let (new_src, new_dst) = (to.sport.0, to.dport.0);
    if old_src == new_src && old_dst == new_dst {
        return Ok(());
    }
    let [a, b] = new_src.to_ne_bytes();
    let [c, d] = new_dst.to_ne_bytes();
    skb.store(p.l4, &[a, b, c, d])?;
    match checksum_offset(p.proto, p.family) {
        Some(at) => {
            let sum = (!old_src) as u64 + new_src as u64 + (!old_dst) as u64 + new_dst as u64;
            let udp = p.proto.0 == Proto::UDP.0;
            skb.checksum_sum(p.l4 + at, checksum::fold(sum) as u32, udp)
        }
        None => rewrite_sctp(skb, p, [a, b, c, d]),
    }
}

/// An echo's identifier stands in its tuple as the port of the end that asks.
#[inline(always)]
fn rewrite_echo(skb: Skb, p: &Packet, to: &Tuple) -> Result<(), Failed> {
    let (old, new) = (identifier(p, &p.tuple), identifier(p, to));
    if old == new {
        return Ok(());
    }
    skb.store(p.l4 + 4, &new.to_ne_bytes())?;
    let sum = (!old) as u64 + new as u64;
    skb.checksum_sum(p.l4 + 2, checksum::fold(sum) as u32, false)
}

/// The identifier in the tuple of an echo or its reply; of other messages 0.
#[inline(always)]
fn identifier(p: &Packet, tuple: &Tuple) -> u16 {
    if p.is_echo(true) {
        tuple.sport.0
    } else if p.is_echo(false) {
        tuple.dport.0
    } else {
        0
    }
}

/// SCTP's CRC32c covers the ports, but no address. Where the device is to fill it in later, what
/// stands there does not matter.
#[inline(always)]
fn rewrite_sctp(skb: Skb, p: &Packet, ports: [u8; 4]) -> Result<(), Failed> {
    let field = skb.read(p.l4 + 8).ok_or(Failed)?;
    let [a, b] = p.tuple.sport.0.to_ne_bytes();
    let [c, d] = p.tuple.dport.0.to_ne_bytes();
    let difference = u32::from_le_bytes([a, b, c, d]) ^ u32::from_le_bytes(ports);
    let change = checksum::crc32c_change(difference, p.end - p.l4 - 4);
    let crc = u32::from_le_bytes(field) ^ change;
    skb.store(p.l4 + 8, &crc.to_le_bytes())
}

/// Rewrites what an ICMP error quotes, and the error's own checksum for that. 1 if it worked.
#[inline(never)]
fn rewrite_quote(skb: Skb, outer: &Packet, inner: &Packet, to: &Tuple) -> u32 {
    try_rewrite_quote(skb, outer, inner, to).is_ok() as u32
}

#[inline(always)]
fn try_rewrite_quote(skb: Skb, outer: &Packet, p: &Packet, to: &Tuple) -> Result<(), Failed> {
    let at = outer.l4 + 2;
    let mut sum = 0u64;
    if p.family == 4 {
        let field = skb.read(p.l3 + 10).ok_or(Failed)?;
        let old = u16::from_ne_bytes(field);
        let (src, dst) = (to.src.v4_word(), to.dst.v4_word());
        let (old_src, old_dst) = (p.tuple.src.v4_word(), p.tuple.dst.v4_word());
        let header = checksum::replace32(checksum::replace32(old, old_src, src), old_dst, dst);
        skb.store(p.l3 + 10, &header.to_ne_bytes())?;
        skb.store(p.l3 + 12, &src.to_ne_bytes())?;
        skb.store(p.l3 + 16, &dst.to_ne_bytes())?;
        sum += (!old) as u64 + header as u64;
        sum += (!old_src) as u64 + src as u64 + (!old_dst) as u64 + dst as u64;
    } else {
        skb.store(p.l3 + 8, &bytes(&to.src))?;
        skb.store(p.l3 + 24, &bytes(&to.dst))?;
        sum += difference(&p.tuple.src, &to.src) as u64;
        sum += difference(&p.tuple.dst, &to.dst) as u64;
    }
    if matches!(p.proto, Proto::TCP | Proto::UDP | Proto::SCTP) {
        let (src, dst) = (to.sport.0, to.dport.0);
        let ([a, b], [c, d]) = (src.to_ne_bytes(), dst.to_ne_bytes());
        skb.store(p.l4, &[a, b, c, d])?;
        sum += (!p.tuple.sport.0) as u64 + src as u64 + (!p.tuple.dport.0) as u64 + dst as u64;
    }
    let (old, new) = (identifier(p, &p.tuple), identifier(p, to));
    if old != new {
        skb.store(p.l4 + 4, &new.to_ne_bytes())?;
        sum += (!old) as u64 + new as u64;
    }
    // A quoted header after an odd number of bytes would swap the sums; none does, as headers are
    // multiples of four bytes.
    skb.checksum_sum(at, checksum::fold(sum) as u32, false)
}

#[inline(always)]
fn bytes(addr: &Addr) -> [u8; 16] {
    addr.octets()
}
