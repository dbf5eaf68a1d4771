//! Parsing: from a frame's bytes to what the rest decides on. Pure.
//!
//! Every read is checked against the length that the IP header states, not only against the
//! frame's: what pads a short Ethernet frame is not part of the packet.

mod numbers;

use weir_abi::conntrack::Tuple;
use weir_abi::{Addr, PortBe, Proto};

pub use numbers::{icmp, tcp};

/// A frame's bytes, wherever they are.
pub trait Bytes {
    /// `N` bytes from `offset` on, or nothing if the frame ends before.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
    /// The frame's length.
    fn len(&self) -> u32;
    /// Whether there is not a single byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Length of an Ethernet header without tags.
pub const ETH_LEN: u32 = 14;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// What kind of frame [`parse`] met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    /// IPv4 or IPv6: the packet is filled in.
    Ip,
    /// ARP.
    Arp,
    /// Anything else.
    Other,
    /// Truncated, or its headers contradict each other.
    Malformed,
}

/// How far the transport header could be read.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// The tuple is complete.
    #[default]
    Flow = 0,
    /// A fragment that is not the first: no ports.
    LaterFragment = 1,
    /// An ICMP error: what it is about stands 8 bytes behind `l4`.
    IcmpError = 2,
}

/// A parsed packet.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Packet {
    /// Addresses and ports.
    pub tuple: Tuple,
    /// Offset of the IP header in the frame.
    pub l3: u32,
    /// Offset of the transport header in the frame.
    pub l4: u32,
    /// Offset of the first byte after the packet.
    pub end: u32,
    /// Bytes of the transport header.
    pub l4_len: u32,
    /// 4 or 6.
    pub family: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// The transport protocol.
    pub proto: Proto,
    /// TCP only.
    pub tcp_flags: u8,
    /// ICMP and ICMPv6 only; SCTP: the type of the first chunk.
    pub icmp_type: u8,
    /// See [`Kind`].
    pub kind: Kind,
    /// 1 for a first fragment: more follow.
    pub fragmented: u8,
    /// Reserved, zero.
    pub zero: u8,
}

impl Packet {
    /// Whether the packet opens a connection: TCP's first SYN, SCTP's INIT; of other protocols
    /// every packet may.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        match self.proto {
            Proto::TCP => self.tcp_flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN,
            Proto::SCTP => self.icmp_type == SCTP_INIT,
            _ => true,
        }
    }

    /// Whether it is an ICMP message of the packet's own family.
    #[inline(always)]
    pub fn is_icmp(&self) -> bool {
        is_icmp(self.family, self.proto)
    }

    /// Whether it is, with `request`, an ICMP echo request, else an echo reply.
    #[inline(always)]
    pub fn is_echo(&self, request: bool) -> bool {
        let (asks, answers) = echo_types(self.family);
        self.is_icmp() && self.icmp_type == if request { asks } else { answers }
    }

    /// Length of the packet by its IP header, in bytes.
    #[inline(always)]
    pub fn ip_len(&self) -> u32 {
        self.end - self.l3
    }
}

const SCTP_INIT: u8 = 1;

#[inline(always)]
fn is_icmp(family: u8, proto: Proto) -> bool {
    proto.0
        == if family == 4 {
            Proto::ICMP.0
        } else {
            Proto::ICMPV6.0
        }
}

/// (request, reply).
#[inline(always)]
fn echo_types(family: u8) -> (u8, u8) {
    if family == 4 {
        (icmp::V4_ECHO, icmp::V4_ECHO_REPLY)
    } else {
        (icmp::V6_ECHO, icmp::V6_ECHO_REPLY)
    }
}

/// Whether an ICMP message reports an error about another packet (RFC 1122 §3.2.2, RFC 4443 §2.1).
#[inline(always)]
fn is_error(family: u8, kind: u8) -> bool {
    if family == 4 {
        kind == icmp::V4_UNREACHABLE
            || kind == icmp::V4_SOURCE_QUENCH
            || kind == icmp::V4_TIME_EXCEEDED
            || kind == icmp::V4_PARAMETER
    } else {
        kind < icmp::V6_ECHO
    }
}

