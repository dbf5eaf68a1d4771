//! Direct server return: TCP from outside goes to a backend on another node with the client's own
//! address, and is answered from there. Kernel only.
//!
//! The backend's node must know what the client has dialled. A connection's first packet says so, in
//! an IPv4 option or an IPv6 destination option of the numbers for experiments (RFC 4727 §3.1, §3.3):
//! the frontend's port and address. Both are passed over by whoever does not know them.

use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_NET;
use weir_abi::conntrack::{Tuple, flags, seen};
use weir_abi::node::config;
use weir_abi::{Addr, PortBe, Proto};

use crate::packet::{Bytes, Kind, Packet};
use crate::scratch::{Hook, Mode, Scratch, Target};
use crate::skb::{Failed, Skb};
use crate::{checksum, maps, overlay, service};

/// The IPv4 option: copied on fragmentation, class 0, number 30.
const OPTION_V4: u8 = 0x9e;
const LEN_V4: u32 = 8;
/// The IPv6 option: skipped by whoever does not know it.
const OPTION_V6: u8 = 0x1e;
/// A destination options header of three times eight bytes, which holds the option alone.
const LEN_V6: u32 = 24;
const HEADER_V6: [u8; 3] = [LEN_V6 as u8 / 8 - 1, OPTION_V6, LEN_V6 as u8 - 4];
const HOP_BY_HOP: u8 = 0;
const DESTINATION: u8 = 60;

/// Whether this way is on.
#[inline(always)]
fn is_on() -> bool {
    maps::config_word(config::FLAGS) & config::flags::DSR != 0
}

/// Gives a new flow from outside this way, if it can go it: 1 if so. A backend that is not in the
/// prefix of a node's pods answers by the stack of its node, which knows nothing of the frontend.
#[inline(never)]
pub fn takes(s: &mut Scratch) -> u32 {
    let p = &s.packet;
    let uplink = maps::uplink_to(&s.out.dst);
    // What comes by the overlay comes from its node: the client's own address would be a forged one.
    if !is_on() || p.proto.0 != Proto::TCP.0 || uplink == 0 || uplink == overlay::ifindex() {
        return 0;
    }
    // A client that is a pod or a node may be at the backend's own node, which takes no such source
    // from outside; and what the other node would not believe is not said to it.
    if maps::is_in_cluster(&p.tuple.src)
        || !service::is_external(&p.tuple.dst, p.tuple.dport, p.proto)
    {
        return 0;
    }
    s.entry.flags |= flags::DSR;
    // This node never sees an answer: the client's next packet is taken for one.
    s.entry.seen |= seen::MIDSTREAM | seen::REPLY;
    1
}

/// Takes it back: another flow has the tuple that the client has at the backend.
#[inline(always)]
pub fn gives_up(s: &mut Scratch) {
    s.entry.flags &= !flags::DSR;
    s.entry.seen &= !seen::REPLY;
    if s.packet.opens() {
        s.entry.seen = 0;
    }
}

/// Tells the backend's node what was dialled, in a connection's first packet. 1 if that worked, or is
/// not called for.
#[inline(never)]
pub fn announce(skb: Skb, s: &Scratch) -> u32 {
    // In other modes the entry is another packet's.
    let original = s.mode == Mode::OPENS || (s.mode == Mode::TRACKED && s.original != 0);
    if !original
        || s.entry.flags & flags::DSR == 0
        || s.target != Target::UPLINK
        || s.packet.kind as u8 != Kind::Flow as u8
        || s.packet.proto.0 != Proto::TCP.0
        || !s.packet.opens()
    {
        return 1;
    }
    let p = &s.packet;
    let done = if p.family == 4 {
        announce_v4(skb, p)
    } else {
        announce_v6(skb, p)
    };
    done.is_ok() as u32
}

