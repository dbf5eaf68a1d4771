//! Parsing: from a frame's bytes to what the rest decides on. Pure.
//!
//! Every read is checked against the length that the IP header states, not only against the
//! frame's: what pads a short Ethernet frame is not part of the packet.

mod numbers;
mod transport;

use weir_abi::conntrack::Tuple;
use weir_abi::{Addr, Proto};

pub use numbers::{icmp, tcp};
use transport::parse_transport;

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
    /// The datagram's identification, host order; without a fragment header (IPv6) meaningless.
    pub fragment_id: u32,
    /// Where in the datagram the fragment's bytes begin.
    pub fragment_offset: u32,
    /// Offset in the frame of the datagram's bytes that [`Packet::fragment_offset`] counts; in IPv6
    /// 0 without a fragment header.
    pub fragment_start: u32,
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
    /// 1 if more fragments follow.
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

    /// Whether it is the first fragment of several: it alone says what the datagram is.
    #[inline(always)]
    pub fn is_first_fragment(&self) -> bool {
        self.fragmented != 0 && self.kind as u8 != Kind::LaterFragment as u8
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
    p.fragment_id = u16::from_be_bytes([h[4], h[5]]) as u32;
    p.fragment_offset = ((fragment & 0x1fff) as u32) << 3;
    p.fragment_start = p.l4;
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
    p.fragment_id = 0;
    p.fragment_offset = 0;
    p.fragment_start = 0;
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
            if p.fragment_start != 0 {
                // Of a fragment's fragment, one header would say the first and the other a later one.
                return Extensions::Malformed;
            }
            p.fragmented = e[3] & 1;
            p.fragment_id = u32::from_be_bytes([e[4], e[5], e[6], e[7]]);
            p.fragment_offset = (u16::from_be_bytes([e[2], e[3]]) & 0xfff8) as u32;
            p.l4 += 8;
            p.fragment_start = p.l4;
            if p.fragment_offset != 0 {
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

#[cfg(test)]
mod tests;
