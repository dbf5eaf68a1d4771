//! Answers: refusals and ICMP errors, built over the packet that caused them. Kernel only.
//!
//! Every answer goes back the way that the packet came, a pod's through its own interface. A packet without a
//! finished transport checksum (CHECKSUM_PARTIAL) stays marked so, and the pod's kernel then takes
//! the answer's checksums for right without a look; where it does look they are right as well.

use core::hint::black_box;

use weir_abi::conntrack::Tuple;
use weir_abi::counter::Counter;
use weir_abi::endpoint::{GATEWAY_V4, GATEWAY_V6};
use weir_abi::{Addr, Proto};

use crate::checksum;
use crate::deliver::{self, L3};
use crate::{maps, outside};
use crate::packet::{Bytes, Packet, icmp, tcp};
use crate::outcome::Outcome;
use crate::scratch::{ANSWER_WORDS, Hook, Local, QUOTE, Scratch};
use crate::skb::{Failed, Skb};

/// Hop limit of answers.
const TTL: u8 = 64;

/// "No such service here": a RST for TCP, else ICMP "port unreachable", from the address that was
/// asked.
#[inline(always)]
pub fn refuse(skb: Skb, s: &mut Scratch) -> Outcome {
    if unanswerable(skb, s) {
        return Outcome::drop(Counter::DropRateLimited);
    }
    let p = &s.packet;
    if p.proto.0 == Proto::TCP.0 {
        if p.tcp_flags & tcp::RST != 0 {
            return Outcome::drop(Counter::RefusedNoEndpoint);
        }
        return sent(reset(skb, s), Counter::RefusedNoEndpoint);
    }
    let (kind, code) = if p.family == 4 {
        (icmp::V4_UNREACHABLE, 3)
    } else {
        (icmp::V6_UNREACHABLE, 4)
    };
    let what = word(kind, code) as u64;
    sent(error(skb, s, what, false), Counter::RefusedNoEndpoint)
}

/// Prepares the way back to somebody outside; whether there were too many ICMP errors to those
/// outside at once.
#[inline(always)]
fn unanswerable(skb: Skb, s: &mut Scratch) -> bool {
    if s.from.is_present() {
        return false;
    }
    if outside::note_sender(skb, s) != 0 {
        return true;
    }
    s.hook == Hook::FROM_UPLINK
        && s.packet.proto.0 != Proto::TCP.0
        && !maps::may_answer(s.now)
}

/// What the next router would say: time exceeded, or packet too big.
#[inline(always)]
pub fn obstacle(skb: Skb, s: &mut Scratch, obstacle: u32) -> Outcome {
    if unanswerable(skb, s) {
        return Outcome::drop(Counter::DropRateLimited);
    }
    let from_gateway = s.from.is_present();
    let v4 = s.packet.family == 4;
    let (what, mtu) = match (obstacle == deliver::EXPIRED, v4) {
        (true, true) => (word(icmp::V4_TIME_EXCEEDED, 0), 0),
        (true, false) => (word(icmp::V6_TIME_EXCEEDED, 0), 0),
        (false, true) => (word(icmp::V4_UNREACHABLE, 4), s.mtu),
        (false, false) => (word(icmp::V6_TOO_BIG, 0), s.mtu),
    };
    let what = what as u64 | (mtu as u64) << 32;
    sent(error(skb, s, what, from_gateway), Counter::AnsweredIcmp)
}

#[inline(always)]
fn sent(failed: u32, what: Counter) -> Outcome {
    if failed != 0 {
        Outcome::drop(Counter::DropInternal)
    } else {
        Outcome::redirected(what)
    }
}

/// The first word of an ICMP message, checksum zero.
#[inline(always)]
fn word(kind: u8, code: u8) -> u32 {
    u32::from_ne_bytes([kind, code, 0, 0])
}

/// Puts an Ethernet and an IP header before `len` bytes of payload, and sends the frame back.
/// Answers the sum of the pseudo header.
#[inline(always)]
pub fn headers(
    skb: Skb,
    pod: &Local,
    from: &Addr,
    to: &Addr,
    proto: Proto,
    ttl: u8,
    len: u32,
) -> Result<u64, Failed> {
    let [a, b] = (len as u16).to_be_bytes();
    let mut sum = len.to_be() as u64 + u32::from_ne_bytes([0, 0, 0, proto.0]) as u64;
    if from.is_v4() {
        let [c, d] = (len as u16 + 20).to_be_bytes();
        let words = [
            u32::from_ne_bytes([0x45, 0, c, d]),
            u32::from_ne_bytes([0, 0, 0x40, 0]),
            u32::from_ne_bytes([ttl, proto.0, 0, 0]),
            from.v4_word(),
            to.v4_word(),
        ];
        sum += words[3] as u64 + words[4] as u64;
        let check = !checksum::fold(words.iter().map(|w| *w as u64).sum());
        skb.store(L3, &words[0].to_ne_bytes())?;
        skb.store(L3 + 4, &words[1].to_ne_bytes())?;
        let [e, f] = check.to_ne_bytes();
        skb.store(L3 + 8, &[ttl, proto.0, e, f])?;
        skb.store(L3 + 12, &words[3].to_ne_bytes())?;
        skb.store(L3 + 16, &words[4].to_ne_bytes())?;
    } else {
        skb.store(L3, &[0x60, 0, 0, 0, a, b, proto.0, ttl])?;
        skb.store(L3 + 8, &from.octets())?;
        skb.store(L3 + 24, &to.octets())?;
        for i in 0..4 {
            sum += from.0[i] as u64 + to.0[i] as u64;
        }
    }
    if pod.is_present() {
        skb.set_to_host();
        deliver::into_pod(skb, pod)?;
    } else {
        outside::back(skb, pod)?;
    }
    Ok(sum)
}

