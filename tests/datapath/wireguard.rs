//! WireGuard's device: what does not go out by it. What comes in by it has no Ethernet header, which a
//! test run cannot do without: that is tested with the device itself (`cargo xtask vm-test`).

use weir_abi::Addr;
use weir_abi::counter::Counter;
use weir_abi::node::{NodeCidr, node_cidr};

use crate::overlay::overlaid;
use crate::packets::*;
use crate::rig::*;

/// A packet without its Ethernet header. A test run takes the EtherType from bytes 12 and 13, which are the
/// source's here: nobody asks for it at this hook.
fn bare(family: Family, to: Addr) -> Vec<u8> {
    let frame = Packet::udp(&tuple(family.a(), 4000, to, 80), &[b'?'; 32]).frame();
    let mut packet = frame[14..].to_vec();
    packet[12..14].copy_from_slice(&frame[12..14]);
    packet
}

#[test]
fn what_goes_to_a_node_with_a_key_is_left_to_the_device_as_it_is() {
    on_node(|node| {
        overlaid(node);
        for family in Family::BOTH {
            for to in [family.remote(), family.other_node()] {
                let packet = bare(family, to);
                let run = node.run(Hook::ToWireguard, &packet);
                assert_eq!((run.action, &run.counted[..]), (STACK, &[][..]), "{to:?}");
                assert_eq!(run.packet, packet);
            }
        }
    });
}

#[test]
fn nothing_goes_to_pods_of_a_node_without_a_key_nor_to_no_node_and_both_are_counted() {
    on_node(|node| {
        overlaid(node);
        for family in Family::BOTH {
            let run = node.run(Hook::ToWireguard, &bare(family, family.world()));
            run.dropped(Counter::DropNoTunnel);
            let (cidr, len) = family.remote_cidr();
            let sealed = NodeCidr {
                node: 9,
                ifindex: node.if_overlay,
                flags: node_cidr::OVERLAY | node_cidr::SEALED,
                tunnel: family.other_node(),
                ..NodeCidr::default()
            };
            node.put_node_cidr(cidr, len, sealed);
            let run = node.run(Hook::ToWireguard, &bare(family, family.remote()));
            run.dropped(Counter::DropNoKey);
        }
    });
}
