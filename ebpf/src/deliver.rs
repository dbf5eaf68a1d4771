//! The last steps: where a packet goes, whether it may be redirected there, and the redirect.
//! Kernel only.

use weir_abi::counter::Counter;

use crate::outcome::Outcome;
use crate::packet::{Bytes, ETH_LEN, Kind, Packet};
use crate::scratch::{Hook, Local, Mode, Scratch, Target};
use crate::skb::{Failed, LOOPBACK, Skb};
use crate::{answer, checksum, dsr, maps, outside, overlay};

/// Answer of [`route`]: nothing stands in the way.
pub const CLEAR: u32 = 0;
/// No hop is left.
pub const EXPIRED: u32 = 1;
/// The packet is larger than the way's MTU, which is in `s.mtu`.
pub const TOO_BIG: u32 = 2;

/// There is no way to where the packet is to go.
pub const NO_WAY: u32 = 3;

/// `gso_size` of a packet whose segments have sizes of their own (SCTP).
const GSO_BY_FRAGS: u32 = 0xffff;
/// Packets up to this size fit everywhere (RFC 8200 §5).
const ALWAYS_FITS: u32 = 1280;

/// Fills in where the packet goes, by its destination after translation, and says what stands in
/// the way: redirects check neither hops nor sizes.
#[inline(never)]
pub fn route(skb: Skb, s: &mut Scratch) -> u32 {
    if s.hook == Hook::TO_POD {
        s.target = Target::STACK;
        return CLEAR;
    }
    if s.mode == Mode::FOLLOWS {
        if s.target == Target::STACK || s.target == Target::LOOPBACK {
            return CLEAR;
        }
    } else if s.to.is_present() {
        s.target = Target::POD;
        s.target_ifindex = s.to.ifindex;
    } else {
        let uplink = outside::way(skb, s);
        if uplink == 0 {
            s.target = if outside::to_node_itself(s) {
                Target::LOOPBACK
            } else {
                Target::STACK
            };
            return CLEAR;
        }
        if uplink == outside::NO_ROUTE {
            return NO_WAY;
        }
        s.target = Target::UPLINK;
        s.target_ifindex = uplink;
    }
    // What the node itself sends has all its hops.
    if s.packet.ttl <= 1 && s.hook != Hook::TO_UPLINK {
        return EXPIRED;
    }
    size_check(skb, s)
}

#[inline(always)]
fn size_check(skb: Skb, s: &mut Scratch) -> u32 {
    // A pod takes what its own link would not send. To say of a node's address that less fits would
    // narrow the way to that node for all, the overlay's packets too.
    if s.target == Target::POD && s.hook == Hook::FROM_UPLINK {
        return CLEAR;
    }
    let gso_size = skb.gso_size();
    if gso_size == GSO_BY_FRAGS && s.target == Target::POD {
        let mut mtu = 0;
        let fits = skb.fits(s.target_ifindex, 0, &mut mtu);
        s.mtu = s.to.mtu;
        return if fits { CLEAR } else { TOO_BIG };
    }
    let size = if gso_size == 0 {
        s.packet.ip_len()
    } else {
        gso_size + (s.packet.l4 - s.packet.l3) + s.packet.l4_len
    };
    if size <= ALWAYS_FITS {
        return CLEAR;
    }
    if s.target == Target::POD {
        s.mtu = s.to.mtu;
        return if size > s.to.mtu { TOO_BIG } else { CLEAR };
    }
    if overlay::is_told(s.target_ifindex) && s.hook == Hook::FROM_UPLINK {
        // As above: another node would narrow its way to this one, where its tunnels end. Outer packets
        // of what is too large go in fragments.
        if maps::is_other_node(&s.packet.tuple.src) {
            return CLEAR;
        }
    }
    let mut mtu = 0;
    if !skb.fits(s.target_ifindex, size, &mut mtu) {
        s.mtu = mtu;
        return TOO_BIG;
    }
    let room = overlay::room(skb, s.target_ifindex, &s.out.dst);
    if size <= room || gso_size == GSO_BY_FRAGS {
        return CLEAR;
    }
    s.mtu = room;
    TOO_BIG
}