#[inline(always)]
fn ip_header_len(family: u8) -> u32 {
    if family == 4 { 20 } else { 40 }
}

/// A RST (RFC 9293 §3.5.2). 0 if it worked.
#[inline(never)]
fn reset(skb: Skb, s: &Scratch) -> u32 {
    try_reset(skb, &s.packet, &s.from).is_err() as u32
}

#[inline(always)]
fn try_reset(skb: Skb, p: &Packet, pod: &Local) -> Result<(), Failed> {
    let [a, b, c, d, e, f, g, h] = skb.read(p.l4 + 4).ok_or(Failed)?;
    let seq = u32::from_be_bytes([a, b, c, d]);
    let syn_or_fin = (p.tcp_flags & tcp::SYN != 0) as u32 + (p.tcp_flags & tcp::FIN != 0) as u32;
    let len = (p.end - p.l4 - p.l4_len).wrapping_add(syn_or_fin);
    let (seq, ack, flags) = if p.tcp_flags & tcp::ACK != 0 {
        (u32::from_ne_bytes([e, f, g, h]), 0, tcp::RST)
    } else {
        (0, seq.wrapping_add(len).to_be(), tcp::RST | tcp::ACK)
    };
    let back = p.tuple.reversed();
    let l4 = L3 + ip_header_len(p.family);
    skb.resize(l4 + 20)?;
    let Tuple {
        src,
        dst,
        sport,
        dport,
    } = &back;
    let pseudo = headers(skb, pod, src, dst, Proto::TCP, TTL, 20)?;
    let ports = {
        let ([a, b], [c, d]) = (sport.0.to_ne_bytes(), dport.0.to_ne_bytes());
        u32::from_ne_bytes([a, b, c, d])
    };
    let control = u32::from_ne_bytes([0x50, flags, 0, 0]);
    let sum = pseudo + ports as u64 + seq as u64 + ack as u64 + control as u64;
    let [a, b] = (!checksum::fold(sum)).to_ne_bytes();
    skb.store(l4, &ports.to_ne_bytes())?;
    skb.store(l4 + 4, &seq.to_ne_bytes())?;
    skb.store(l4 + 8, &ack.to_ne_bytes())?;
    skb.store(l4 + 12, &control.to_ne_bytes())?;
    skb.store(l4 + 16, &[a, b, 0, 0])
}

/// An ICMP error about the packet: `what` is the message's first word and, in its high half, the
/// MTU; it comes from the gateway, or from the address that the packet was sent to. 0 if it worked.
#[inline(never)]
fn error(skb: Skb, s: &mut Scratch, what: u64, from_gateway: bool) -> u32 {
    let from = match (from_gateway, s.packet.family) {
        (false, _) => s.packet.tuple.dst,
        (true, 4) => GATEWAY_V4,
        (true, _) => GATEWAY_V6,
    };
    try_error(skb, s, &from, what as u32, (what >> 32) as u32).is_err() as u32
}

#[inline(always)]
fn try_error(
    skb: Skb,
    s: &mut Scratch,
    from: &Addr,
    what: u32,
    mtu: u32,
) -> Result<(), Failed> {
    let p = &s.packet;
    let quote = p.end - p.l3;
    let quote = if quote > QUOTE as u32 {
        QUOTE as u32
    } else {
        quote
    };
    // A packet has a header, so this changes nothing; but it tells the verifier (Linux 6.1 does not
    // carry what a comparison says of a register over to its copies).
    let quote = (black_box(quote.wrapping_sub(1)) & (QUOTE as u32 - 1)) + 1;
    let answer = &mut s.answer;
    // What fills the last word up.
    answer[2 + (quote as usize >> 2)] = 0;
    answer[0] = what;
    // IPv4 has it in the low half of the word (RFC 1191), IPv6 in all of it: in both cases the
    // number in network order, for no MTU is above 65,535.
    answer[1] = mtu.to_be();
    skb.load_into(p.l3, answer[2..].as_mut_ptr().cast(), quote)?;
    let l4 = L3 + ip_header_len(p.family);
    let len = 8 + quote;
    let (proto, src) = (
        if p.family == 4 {
            Proto::ICMP
        } else {
            Proto::ICMPV6
        },
        p.tuple.src,
    );
    skb.resize(l4 + len)?;
    let pseudo = headers(skb, &s.from, from, &src, proto, TTL, len)?;
    let mut sum = if from.is_v4() { 0 } else { pseudo };
    // What the compiler knows of the length it would take for the array's bound, and 6.1 does not.
    let end = black_box(len);
    for (i, word) in answer.iter().enumerate() {
        if i as u32 * 4 >= end {
            break;
        }
        sum += *word as u64;
    }
    let [kind, code, ..] = what.to_ne_bytes();
    let [a, b] = (!checksum::fold(sum)).to_ne_bytes();
    answer[0] = u32::from_ne_bytes([kind, code, a, b]);
    if len > 4 * ANSWER_WORDS as u32 {
        return Err(Failed);
    }
    skb.store_from(l4, answer.as_ptr().cast(), len)
}
