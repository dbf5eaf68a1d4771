//! Conntrack entries.
//!
//! Two LRU maps with one layout: [`crate::map::CT_NEW`] for half-open and unreplied flows,
//! [`crate::map::CT_EST`] for the rest, so that a flood evicts only the first.
//!
//! A flow has two wire tuples: the *original* one, as its initiator's side sees it, and the
//! *translated* one, as its responder's side sees it. Without NAT they are the same and the flow
//! is one entry. With NAT it is two, one under each tuple, each complete: an entry holds its own
//! tuple in the key and the other one in `other`.

use crate::policy::RuleVerdict;
use crate::service::BackendId;
use crate::{Addr, PortBe, Proto};

/// A packet's ends, as they stand on the wire.
///
/// ICMP echo: the identifier is the port of the end that asks, 0 that of the end that answers, so
/// that a request never looks like a reply. Other protocols without ports: 0.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tuple {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port.
    pub sport: PortBe,
    /// Destination port.
    pub dport: PortBe,
}

impl Tuple {
    /// The tuple of a packet the other way.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
        }
    }
}

/// Key of the conntrack maps: both ends in a fixed order, so that both directions find the entry.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CtKey {
    /// The lower end's address (order of [`CtKey::sorted`]).
    pub low: Addr,
    /// The higher end's address.
    pub high: Addr,
    /// The lower end's port.
    pub low_port: PortBe,
    /// The higher end's port.
    pub high_port: PortBe,
    /// The protocol's number; a whole word, for the back end clears bytes in a loop.
    pub proto: u32,
}

impl CtKey {
    /// The key of a tuple, and whether its source is the higher end.
    ///
    /// The order is that of the words as the machine reads them, then the ports: the same for both
    /// directions, without meaning beyond that.
    #[inline(always)]
    pub fn sorted(t: &Tuple, proto: Proto) -> (Self, bool) {
        let swap = after(t);
        let key = if swap {
            Self {
                low: t.dst,
                high: t.src,
                low_port: t.dport,
                high_port: t.sport,
                proto: proto.0 as u32,
            }
        } else {
            Self {
                low: t.src,
                high: t.dst,
                low_port: t.sport,
                high_port: t.dport,
                proto: proto.0 as u32,
            }
        };
        (key, swap)
    }

    /// The protocol.
    #[inline(always)]
    pub const fn proto(&self) -> Proto {
        Proto(self.proto as u8)
    }
}

/// Whether the source end sorts after the destination end.
#[inline(always)]
fn after(t: &Tuple) -> bool {
    let (a, b) = (&t.src.0, &t.dst.0);
    // The last word first: it is where the addresses of one cluster differ.
    if a[3] != b[3] {
        a[3] > b[3]
    } else if a[2] != b[2] {
        a[2] > b[2]
    } else if a[1] != b[1] {
        a[1] > b[1]
    } else if a[0] != b[0] {
        a[0] > b[0]
    } else {
        t.sport.0 > t.dport.0
    }
}

/// A verdict on a flow at one of its ends, in one word that is changed by compare-and-exchange
/// only: the endpoint's epoch in the low 32 bits, the flow's tag above, two bits of verdict on top.
/// The tag keeps a stamp from landing on the flow that has got a recycled element.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    const TAG_SHIFT: u32 = 32;
    const TAG_MASK: u64 = 0x3fff_ffff << Self::TAG_SHIFT;
    const ALLOW: u64 = 1 << 62;
    const DENY: u64 = 1 << 63;

    /// A flow's tag cut to what a stamp holds.
    pub const TAG_BITS: u32 = 0x3fff_ffff;

    /// Not judged yet.
    #[inline(always)]
    pub const fn unjudged(tag: u32) -> Self {
        Self(((tag & Self::TAG_BITS) as u64) << Self::TAG_SHIFT)
    }

    /// Judged under an epoch (its low 32 bits).
    #[inline(always)]
    pub const fn judged(tag: u32, epoch: u32, allowed: bool) -> Self {
        let verdict = if allowed { Self::ALLOW } else { Self::DENY };
        Self(Self::unjudged(tag).0 | epoch as u64 | verdict)
    }

    /// The verdict, if it was given under this epoch.
    #[inline(always)]
    pub const fn verdict(self, epoch: u32) -> Option<bool> {
        if self.0 & (Self::ALLOW | Self::DENY) == 0 || self.0 as u32 != epoch {
            return None;
        }
        Some(self.0 & Self::ALLOW != 0)
    }

    /// The flow's tag.
    #[inline(always)]
    pub const fn tag(self) -> u32 {
        ((self.0 & Self::TAG_MASK) >> Self::TAG_SHIFT) as u32
    }
}

