//! Where packets go.

use weir_abi::Proto;
use weir_abi::counter::Counter;
use weir_abi::policy::GroupId;

use crate::packets::*;
use crate::rig::*;

#[test]
fn a_packet_to_a_local_pod_is_delivered_with_new_macs_and_one_hop_less() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = tuple(family.a(), 4000, family.b(), 80);
            let run = node
                .run(Hook::FromA, &Packet::tcp(&t, SYN).frame())
                .delivered();
            let seen = see(&run.packet);
            assert_eq!((seen.src, seen.dst, seen.ttl), (family.a(), family.b(), 63));
            assert_eq!((seen.sport, seen.dport), (4000, 80));
            assert_eq!(seen.macs, (MAC_POD_B, MAC_HOST_B));
            assert_eq!((run.mark, run.priority), (0, 0));
        }
    });
}

#[test]
fn every_protocol_is_delivered() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = tuple(family.a(), 4000, family.b(), 80);
            for packet in [
                Packet::udp(&t, b"hello"),
                Packet::udp(&t, b""),
                Packet::sctp(&t, 1),
                Packet::echo(family, t.src, t.dst, 7, false),
                Packet::new(t.src, t.dst, Proto(47), vec![0, 0, 8, 0]),
            ] {
                let run = node.run(Hook::FromA, &packet.frame()).delivered();
                assert_eq!(see(&run.packet).ttl, 63);
            }
        }
    });
}

#[test]
fn a_packet_with_options_or_extension_headers_is_delivered_whole() {
    on_node(|node| {
        let t4 = tuple(Family::V4.a(), 4000, Family::V4.b(), 80);
        let mut packet = Packet::udp(&t4, b"hello");
        packet.options = vec![1; 8];
        let out = node.run(Hook::FromA, &packet.frame()).delivered().packet;
        assert_eq!(checksum(0, &out[14..14 + 28]), 0);
        assert_eq!(out[14 + 28..], packet.frame()[14 + 28..]);

        let t6 = tuple(Family::V6.a(), 4000, Family::V6.b(), 80);
        let mut packet = Packet::udp(&t6, b"hello");
        packet.first_extension = Some(60);
        packet.options = vec![17, 0, 1, 4, 0, 0, 0, 0];
        let out = node.run(Hook::FromA, &packet.frame()).delivered().packet;
        assert_eq!(out[14 + 8..], packet.frame()[14 + 8..]);
    });
}

#[test]
fn a_packet_to_another_nodes_pod_leaves_by_the_uplink_with_one_hop_less() {
    on_node(|node| {
        for family in Family::BOTH {
            let (cidr, len) = family.remote_cidr();
            node.node_cidr(cidr, len, node.if_uplink);
            let t = tuple(family.a(), 4000, family.remote(), 80);
            let run = node.run(Hook::FromA, &Packet::tcp(&t, SYN).frame());
            let run = run.expect(REDIRECTED, Counter::Forwarded);
            let seen = see(&run.packet);
            assert_eq!(
                (seen.src, seen.dst, seen.ttl),
                (family.a(), family.remote(), 63)
            );
        }
    });
}

#[test]
fn a_prefix_without_an_uplink_and_the_rest_of_the_world_are_the_stacks() {
    on_node(|node| {
        for family in Family::BOTH {
            let (cidr, len) = family.remote_cidr();
            node.node_cidr(cidr, len, 0);
            for dst in [family.remote(), family.world(), family.node()] {
                let packet = Packet::tcp(&tuple(family.a(), 4000, dst, 80), SYN).frame();
                let run = node.run(Hook::FromA, &packet).left_to_stack();
                assert_eq!(run.packet, packet, "the stack gets the packet as it was");
            }
        }
    });
}

#[test]
fn what_comes_by_an_uplink_for_a_pod_is_delivered() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = tuple(family.remote(), 4000, family.b(), 80);
            let packet = Packet::tcp(&t, SYN).addressed(MAC_UPLINK);
            let run = node.run(Hook::FromUplink, &packet.frame()).delivered();
            let seen = see(&run.packet);
            assert_eq!((seen.ttl, seen.macs), (63, (MAC_POD_B, MAC_HOST_B)));
        }
    });
}