#[inline(always)]
fn announce_v4(skb: Skb, p: &Packet) -> Result<(), Failed> {
    // What was dialled, as the packet came; the header is rewritten already.
    let (port, addr) = (p.tuple.dport.0, p.tuple.dst.v4_word());
    if p.l4 - p.l3 > 60 - LEN_V4 {
        return Err(Failed);
    }
    skb.adjust_room(LEN_V4 as i32, BPF_ADJ_ROOM_NET)?;
    let [a, b] = port.to_ne_bytes();
    let option = u32::from_ne_bytes([OPTION_V4, LEN_V4 as u8, a, b]);
    skb.store_words(p.l3 + 20, &[option, addr])?;
    let [version, tos, c, d] = skb.read(p.l3).ok_or(Failed)?;
    let old = u32::from_ne_bytes([version, tos, c, d]);
    let [c, d] = (u16::from_be_bytes([c, d]) + LEN_V4 as u16).to_be_bytes();
    let new = u32::from_ne_bytes([version + LEN_V4 as u8 / 4, tos, c, d]);
    skb.store(p.l3, &new.to_ne_bytes())?;
    let check = u16::from_ne_bytes(skb.read(p.l3 + 10).ok_or(Failed)?);
    let sum = (!check) as u64 + (!old) as u64 + new as u64 + option as u64 + addr as u64;
    skb.store(p.l3 + 10, &(!checksum::fold(sum)).to_ne_bytes())
}

#[inline(always)]
fn announce_v6(skb: Skb, p: &Packet) -> Result<(), Failed> {
    let [c, d, next, hops] = skb.read(p.l3 + 4).ok_or(Failed)?;
    if next == HOP_BY_HOP {
        // It must come first (RFC 8200 §4.1).
        return Err(Failed);
    }
    skb.adjust_room(LEN_V6 as i32, BPF_ADJ_ROOM_NET)?;
    let [c, d] = (u16::from_be_bytes([c, d]) + LEN_V6 as u16).to_be_bytes();
    skb.store(p.l3 + 4, &[c, d, DESTINATION, hops])?;
    let [len, option, data] = HEADER_V6;
    let [a, b] = p.tuple.dport.0.to_ne_bytes();
    skb.store(p.l3 + 40, &[next, len, option, data, a, b, 0, 0])?;
    skb.store(p.l3 + 48, &p.tuple.dst.octets())
}

/// Makes the flow of a connection's first packet to a pod of this node one that another node
/// has sent here: its client has dialled what the packet says.
#[inline(never)]
pub fn accept(skb: Skb, s: &mut Scratch) -> u32 {
    if s.hook != Hook::FROM_UPLINK || !is_on() || !s.to.is_present() {
        return 0;
    }
    let p = &s.packet;
    if p.proto.0 != Proto::TCP.0 || !p.opens() {
        return 0;
    }
    let Some((addr, port)) = announced(skb, p) else {
        return 0;
    };
    // Not everything that is said is believed: only what a Service has may be answered as.
    if !(maps::is_other_node(&addr) || service::has_services(&addr))
        || !service::is_external(&addr, port, p.proto)
    {
        return 0;
    }
    s.entry.flags |= flags::NAT | flags::DSR | flags::KEY_TRANSLATED;
    s.entry.other = Tuple {
        src: p.tuple.src,
        dst: addr,
        sport: p.tuple.sport,
        dport: port,
    };
    1
}

/// What a packet's first option says.
#[inline(always)]
fn announced(skb: Skb, p: &Packet) -> Option<(Addr, PortBe)> {
    if p.family == 4 {
        if p.l4 < p.l3 + 20 + LEN_V4 {
            return None;
        }
        let [kind, len, a, b, c, d, e, f] = skb.read::<8>(p.l3 + 20)?;
        let ours = kind == OPTION_V4 && len == LEN_V4 as u8;
        let (addr, port) = (Addr::from_v4([c, d, e, f]), u16::from_ne_bytes([a, b]));
        return ours.then_some((addr, PortBe(port)));
    }
    let [next] = skb.read::<1>(p.l3 + 6)?;
    if next != DESTINATION || p.l4 < p.l3 + 40 + LEN_V6 {
        return None;
    }
    let [_, len, option, data, a, b, _, _] = skb.read::<8>(p.l3 + 40)?;
    let addr = Addr::from_v6(skb.read::<16>(p.l3 + 48)?);
    let ours = [len, option, data] == HEADER_V6 && !addr.is_v4();
    ours.then_some((addr, PortBe(u16::from_ne_bytes([a, b]))))
}
