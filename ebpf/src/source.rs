//! Who may have sent a packet. Kernel only.

use weir_abi::Addr;
use weir_abi::counter::Counter;
use weir_abi::endpoint::Endpoint;

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