/// Parses an Ethernet frame. `packet` holds nothing of use unless the result is [`Frame::Ip`].
#[inline(always)]
pub fn parse<B: Bytes>(bytes: &B, packet: &mut Packet) -> Frame {
    let Some(ethertype) = bytes.read(12) else {
        return Frame::Malformed;
    };
    let ok = match ethertype {
        ETHERTYPE_IPV4 => parse_v4(bytes, ETH_LEN, bytes.len(), false, packet),
        ETHERTYPE_IPV6 => parse_v6(bytes, ETH_LEN, bytes.len(), false, packet),
        ETHERTYPE_ARP => return Frame::Arp,
        _ => return Frame::Other,
    };
    if ok { Frame::Ip } else { Frame::Malformed }
}

/// Parses the packet that an ICMP error quotes: its first 8 transport bytes are enough
/// (RFC 792), and its stated length is not compared with what is there.
#[inline(always)]
pub fn parse_quoted<B: Bytes>(bytes: &B, outer: &Packet, packet: &mut Packet) -> bool {
    let at = outer.l4 + 8;
    if outer.family == 4 {
        parse_v4(bytes, at, outer.end, true, packet)
    } else {
        parse_v6(bytes, at, outer.end, true, packet)
    }
}

#[inline(always)]
fn parse_v4<B: Bytes>(bytes: &B, at: u32, end: u32, quoted: bool, p: &mut Packet) -> bool {
    if at + 20 > end {
        return false;
    }
    let Some(h) = bytes.read::<20>(at) else {
        return false;
    };
    let header_len = ((h[0] & 0x0f) as u32) << 2;
    let total = u16::from_be_bytes([h[2], h[3]]) as u32;
    if h[0] >> 4 != 4 || header_len < 20 || total < header_len || at + header_len > end {
        return false;
    }
    if !quoted && at + total > end {
        return false;
    }
    p.end = if quoted { end } else { at + total };
    p.l3 = at;
    p.l4 = at + header_len;
    p.family = 4;
    p.ttl = h[8];
    p.proto = Proto(h[9]);
    p.tuple.src = Addr::from_v4([h[12], h[13], h[14], h[15]]);
    p.tuple.dst = Addr::from_v4([h[16], h[17], h[18], h[19]]);
    let fragment = u16::from_be_bytes([h[6], h[7]]);
    p.fragmented = (fragment & 0x2000 != 0) as u8;
    parse_transport(bytes, fragment & 0x1fff != 0, quoted, p)
}

/// Most extension headers of one packet; more is malformed. RFC 8200 §4.1 lists six.
pub const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

#[inline(always)]
fn parse_v6<B: Bytes>(bytes: &B, at: u32, end: u32, quoted: bool, p: &mut Packet) -> bool {
    if at + 40 > end {
        return false;
    }
    let Some(h) = bytes.read::<40>(at) else {
        return false;
    };
    if h[0] >> 4 != 6 {
        return false;
    }
    let total = 40 + u16::from_be_bytes([h[4], h[5]]) as u32;
    if !quoted && at + total > end {
        return false;
    }
    p.end = if quoted { end } else { at + total };
    p.l3 = at;
    p.family = 6;
    p.ttl = h[7];
    p.tuple.src = v6(&h, 8);
    p.tuple.dst = v6(&h, 24);
    p.fragmented = 0;
    p.proto = Proto(h[6]);
    p.l4 = at + 40;
    match skip_extensions(bytes, p) {
        Extensions::Passed => parse_transport(bytes, false, quoted, p),
        Extensions::LaterFragment => parse_transport(bytes, true, quoted, p),
        Extensions::Malformed => false,
    }
}

/// What [`skip_extensions`] met.
enum Extensions {
    /// The transport header is next.
    Passed,
    /// The packet is a fragment, and not the first.
    LaterFragment,
    /// Truncated, too many, or not to be let through.
    Malformed,
}

