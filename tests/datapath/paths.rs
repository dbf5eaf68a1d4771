//! Where packets go.

use weir_abi::counter::Counter;

use crate::packets::*;
use crate::rig::*;

#[test]
fn a_packet_to_a_local_pod_is_delivered_with_new_macs_and_one_hop_less() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = tuple(family.a(), 4000, family.b(), 80);
            let run = node.run(Hook::FromA, &Packet::tcp(&t, SYN).frame()).delivered();
            let seen = see(&run.packet);
            assert_eq!((seen.src, seen.dst, seen.ttl), (family.a(), family.b(), 63));
            assert_eq!((seen.sport, seen.dport), (4000, 80));
            assert_eq!(seen.macs, (MAC_POD_B, MAC_HOST_B));
            assert_eq!((run.mark, run.priority), (0, 0));
        }
    });
}

#[test]
fn the_verifier_needs_a_tenth_of_its_limit_at_most() {
    on_node(|node| {
        for (name, instructions) in node.verified() {
            assert!(instructions < 100_000, "{name}: {instructions}");
        }
    });
}
