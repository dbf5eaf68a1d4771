//! Who may have sent a packet. Kernel only.

use weir_abi::Addr;
use weir_abi::counter::Counter;
use weir_abi::endpoint::Endpoint;

use crate::maps;
use crate::neighbour::{is_group, is_link_local};
use crate::packet::{Packet, icmp};

/// An IPv6 packet with an IPv4-mapped address would pass for the IPv4 one in every map.
#[inline(always)]
pub fn aliases_v4(p: &Packet) -> bool {
    p.family == 6 && (p.tuple.src.is_v4() || p.tuple.dst.is_v4())
}

/// Whether a pod may send this packet; if not, what it is counted as.
#[inline(always)]
pub fn from_pod(p: &Packet, pod: &Endpoint) -> Result<(), Counter> {
    if is_loopback(&p.tuple.dst) {
        // It must not leave a host (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3); a node with
        // `route_localnet` would take it for its own (CVE-2020-8558).
        return Err(Counter::DropMalformed);
    }
    let own = if p.family == 4 { pod.addr4 } else { pod.addr6 };
    if p.tuple.src == own && !own.is_none() {
        return forbidden_icmp(p);
    }
    if p.family == 6 && unaddressed(&p.tuple.src) {
        // A pod's kernel speaks from its link-local address, or from none, about its link.
        if p.is_icmp() && is_about_link(p.icmp_type) {
            return Ok(());
        }
        if is_group(&p.tuple.dst) {
            return Err(Counter::IgnoredNoise);
        }
    }
    Err(Counter::DropSpoofed)
}

/// Whether a source is that of a pod of this node, and the packet has not come by the pod's own
/// interface: somebody outside speaks in the pod's name. To the pod itself, too, whose packets to
/// itself no policy judges.
#[inline(always)]
pub fn is_anothers(src: &Addr, ifindex: u32) -> bool {
    let owner = maps::local_ifindex(src);
    owner != 0 && owner != ifindex
}

/// Whether the address is of the loopback: `127.0.0.0/8` or `::1`.
#[inline(always)]
pub fn is_loopback(addr: &Addr) -> bool {
    if addr.is_v4() {
        let [first, ..] = addr.v4_word().to_ne_bytes();
        return first == 127;
    }
    addr.0[0] == 0
        && addr.0[1] == 0
        && addr.0[2] == 0
        && addr.0[3] == u32::from_ne_bytes([0, 0, 0, 1])
}

#[inline(always)]
fn unaddressed(src: &Addr) -> bool {
    src.is_none() || is_link_local(src)
}

#[inline(always)]
fn is_about_link(kind: u8) -> bool {
    (icmp::V6_MLD_FIRST..=icmp::V6_REDIRECT).contains(&kind) || kind == icmp::V6_MLD2_REPORT
}

/// A pod is no router (its ICMPv6 counterparts are `crate::neighbour`'s).
#[inline(always)]
fn forbidden_icmp(p: &Packet) -> Result<(), Counter> {
    let forbidden = p.family == 4
        && p.is_icmp()
        && (p.icmp_type == icmp::V4_REDIRECT || p.icmp_type == icmp::V4_ROUTER_ADVERTISEMENT);
    if forbidden {
        Err(Counter::DropForbiddenIcmp)
    } else {
        Ok(())
    }
}