/// Moves `p.l4` and `p.proto` on to the transport header.
#[inline(always)]
fn skip_extensions<B: Bytes>(bytes: &B, p: &mut Packet) -> Extensions {
    for _ in 0..=MAX_EXTENSIONS {
        let this = p.proto.0;
        if !matches!(
            this,
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
        ) {
            return Extensions::Passed;
        }
        if p.l4 + 8 > p.end {
            return Extensions::Malformed;
        }
        let Some(e) = bytes.read::<8>(p.l4) else {
            return Extensions::Malformed;
        };
        p.proto = Proto(e[0]);
        let len = e[1] as u32;
        if this == FRAGMENT {
            p.fragmented = e[3] & 1;
            p.l4 += 8;
            if u16::from_be_bytes([e[2], e[3]]) & 0xfff8 != 0 {
                return Extensions::LaterFragment;
            }
        } else if this == AUTHENTICATION {
            p.l4 += (len + 2) * 4;
        } else if this == ROUTING && e[3] != 0 {
            // Segments left: the destination is not the end of the way, so policy would judge the
            // wrong address.
            return Extensions::Malformed;
        } else {
            p.l4 += (len + 1) * 8;
        }
        if p.l4 > p.end {
            return Extensions::Malformed;
        }
    }
    Extensions::Malformed
}

#[inline(always)]
fn v6(h: &[u8; 40], at: usize) -> Addr {
    Addr([
        u32::from_ne_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]),
        u32::from_ne_bytes([h[at + 4], h[at + 5], h[at + 6], h[at + 7]]),
        u32::from_ne_bytes([h[at + 8], h[at + 9], h[at + 10], h[at + 11]]),
        u32::from_ne_bytes([h[at + 12], h[at + 13], h[at + 14], h[at + 15]]),
    ])
}

#[inline(always)]
fn parse_transport<B: Bytes>(bytes: &B, later: bool, quoted: bool, p: &mut Packet) -> bool {
    p.tuple.sport = PortBe(0);
    p.tuple.dport = PortBe(0);
    p.tcp_flags = 0;
    p.icmp_type = 0;
    p.zero = 0;
    p.l4_len = 0;
    p.kind = Kind::Flow;
    if later {
        p.kind = Kind::LaterFragment;
        return true;
    }
    let icmp = is_icmp(p.family, p.proto);
    if !icmp && !matches!(p.proto, Proto::TCP | Proto::UDP | Proto::SCTP) {
        // ICMP of the other family is no protocol of this one.
        return !matches!(p.proto, Proto::ICMP | Proto::ICMPV6);
    }
    if p.l4 + 8 > p.end {
        return false;
    }
    let Some(h) = bytes.read::<8>(p.l4) else {
        return false;
    };
    p.l4_len = 8;
    if icmp {
        parse_icmp(&h, p);
        return true;
    }
    p.tuple.sport = PortBe(u16::from_ne_bytes([h[0], h[1]]));
    p.tuple.dport = PortBe(u16::from_ne_bytes([h[2], h[3]]));
    match p.proto {
        Proto::TCP if !quoted => parse_tcp(bytes, p),
        Proto::SCTP if !quoted => parse_sctp(bytes, p),
        Proto::UDP if !quoted => {
            let len = u16::from_be_bytes([h[4], h[5]]) as u32;
            len >= 8 && (p.fragmented != 0 || p.l4 + len <= p.end)
        }
        _ => true,
    }
}

#[inline(always)]
fn parse_icmp(h: &[u8; 8], p: &mut Packet) {
    p.icmp_type = h[0];
    let id = PortBe(u16::from_ne_bytes([h[4], h[5]]));
    let (request, reply) = echo_types(p.family);
    if h[0] == request {
        p.tuple.sport = id;
    } else if h[0] == reply {
        p.tuple.dport = id;
    } else if is_error(p.family, h[0]) {
        p.kind = Kind::IcmpError;
    }
}

#[inline(always)]
fn parse_tcp<B: Bytes>(bytes: &B, p: &mut Packet) -> bool {
    if p.l4 + 20 > p.end {
        return false;
    }
    let Some(h) = bytes.read::<8>(p.l4 + 8) else {
        return false;
    };
    p.l4_len = ((h[4] >> 4) as u32) << 2;
    p.tcp_flags = h[5];
    p.l4_len >= 20 && (p.fragmented != 0 || p.l4 + p.l4_len <= p.end)
}

/// The common header and the first chunk's (RFC 9260 §3).
#[inline(always)]
fn parse_sctp<B: Bytes>(bytes: &B, p: &mut Packet) -> bool {
    if p.l4 + 16 > p.end {
        return false;
    }
    let Some(h) = bytes.read::<4>(p.l4 + 12) else {
        return false;
    };
    p.l4_len = 12;
    p.icmp_type = h[0];
    true
}

#[cfg(test)]
mod tests;