#[test]
fn what_comes_by_an_uplink_for_others_is_the_stacks() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = tuple(family.remote(), 4000, family.node(), 22);
            node.run(
                Hook::FromUplink,
                &Packet::tcp(&t, SYN).addressed(MAC_UPLINK).frame(),
            )
            .left_to_stack();
            // A frame for another machine, seen by a promiscuous interface.
            let t = tuple(family.remote(), 4000, family.b(), 80);
            node.run(
                Hook::FromUplink,
                &Packet::tcp(&t, SYN).addressed([2; 6]).frame(),
            )
            .left_to_stack();
        }
        let mut arp = vec![0xff; 6];
        arp.extend([2, 0, 0, 0, 0, 1, 8, 6]);
        arp.extend([0; 46]);
        node.run(Hook::FromUplink, &arp).left_to_stack();
    });
}

#[test]
fn the_nodes_own_address_as_source_is_dropped_at_the_uplink() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = tuple(family.node(), 4000, family.b(), 80);
            node.run(
                Hook::FromUplink,
                &Packet::tcp(&t, SYN).addressed(MAC_UPLINK).frame(),
            )
            .dropped(Counter::DropOwnSource);
        }
    });
}

#[test]
fn the_last_hop_is_answered_with_time_exceeded_that_quotes_the_packet_as_sent() {
    on_node(|node| {
        for family in Family::BOTH {
            node.service(family.vip(), 80, Proto::TCP, &[(1, family.b(), 8080)]);
            for dst in [family.b(), family.vip()] {
                let t = tuple(family.a(), 4000, dst, 80);
                let packet = Packet::tcp(&t, SYN).ttl(1);
                let run = node.run(Hook::FromA, &packet.frame());
                let run = run.expect(REDIRECTED, Counter::AnsweredIcmp);
                let seen = see(&run.packet);
                assert_eq!((seen.src, seen.dst), (family.gateway(), family.a()));
                assert_eq!(seen.proto, family.icmp());
                assert_eq!(seen.l4[0], if family == Family::V4 { 11 } else { 3 });
                assert_eq!(seen.l4[8..], packet.ip()[..], "the quote");
                assert_eq!(seen.macs, (MAC_POD_A, MAC_HOST_A));
            }
            assert_eq!(node.entries(), 0, "a packet that expires opens nothing");
        }
    });
}

#[test]
fn a_packet_that_came_by_an_uplink_with_its_last_hop_is_left_to_the_stack() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = tuple(family.remote(), 4000, family.b(), 80);
            let packet = Packet::tcp(&t, SYN).addressed(MAC_UPLINK).ttl(1).frame();
            let run = node.run(Hook::FromUplink, &packet).left_to_stack();
            assert_eq!(run.packet, packet);
        }
    });
}

#[test]
fn a_packet_larger_than_the_way_is_answered_with_its_mtu() {
    on_node(|node| {
        for family in Family::BOTH {
            let mut b = node.pod_b();
            b.mtu = 1400;
            node.adopt(b);
            ip("link set weirup mtu 1400");
            let (cidr, len) = family.remote_cidr();
            node.node_cidr(cidr, len, node.if_uplink);
            for dst in [family.b(), family.remote()] {
                let t = tuple(family.a(), 4000, dst, 80);
                let fits = 1400 - family.ip_header() - 8;
                let run = node.run(Hook::FromA, &Packet::udp(&t, b"").payload(fits).frame());
                assert_eq!(run.action, REDIRECTED);
                assert_ne!(run.counted, [Counter::AnsweredIcmp]);

                let packet = Packet::udp(&t, b"").payload(fits + 1);
                let run = node.run(Hook::FromA, &packet.frame());
                let run = run.expect(REDIRECTED, Counter::AnsweredIcmp);
                let seen = see(&run.packet);
                let (kind, code) = if family == Family::V4 { (3, 4) } else { (2, 0) };
                assert_eq!((seen.l4[0], seen.l4[1]), (kind, code));
                assert_eq!(u32::from_be_bytes(seen.l4[4..8].try_into().unwrap()), 1400);
                assert_eq!(seen.l4[8..], packet.ip()[..128], "the quote");
            }
        }
    });
}

#[test]
fn a_segmented_packet_is_measured_by_its_segments() {
    on_node(|node| {
        for family in Family::BOTH {
            let mut b = node.pod_b();
            b.mtu = 1400;
            node.adopt(b);
            let t = tuple(family.a(), 4000, family.b(), 80);
            let packet = Packet::tcp(&t, ACK).payload(3000).frame();
            let headers = family.ip_header() + 20;
            for (segment, action) in [
                (1400 - headers, Counter::Delivered),
                (1401 - headers, Counter::AnsweredIcmp),
            ] {
                let run = node.run_with(Hook::FromA, &packet, |ctx| {
                    ctx[skb::GSO_SIZE] = segment as u32;
                    ctx[skb::GSO_SEGS] = 3;
                });
                run.expect(REDIRECTED, action);
            }
        }
    });
}

