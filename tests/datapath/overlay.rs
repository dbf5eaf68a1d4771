//! The overlay: what goes into it, and what may come from it. A test run's packet has no tunnel, so
//! what is let in by its tunnel is tested in the lab (`e2e::overlay`).

use weir_abi::Proto;
use weir_abi::conntrack::seen;
use weir_abi::counter::Counter;
use weir_abi::node::{NodeCidr, OVERLAY_MAC, UplinkInfo, config, node_cidr, uplink};

use crate::dry::small_maps;
use crate::masquerade::{arrives, masquerading};
use crate::packets::*;
use crate::rig::*;
use crate::services::{PROTOS, answer, ends, opening};

pub const PORT: u16 = 8472;
const BACKEND: u32 = 7;

/// The remote pods behind the overlay, and the other node's own addresses.
pub fn overlaid(node: &mut Node) {
    node.nat(61_000, 61_003);
    let info = UplinkInfo {
        addr4: Family::V4.node(),
        addr6: Family::V6.node(),
        mac: OVERLAY_MAC,
        flags: uplink::OVERLAY,
    };
    let device = node.if_overlay;
    node.map("UPLINKS").insert(device, info, 0).unwrap();
    let word = u64::from(device) | u64::from(PORT) << 32 | config::OVERLAY_IS_TOLD;
    node.config(config::OVERLAY, word);
    for family in Family::BOTH {
        let (cidr, len) = family.remote_cidr();
        let own = NodeCidr {
            node: 9,
            tunnel: family.other_node(),
            ..NodeCidr::default()
        };
        let pods = NodeCidr {
            ifindex: device,
            flags: node_cidr::OVERLAY,
            ..own
        };
        node.put_node_cidr(cidr, len, pods);
        let host = if family == Family::V4 { 32 } else { 128 };
        node.put_node_cidr(family.other_node(), host, own);
    }
}

#[test]
fn a_pods_packet_to_a_pod_behind_the_overlay_leaves_by_its_device() {
    for proto in PROTOS {
        on_node(move |node| {
            overlaid(node);
            for family in Family::BOTH {
                let there = tuple(family.a(), 4000, family.remote(), 80);
                let run = node.run(Hook::FromA, &opening(proto, &there).frame());
                let run = run.expect(REDIRECTED, Counter::Forwarded);
                assert_eq!(
                    ends(&see(&run.packet)),
                    (family.a(), 4000, family.remote(), 80)
                );
            }
        });
    }
}

#[test]
fn a_large_packet_is_measured_against_the_way_of_its_tunnel_and_answered_with_its_room() {
    on_node(|node| {
        masquerading(node);
        overlaid(node);
        // The overlay's own device has room for 1500; the way to the other node has less.
        ip("link set weirup mtu 1400");
        let told = node.array::<u64>("CONFIG").get(&config::TUNNEL_ERROR, 0);
        assert_eq!(told.unwrap(), 0);
        let outer = tuple(Family::V4.node(), 55_555, Family::V4.other_node(), PORT);
        let outer = Packet::udp(&outer, b"a pack");
        let error = |from| Packet::icmp(from, Family::V4.node(), 3, 4, [0, 0, 5, 120], &outer.ip());
        let large = |family: Family| {
            let there = tuple(family.a(), 4000, family.remote(), 80);
            Packet::udp(&there, b"").payload(1400).frame()
        };
        let run = node.run(Hook::FromA, &large(Family::V4));
        run.expect(REDIRECTED, Counter::Forwarded);
        // A router speaks of an outer packet; the kernel gets to hear it.
        arrives(node, &error(Family::V4.world())).left_to_stack();
        for (family, room) in [(Family::V4, 1350u16), (Family::V6, 1330)] {
            let there = tuple(family.a(), 4000, family.remote(), 80);
            let headers = Packet::udp(&there, b"").ip().len();
            let packet = |size: u16| Packet::udp(&there, b"").payload(usize::from(size) - headers);
            let run = node.run(Hook::FromA, &packet(room).frame());
            run.expect(REDIRECTED, Counter::Forwarded);
            let run = node.run(Hook::FromA, &packet(room + 1).frame());
            let seen = see(&run.expect(REDIRECTED, Counter::AnsweredIcmp).packet);
            assert_eq!((seen.src, seen.dst), (family.gateway(), family.a()));
            assert_eq!(seen.l4[6..8], room.to_be_bytes(), "{family:?}");
        }
    });
}