/// A packet that must not be redirected: its sender is told, by us or by the stack, which gets it
/// as it came.
#[inline(always)]
pub fn blocked(skb: Skb, s: &mut Scratch, obstacle: u32) -> Outcome {
    if s.packet.kind as u8 == Kind::IcmpError as u8 {
        // There is no error about an error (RFC 1122 §3.2.2).
        return Outcome::drop(Counter::DropInvalidState);
    }
    if s.hook == Hook::FROM_UPLINK && s.translate == 0 {
        return Outcome::Stack;
    }
    if s.packet.kind as u8 == Kind::LaterFragment as u8 {
        // Nor about any fragment but the first.
        return Outcome::drop(Counter::DropFragment);
    }
    answer::obstacle(skb, s, obstacle)
}

/// Sends a packet that is judged and translated on its way.
#[inline(always)]
pub fn send(skb: Skb, s: &Scratch) -> Outcome {
    Outcome::from_code(try_send(skb, s))
}

#[inline(never)]
fn try_send(skb: Skb, s: &Scratch) -> u32 {
    if s.target == Target::STACK {
        return Outcome::Stack.code();
    }
    if s.target == Target::LOOPBACK {
        // The device's own address is all zeros.
        if skb.store_words(0, &[0; 3]).is_err() {
            return Outcome::drop(Counter::DropInternal).code();
        }
        skb.redirect(LOOPBACK, true);
        return Outcome::redirected(Counter::ToStack).code();
    }
    let own = s.hook == Hook::TO_UPLINK;
    if !own && decrement_ttl(skb, &s.packet).is_err() {
        return Outcome::drop(Counter::DropInternal).code();
    }
    if s.target == Target::UPLINK {
        if dsr::announce(skb, s) == 0 {
            return Outcome::drop(Counter::DropInternal).code();
        }
        skb.redirect_neigh(s.target_ifindex);
        return Outcome::redirected(Counter::Forwarded).code();
    }
    if own {
        // Past no egress hook, which is where this is.
        if skb.store_words(0, &s.to.macs).is_err() {
            return Outcome::drop(Counter::DropInternal).code();
        }
        skb.redirect(s.to.ifindex, false);
        return Outcome::redirected(Counter::Delivered).code();
    }
    if into_pod(skb, &s.to).is_err() {
        return Outcome::drop(Counter::DropInternal).code();
    }
    Outcome::redirected(Counter::Delivered).code()
}

/// Into a pod, as if from its gateway.
#[inline(always)]
pub fn into_pod(skb: Skb, pod: &Local) -> Result<(), Failed> {
    skb.store_words(0, &pod.macs)?;
    skb.clear_marks();
    skb.redirect_peer(pod.ifindex);
    Ok(())
}

#[inline(always)]
fn decrement_ttl(skb: Skb, p: &Packet) -> Result<(), Failed> {
    if p.family == 4 {
        // TTL and protocol are one word of the header, its checksum stands behind them.
        let [ttl, proto, a, b] = skb.read(p.l3 + 8).ok_or(Failed)?;
        let new = ttl.wrapping_sub(1);
        let check = checksum::replace16(
            u16::from_ne_bytes([a, b]),
            u16::from_ne_bytes([ttl, proto]),
            u16::from_ne_bytes([new, proto]),
        );
        let [a, b] = check.to_ne_bytes();
        return skb.store(p.l3 + 8, &[new, proto, a, b]);
    }
    let mut field = skb.read::<4>(p.l3 + 4).ok_or(Failed)?;
    field[3] = field[3].wrapping_sub(1);
    skb.store_summed(p.l3 + 4, &[u32::from_ne_bytes(field)])
}

/// Offset of the IP header in every frame that the programs see.
pub const L3: u32 = ETH_LEN;