#[test]
fn what_the_stack_brings_a_pod_goes_on_as_it_is() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = tuple(family.world(), 4000, family.b(), 80);
            let packet = Packet::tcp(&t, SYN).frame();
            let run = node.run(Hook::ToB, &packet).left_to_stack();
            assert_eq!(run.packet, packet);
            let other = tuple(family.world(), 4000, family.a(), 80);
            node.run(Hook::ToB, &Packet::tcp(&other, SYN).frame())
                .dropped(Counter::DropNotForPod);
        }
    });
}

#[test]
fn an_interface_without_an_endpoint_lets_nothing_through() {
    on_node(|node| {
        let if_a = node.if_a;
        node.map::<u32, weir_abi::endpoint::Endpoint>("ENDPOINTS")
            .remove(&if_a)
            .unwrap();
        for family in Family::BOTH {
            let t = tuple(family.a(), 4000, family.b(), 80);
            node.run(Hook::FromA, &Packet::tcp(&t, SYN).frame())
                .dropped(Counter::DropUnknownEndpoint);
        }
    });
}

#[test]
fn an_ipv6_packet_with_an_ipv4_mapped_address_is_dropped_at_every_hook() {
    on_node(|node| {
        let mapped = {
            let mut octets = [0u8; 16];
            octets[10..].copy_from_slice(&[0xff, 0xff, 10, 1, 0, 11]);
            octets
        };
        let v6 = Family::V6;
        let t = tuple(v6.a(), 4000, v6.b(), 80);
        let frame = Packet::tcp(&t, SYN).addressed(MAC_UPLINK).frame();
        for at in [14 + 8, 14 + 24] {
            let mut frame = frame.clone();
            frame[at..at + 16].copy_from_slice(&mapped);
            for hook in [Hook::FromA, Hook::ToB, Hook::NodeToB, Hook::FromUplink] {
                node.run(hook, &frame).dropped(Counter::DropMappedV4);
            }
        }
    });
}

#[test]
fn protocols_beside_ip_and_arp_do_not_pass_a_pods_interface() {
    on_node(|node| {
        for ethertype in [[0x88, 0xcc], [0x81, 0x00], [0x88, 0x47], [0, 40]] {
            let mut frame = vec![2; 12];
            frame.extend(ethertype);
            frame.extend([0; 46]);
            node.run(Hook::FromA, &frame)
                .dropped(Counter::DropOtherProtocol);
            node.run(Hook::NodeToB, &frame)
                .dropped(Counter::DropOtherProtocol);
            node.run(Hook::FromUplink, &frame).left_to_stack();
        }
    });
}

#[test]
fn a_dry_run_judges_and_writes_nothing() {
    on_node_with(
        |loader| {
            loader.override_global("DRY_RUN", &1u8, true);
        },
        |node| {
            for family in Family::BOTH {
                node.service(family.vip(), 80, Proto::TCP, &[(1, family.b(), 8080)]);
                for dst in [family.b(), family.vip()] {
                    let run = node.run(
                        Hook::FromA,
                        &Packet::tcp(&tuple(family.a(), 1, dst, 80), SYN).frame(),
                    );
                    assert_eq!((run.action, &run.counted[..]), (REDIRECTED, &[][..]));
                    assert_eq!(see(&run.packet).dst, family.b());
                }
                node.groups(SLOT_B, GroupId::CLOSED, GroupId::OPEN);
                let run = node.run(
                    Hook::FromA,
                    &Packet::tcp(&tuple(family.a(), 1, family.b(), 80), SYN).frame(),
                );
                assert_eq!(run.action, DROPPED);
                node.groups(SLOT_B, GroupId::OPEN, GroupId::OPEN);
            }
            assert_eq!(node.entries(), 0);
        },
    );
}

#[test]
fn the_verifier_needs_two_fifths_of_its_limit_at_most() {
    on_node(|node| {
        for (name, instructions) in node.verified() {
            println!("{name}: {instructions}");
            assert!(instructions < 400_000, "{name}: {instructions}");
        }
    });
}