/// The uplink that leads to the flow's end on another node, and that its packets come in by, as of a
/// generation of the tables that say so (`NODE_CIDRS`, `UPLINKS`, `NODE_ADDRS`). One word, changed by
/// compare-and-exchange only, with the flow's tag for the same reason as in [`Stamp`].
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Way(pub u64);

impl Way {
    const TAG_SHIFT: u32 = 40;
    const GENERATION_SHIFT: u32 = 24;
    const TAG_BITS: u32 = 0xff_ffff;
    const GENERATION_BITS: u32 = 0xffff;
    const IFINDEX_BITS: u32 = 0xff_ffff;

    /// Of a flow whose way has not been looked at.
    #[inline(always)]
    pub const fn unknown(tag: u32) -> Self {
        Self(((tag & Self::TAG_BITS) as u64) << Self::TAG_SHIFT)
    }

    /// The same flow's, by an uplink; unknown if its index is above 2^24.
    #[inline(always)]
    #[must_use]
    pub const fn by(self, ifindex: u32, generation: u32) -> Self {
        let flow = self.0 >> Self::TAG_SHIFT << Self::TAG_SHIFT;
        if ifindex > Self::IFINDEX_BITS {
            return Self(flow);
        }
        let generation = ((generation & Self::GENERATION_BITS) as u64) << Self::GENERATION_SHIFT;
        Self(flow | generation | ifindex as u64)
    }

    /// The uplink, if this is the way of the flow with the tag, as of this generation; else 0.
    #[inline(always)]
    pub const fn uplink(self, tag: u32, generation: u32) -> u32 {
        let expected = Self::unknown(tag).by(0, generation).0;
        if self.0 & !(Self::IFINDEX_BITS as u64) == expected {
            self.0 as u32 & Self::IFINDEX_BITS
        } else {
            0
        }
    }
}

/// Value of the conntrack maps.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CtEntry {
    /// The initiator's egress verdict; meaningful where the initiator is a pod of this node.
    pub egress: Stamp,
    /// The responder's ingress verdict; meaningful where the responder is a pod of this node.
    pub ingress: Stamp,
    /// The flow's other tuple, in original direction; see [`flags::NAT`].
    pub other: Tuple,
    /// When the last packet was seen, in ticks of 2^30 ns (about 1.07 s) of the monotonic clock.
    pub last_seen: u32,
    /// What has been seen of the connection: [`seen`].
    pub seen: u32,
    /// [`flags`].
    pub flags: u32,
    /// [`crate::endpoint::Endpoint::incarnation`] of the initiator if it is a pod of this node,
    /// else 0.
    pub initiator: u32,
    /// The same of the responder.
    pub responder: u32,
    /// The backend that a Service's flow was given, or 0.
    pub backend: BackendId,
    /// [`crate::service::Backend::incarnation`] of that backend.
    pub backend_incarnation: u32,
    /// What the last egress judgement said, for display: not written in one step with the stamp.
    pub egress_rule: RuleVerdict,
    /// The same of ingress.
    pub ingress_rule: RuleVerdict,
    /// The flow's number, in both its entries; see [`Stamp`].
    pub tag: u32,
    /// [`CtEntry::VERSION`].
    pub version: u32,
    /// The uplink by which the initiator's first packet came in, and by which the replies leave
    /// again; with [`flags::MASQUERADE`] the one that the initiator's packets leave by; 0 for other flows.
    pub uplink: u32,
    /// When a packed packet of the flow was last left to the overlay's device, in units of 2^24 ns (about 17 ms) of
    /// the monotonic clock, the low half of them; 0 if none ever was.
    pub queued: u16,
    /// When the device last packed one, in ticks as `last_seen`, the low half of them.
    pub packed: u16,
    /// The way to and from an end on another node, of a flow that is not translated.
    pub way: Way,
}

