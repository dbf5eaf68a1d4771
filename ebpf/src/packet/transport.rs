//! The transport header: ports, flags, types.

use weir_abi::{PortBe, Proto};

use super::{Bytes, Kind, Packet, echo_types, is_error, is_icmp};

/// Least length of TCP's header.
const TCP_HEADER: u32 = 20;

/// Reads the transport header at `p.l4`, or of a `later` fragment notes that it has none. Whether it can
/// be let through.
#[inline(always)]
pub fn parse_transport<B: Bytes>(bytes: &B, later: bool, quoted: bool, p: &mut Packet) -> bool {
    p.tuple.sport = PortBe(0);
    p.tuple.dport = PortBe(0);
    p.tcp_flags = 0;
    p.icmp_type = 0;
    p.zero = 0;
    p.l4_len = 0;
    p.kind = Kind::Flow;
    if later {
        p.kind = Kind::LaterFragment;
        // One that would lie over TCP's header, which the first has been judged by (RFC 1858 §3.2.2).
        return p.proto.0 != Proto::TCP.0 || p.fragment_offset >= TCP_HEADER;
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
    if p.l4 + TCP_HEADER > p.end {
        return false;
    }
    let Some(h) = bytes.read::<8>(p.l4 + 8) else {
        return false;
    };
    p.l4_len = ((h[4] >> 4) as u32) << 2;
    p.tcp_flags = h[5];
    p.l4_len >= TCP_HEADER && (p.fragmented != 0 || p.l4 + p.l4_len <= p.end)
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
