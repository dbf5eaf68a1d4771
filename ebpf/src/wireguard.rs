//! WireGuard's device, which carries bare IP packets: the Ethernet header that all else here expects,
//! and what must not go out. Kernel only.
//!
//! For the rest it is the overlay's device ([`crate::overlay`]): nodes' pods are behind it, nothing
//! bare is believed from there, and its UDP port is closed to pods.

use aya_ebpf::programs::TcContext;
use weir_abi::counter::Counter;
use weir_abi::node::node_cidr;
use weir_abi::Addr;

use crate::neighbour::is_group;
use crate::outcome::Outcome;
use crate::packet::{Bytes, ETH_LEN};
use crate::skb::{Failed, Skb};
use crate::{dry_run, maps};

/// Gives a packet that the device has unpacked an Ethernet header. It has no addresses: redirects write
/// theirs, and the stack takes it off again. A dry run is given whole frames.
#[inline(always)]
pub fn unpacked(skb: Skb) -> Result<(), Failed> {
    if dry_run::is_on() {
        return Ok(());
    }
    skb.push_header(ETH_LEN)?;
    skb.store(ETH_LEN - 2, &(skb.protocol() as u16).to_ne_bytes())
}

/// Egress of the device, before anything is encrypted: packets begin with their IP header.
#[inline(always)]
pub fn send(ctx: &TcContext) -> Outcome {
    let skb = Skb::new(ctx.skb.skb);
    let Some(dst) = destination(skb) else {
        return Outcome::drop(Counter::DropOtherProtocol);
    };
    let Some(owner) = maps::owner(&dst) else {
        // The device's own multicast reports and the like are no loss.
        return Outcome::drop(if is_group(&dst) {
            Counter::IgnoredNoise
        } else {
            Counter::DropNoTunnel
        });
    };
    if owner.flags & node_cidr::SEALED != 0 {
        return Outcome::drop(Counter::DropNoKey);
    }
    if owner.tunnel.is_none() {
        return Outcome::drop(Counter::DropNoTunnel);
    }
    Outcome::Stack
}

/// Where a packet goes; `None` if it is no IP.
#[inline(always)]
fn destination(skb: Skb) -> Option<Addr> {
    match (skb.protocol() as u16).to_ne_bytes() {
        [0x08, 0x00] => Some(Addr::from_v4(skb.read(16)?)),
        [0x86, 0xdd] => Some(Addr::from_v6(skb.read(24)?)),
        _ => None,
    }
}