impl CtEntry {
    /// The layout this file describes.
    pub const VERSION: u32 = 1;
}

/// Bits of [`CtEntry::flags`].
pub mod flags {
    /// The initiator is the key's higher end (in the order of the key's own tuple).
    pub const INITIATOR_HIGH: u32 = 1;
    /// The flow is translated: it has a second entry, under the tuple `other`.
    pub const NAT: u32 = 2;
    /// With [`NAT`]: this entry's key is the translated tuple, `other` the original one.
    pub const KEY_TRANSLATED: u32 = 4;
    /// Opened by the node itself to its own pod (kubelet probes): never judged.
    pub const HOST_LOCAL: u32 = 8;
    /// A pod that reached itself through a Service: never judged.
    pub const HAIRPIN: u32 = 16;
    /// The initiator's address is translated to the node's, with a port of `config::NAT_PORTS`:
    /// the responder is not on this node.
    pub const SNAT: u32 = 32;
    /// Direct server return: another node has chosen the backend, this one answers the client.
    pub const DSR: u32 = 64;
    /// What the initiator, a pod of this node, sends is forwarded by the stack: so must the replies
    /// be, or whoever follows connections there (netfilter) sees half of this one.
    pub const BY_STACK: u32 = 128;
    /// With [`SNAT`]: a pod of this node has opened the flow to somebody outside the cluster.
    pub const MASQUERADE: u32 = 256;
}

/// Bits of [`CtEntry::seen`]: they are only ever added, so that both entries of a flow can be
/// updated without order.
pub mod seen {
    /// A packet of the responder.
    pub const REPLY: u32 = 1;
    /// The connection is established: TCP's handshake ended (or was never seen), or another
    /// protocol had a reply.
    pub const ESTABLISHED: u32 = 2;
    /// TCP FIN of the initiator.
    pub const FIN_INITIATOR: u32 = 4;
    /// TCP FIN of the responder.
    pub const FIN_RESPONDER: u32 = 8;
    /// TCP RST of either end.
    pub const RST: u32 = 16;
    /// TCP: the responder's SYN-ACK.
    pub const SYN_ACK: u32 = 32;
    /// TCP: the first packet seen was not a SYN.
    pub const MIDSTREAM: u32 = 64;
    /// TCP: a packet that acknowledges after a RST: the RST was not believed.
    pub const AFTER_RST: u32 = 128;
    /// Not TCP: the initiator went on after a reply, so this is more than a question and its answer.
    pub const ASSURED: u32 = 256;
}

crate::pod!(Tuple, CtKey, Stamp, Way, CtEntry);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_known_for_its_flow_and_its_generation_only() {
        let tag = 0x89ab_cdef;
        let unknown = Way::unknown(tag);
        for generation in [0, 1, 0xffff, 0x1_0000] {
            assert_eq!(unknown.uplink(tag, generation), 0);
            let way = unknown.by(7, generation);
            assert_eq!(way.uplink(tag, generation), 7);
            assert_eq!(way.uplink(tag, generation + 1), 0);
            assert_eq!(way.uplink(tag ^ 1, generation), 0);
            assert_eq!(way.by(9, generation + 1).uplink(tag, generation + 1), 9);
        }
    }

    #[test]
    fn an_index_that_does_not_fit_is_not_cut() {
        let way = Way::unknown(5).by(0x0100_0003, 1);
        assert_eq!(way, Way::unknown(5));
        assert_eq!(way.by(0xff_ffff, 1).uplink(5, 1), 0xff_ffff);
    }
}
