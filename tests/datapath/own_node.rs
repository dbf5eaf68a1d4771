//! The node's own traffic to its pods, and what only looks like it.

use weir_abi::counter::Counter;
use weir_abi::policy::GroupId;

use crate::packets::*;
use crate::rig::*;

/// A group without rows.
const G: GroupId = GroupId(20);

#[test]
fn the_nodes_own_traffic_passes_and_so_do_its_replies() {
    on_node(|node| {
        for family in Family::BOTH {
            node.groups(SLOT_B, G, G);
            let t = tuple(family.node(), 4000, family.b(), 80);
            node.run(Hook::NodeToB, &Packet::tcp(&t, SYN).frame())
                .left_to_stack();
            node.run(Hook::FromB, &Packet::tcp(&t.reversed(), SYN | ACK).frame())
                .left_to_stack();
            node.run(Hook::NodeToB, &Packet::tcp(&t, ACK).frame())
                .left_to_stack();
            node.bump(SLOT_B);
            node.run(Hook::FromB, &Packet::tcp(&t.reversed(), ACK).frame())
                .left_to_stack();
            // The pod's own connection to the node is the pod's.
            let own = tuple(family.b(), 5000, family.node(), 10250);
            node.run(Hook::FromB, &Packet::tcp(&own, SYN).frame())
                .dropped(Counter::DropNoRow);
        }
    });
}

#[test]
fn a_forwarded_packet_with_the_nodes_address_is_not_the_nodes_own() {
    on_node(|node| {
        for family in Family::BOTH {
            node.groups(SLOT_B, G, G);
            let t = tuple(family.node(), 4000, family.b(), 80);
            node.run(Hook::ToB, &Packet::tcp(&t, SYN).frame())
                .dropped(Counter::DropNoRow);
            // Not even on the node's own connection.
            node.run(Hook::NodeToB, &Packet::tcp(&t, SYN).frame())
                .left_to_stack();
            node.run(Hook::ToB, &Packet::tcp(&t, ACK).frame())
                .dropped(Counter::DropNoRow);
            node.run(Hook::NodeToB, &Packet::tcp(&t, ACK).frame())
                .left_to_stack();
        }
    });
}

#[test]
fn what_the_host_sends_from_a_foreign_address_is_judged() {
    on_node(|node| {
        for family in Family::BOTH {
            node.groups(SLOT_B, G, GroupId::OPEN);
            let t = tuple(family.world(), 4000, family.b(), 80);
            node.run(Hook::NodeToB, &Packet::tcp(&t, SYN).frame())
                .dropped(Counter::DropNoRow);
        }
    });
}
