//! The node's own packets to Services that no socket hook has translated.

use weir_abi::Proto;
use weir_abi::conntrack::flags;
use weir_abi::counter::Counter;
use weir_abi::policy::GroupId;

use crate::packets::*;
use crate::rig::*;
use crate::services::{PROTOS, answer, ends, opening};

const BACKEND: u32 = 7;

#[test]
fn the_nodes_packet_to_a_service_is_delivered_unjudged_and_the_reply_comes_from_the_service() {
    for proto in PROTOS {
        on_node(move |node| {
            node.groups(SLOT_B, GroupId::CLOSED, GroupId::CLOSED);
            for family in Family::BOTH {
                let (host, b, vip) = (family.node(), family.b(), family.vip());
                node.service(vip, 80, proto, &[(BACKEND, b, 8080)]);
                let there = tuple(host, 4000, vip, 80);
                let run = node.run(Hook::ToUplink, &opening(proto, &there).frame());
                let seen = see(&run.delivered().packet);
                assert_eq!(ends(&seen), (host, 4000, b, 8080));
                assert_eq!((seen.macs, seen.ttl), ((MAC_POD_B, MAC_HOST_B), 64));
                let (_, entry) = node.entry(&there, proto).unwrap();
                assert_eq!(entry.flags & flags::HOST_LOCAL, flags::HOST_LOCAL);
                // It passes the pod's own hook on its way.
                let on_way = opening(proto, &tuple(host, 4000, b, 8080));
                node.run(Hook::NodeToB, &on_way.frame()).left_to_stack();
                let back = answer(proto, &tuple(b, 8080, host, 4000)).addressed(MAC_HOST_B);
                // Into the stack by the loopback device, whose address is zero: on the pod's, which has
                // no address, reverse path filtering drops such a source.
                let run = node.run(Hook::FromB, &back.frame());
                let run = run.expect(REDIRECTED, Counter::ToStack);
                assert_eq!(ends(&see(&run.packet)), (vip, 80, host, 4000));
                assert_eq!(run.packet[..12], [0; 12]);
            }
        });
    }
}

#[test]
fn the_nodes_packet_to_a_backend_elsewhere_leaves_by_its_uplink_and_the_reply_is_met_there() {
    on_node(|node| {
        node.nat(61_000, 61_003);
        for family in Family::BOTH {
            let (host, far, vip) = (family.node(), family.remote(), family.vip());
            let (cidr, len) = family.remote_cidr();
            let uplink = node.if_uplink;
            node.node_cidr(cidr, len, uplink);
            node.service(vip, 80, Proto::TCP, &[(BACKEND, far, 8080)]);
            let syn = Packet::tcp(&tuple(host, 4000, vip, 80), SYN).frame();
            let run = node.run(Hook::ToUplink, &syn);
            let run = run.expect(REDIRECTED, Counter::Forwarded);
            assert_eq!(ends(&see(&run.packet)), (host, 4000, far, 8080));
            // The redirect brings it to this hook again.
            let again = node.run(Hook::ToUplink, &run.packet).left_to_stack();
            assert_eq!(again.packet, run.packet);
            let back = Packet::tcp(&tuple(far, 8080, host, 4000), SYN | ACK);
            let run = node.run(Hook::FromUplink, &back.addressed(MAC_UPLINK).frame());
            let seen = see(&run.left_to_stack().packet);
            assert_eq!(ends(&seen), (vip, 80, host, 4000));
        }
    });
}

#[test]
fn the_nodes_packet_to_a_service_without_backends_is_refused_into_its_stack() {
    on_node(|node| {
        for family in Family::BOTH {
            let (host, vip) = (family.node(), family.vip());
            node.service(vip, 80, Proto::TCP, &[]);
            let syn = Packet::tcp(&tuple(host, 4000, vip, 80), SYN).frame();
            let run = node.run(Hook::ToUplink, &syn);
            let run = run.expect(REDIRECTED, Counter::RefusedNoEndpoint);
            let seen = see(&run.packet);
            assert_eq!(ends(&seen), (vip, 80, host, 4000));
            assert_eq!(seen.macs, ([2, 0, 0, 0, 0, 0xee], MAC_HOST_A));
        }
    });
}

#[test]
fn the_nodes_other_packets_go_on_as_they_are() {
    on_node(|node| {
        for family in Family::BOTH {
            node.service(family.vip(), 80, Proto::TCP, &[(BACKEND, family.b(), 8080)]);
            for packet in [
                Packet::tcp(&tuple(family.node(), 4000, family.world(), 443), SYN),
                Packet::tcp(&tuple(family.world(), 4000, family.vip(), 80), SYN),
                Packet::echo(family, family.node(), family.world(), 7, false),
            ] {
                let frame = packet.frame();
                let run = node.run(Hook::ToUplink, &frame).left_to_stack();
                assert_eq!(run.packet, frame);
            }
            assert_eq!(node.entries(), 0);
        }
    });
}