#[test]
fn the_device_gets_each_packet_with_the_macs_that_another_nodes_device_takes() {
    on_node(|node| {
        overlaid(node);
        for family in Family::BOTH {
            for to in [family.remote(), family.other_node()] {
                let packet = Packet::udp(&tuple(family.a(), 4000, to, 80), b"?").frame();
                let run = node.run(Hook::ToOverlay, &packet);
                assert_eq!((run.action, &run.counted[..]), (STACK, &[][..]), "{to:?}");
                assert_eq!(run.packet[..6], OVERLAY_MAC);
                assert_ne!(run.packet[6..12], OVERLAY_MAC);
                assert_eq!(run.packet[12..], packet[12..]);
            }
        }
    });
}

#[test]
fn what_has_been_given_its_tunnel_leaves_as_it_is_and_without_the_mark_that_says_so() {
    on_node(|node| {
        overlaid(node);
        for family in Family::BOTH {
            // With nowhere to go, if anybody looked.
            let packet = Packet::udp(&tuple(family.a(), 4000, family.world(), 80), b"?").frame();
            let marked = |ctx: &mut [u32]| ctx[skb::MARK] = 0x5700_0000;
            let run = node.run_with(Hook::ToOverlay, &packet, marked);
            assert_eq!((run.action, &run.counted[..]), (STACK, &[][..]));
            assert_eq!((run.packet, run.mark), (packet, 0));
        }
    });
}

#[test]
fn an_established_flow_to_a_node_behind_the_overlay_gets_its_tunnel_at_the_pods_edge() {
    on_node(|node| {
        overlaid(node);
        for family in Family::BOTH {
            let t = tuple(family.a(), 4000, family.remote(), 80);
            let there = Packet::udp(&t, b"?").frame();
            node.run(Hook::FromA, &there)
                .expect(REDIRECTED, Counter::Forwarded);
            // No test run brings a tunnel along: the other end's packet is taken for seen.
            node.edit_entry(&t, Proto::UDP, |entry| {
                entry.seen = seen::REPLY | seen::ESTABLISHED | seen::ASSURED;
            });
            node.establish(&t, Proto::UDP);
            let marks = (0..3).map(|_| {
                let run = node.run(Hook::FromA, &there);
                let run = run.expect(REDIRECTED, Counter::Forwarded);
                (run.mark, run.packet[..6] == OVERLAY_MAC)
            });
            // The clock may have moved on for one of them.
            assert!(marks.collect::<Vec<_>>().contains(&(0x5700_0000, true)));
        }
    });
}

#[test]
fn what_is_packed_passes_uplinks_both_ways_at_a_glance() {
    on_node(|node| {
        overlaid(node);
        for family in Family::BOTH {
            let t = tuple(family.other_node(), 40_000, family.node(), PORT);
            let packet = Packet::udp(&t, b"packed").addressed(MAC_UPLINK).frame();
            node.run(Hook::FromUplink, &packet).left_to_stack();
            let t = tuple(family.node(), 40_000, family.other_node(), PORT);
            let packet = Packet::udp(&t, b"packed").frame();
            node.run(Hook::ToUplink, &packet).left_to_stack();
            // In this node's own name nothing comes from outside.
            let packet = Packet::udp(&t, b"forged").addressed(MAC_UPLINK).frame();
            node.run(Hook::FromUplink, &packet)
                .dropped(Counter::DropOwnSource);
        }
    });
}

#[test]
fn what_goes_to_no_node_does_not_leave_by_the_overlay_and_is_counted() {
    on_node(|node| {
        overlaid(node);
        for family in Family::BOTH {
            let out = Packet::udp(&tuple(family.a(), 4000, family.world(), 80), b"?");
            let run = node.run(Hook::ToOverlay, &out.frame());
            run.dropped(Counter::DropNoTunnel);
        }
        let mut arp = Packet::udp(&tuple(Family::V4.a(), 1, Family::V4.remote(), 2), b"").frame();
        arp[12..14].copy_from_slice(&[8, 6]);
        let run = node.run(Hook::ToOverlay, &arp);
        run.dropped(Counter::DropOtherProtocol);
    });
}

#[test]
fn what_has_no_tunnel_does_not_come_in_by_the_overlays_device() {
    on_node(|node| {
        overlaid(node);
        for family in Family::BOTH {
            for (from, why) in [
                (family.remote(), Counter::DropForgedTunnel),
                (family.other_node(), Counter::DropForgedTunnel),
                (family.world(), Counter::DropForgedTunnel),
                (family.a(), Counter::DropForgedTunnel),
                (family.node(), Counter::DropOwnSource),
            ] {
                let packet = Packet::udp(&tuple(from, 4000, family.b(), 80), b"?");
                let packet = packet.addressed(OVERLAY_MAC).frame();
                node.run(Hook::FromOverlay, &packet).dropped(why);
            }
        }
        assert_eq!(node.entries(), 0);
    });
}

#[test]
fn a_dry_run_takes_the_tunnel_for_given_and_judges_what_it_brings() {
    on_node_with(small_maps, |node| {
        overlaid(node);
        let mut dry = node.dry();
        for family in Family::BOTH {
            let mut counter = |from| {
                let packet = Packet::udp(&tuple(from, 4000, family.b(), 80), b"?");
                let frame = packet.addressed(OVERLAY_MAC).frame();
                let ran = dry.run(node, Hook::FromOverlay, &frame);
                Counter::of(ran.report.counter).unwrap()
            };
            assert_eq!(counter(family.remote()), Counter::Delivered);
            assert_eq!(counter(family.other_node()), Counter::Delivered);
            assert_eq!(counter(family.world()), Counter::DropForgedTunnel);
        }
    });
}

#[test]
fn a_bare_packet_from_a_pod_behind_the_overlay_does_not_come_in_by_an_uplink() {
    on_node(|node| {
        overlaid(node);
        for family in Family::BOTH {
            for to in [family.b(), family.node()] {
                let packet = Packet::udp(&tuple(family.remote(), 4000, to, 80), b"?");
                let packet = packet.addressed(MAC_UPLINK).frame();
                let run = node.run(Hook::FromUplink, &packet);
                run.dropped(Counter::DropForgedTunnel);
            }
        }
    });
}

#[test]
fn the_nodes_own_tunnels_pass_its_uplink_unseen() {
    on_node(|node| {
        overlaid(node);
        for family in Family::BOTH {
            let out = tuple(family.node(), 4000, family.other_node(), PORT);
            let run = node.run(Hook::ToUplink, &Packet::udp(&out, b"?").frame());
            run.left_to_stack();
            let back = tuple(family.other_node(), 4000, family.node(), PORT);
            let packet = Packet::udp(&back, b"?").addressed(MAC_UPLINK);
            node.run(Hook::FromUplink, &packet.frame()).left_to_stack();
        }
        assert_eq!(node.entries(), 0);
    });
}

#[test]
fn a_pod_reaches_no_nodes_overlay_port_not_even_through_a_service() {
    on_node(|node| {
        overlaid(node);
        for family in Family::BOTH {
            let (vip, far) = (family.vip(), family.other_node());
            node.service(vip, 53, Proto::UDP, &[(BACKEND, far, PORT)]);
            for (to, port) in [(far, PORT), (family.node(), PORT), (vip, 53)] {
                let packet = Packet::udp(&tuple(family.a(), 4000, to, port), b"?");
                let run = node.run(Hook::FromA, &packet.frame());
                run.dropped(Counter::DropForgedTunnel);
            }
            // The port itself is a pod's to use.
            let pods = Packet::udp(&tuple(family.a(), 4000, family.b(), PORT), b"?");
            node.run(Hook::FromA, &pods.frame()).delivered();
        }
    });
}

#[test]
fn nobody_outside_reaches_a_nodes_overlay_port_with_this_nodes_source() {
    on_node(|node| {
        overlaid(node);
        let uplink = node.if_uplink;
        for family in Family::BOTH {
            let v4 = family == Family::V4;
            // Behind an uplink of its own, so that there is a way.
            let far = family.world();
            node.node_cidr(far, if v4 { 32 } else { 128 }, uplink);
            node.node_port(v4, 30_080, Proto::UDP, &[(BACKEND, far, PORT)]);
            let there = tuple(family.gateway(), 4000, family.node(), 30_080);
            let packet = Packet::udp(&there, b"?").addressed(MAC_UPLINK);
            let run = node.run(Hook::FromUplink, &packet.frame());
            run.dropped(Counter::DropForgedTunnel);
        }
        assert_eq!(node.entries(), 0);
    });
}

#[test]
fn a_node_port_to_a_backend_behind_the_overlay_goes_there_from_the_nodes_address() {
    for proto in [Proto::TCP, Proto::UDP] {
        on_node(move |node| {
            overlaid(node);
            for family in Family::BOTH {
                let (world, host, far) = (family.world(), family.node(), family.remote());
                node.node_port(family == Family::V4, 30_080, proto, &[(BACKEND, far, 80)]);
                let there = tuple(world, 4000, host, 30_080);
                let packet = opening(proto, &there).addressed(MAC_UPLINK);
                let run = node.run(Hook::FromUplink, &packet.frame());
                let run = run.expect(REDIRECTED, Counter::Forwarded);
                let (source, port, to, to_port) = ends(&see(&run.packet));
                assert_eq!((source, to, to_port), (host, far, 80));
                assert!((61_000..=61_003).contains(&port), "{port}");
            }
        });
    }
}

#[test]
fn a_pod_answers_another_node_by_the_overlay() {
    for proto in PROTOS {
        on_node(move |node| {
            overlaid(node);
            for family in Family::BOTH {
                // The answer to what came by the uplink before the overlay was there, as well.
                let (pod, far) = (family.b(), family.other_node());
                let there = opening(proto, &tuple(far, 4000, pod, 80)).addressed(MAC_UPLINK);
                node.run(Hook::FromUplink, &there.frame()).delivered();
                let back = answer(proto, &tuple(pod, 80, far, 4000)).addressed(MAC_HOST_B);
                let run = node.run(Hook::FromB, &back.frame());
                run.expect(REDIRECTED, Counter::Forwarded);
            }
        });
    }
}

#[test]
fn another_node_is_not_told_that_the_overlay_has_less_room() {
    on_node(|node| {
        overlaid(node);
        ip("link set weirov mtu 1450");
        for family in Family::BOTH {
            let (host, far) = (family.node(), family.remote());
            node.node_port(
                family == Family::V4,
                30_080,
                Proto::UDP,
                &[(BACKEND, far, 80)],
            );
            let from = |src| {
                let t = tuple(src, 4000, host, 30_080);
                let payload = [7; 1472];
                let packet = Packet::udp(&t, &payload[..1500 - family.ip_header() - 8]);
                packet.addressed(MAC_UPLINK).frame()
            };
            // Its way to this node is that of its tunnels.
            node.run(Hook::FromUplink, &from(family.other_node()))
                .expect(REDIRECTED, Counter::Forwarded);
            let run = node.run(Hook::FromUplink, &from(family.world()));
            let told = see(&run.packet);
            assert_eq!((told.src, told.dst), (host, family.world()));
        }
    });
}
