//! Packets of those outside to a Service with a backend on this node, or without any.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_abi::Proto;
use weir_abi::conntrack::{flags, seen};
use weir_abi::counter::Counter;
use weir_abi::policy::GroupId;
use weir_abi::service::{RangeKey, Service, frontend, scope};

use crate::packets::*;
use crate::rig::*;
use crate::services::{PROTOS, answer, ends, opening};
use crate::tables::node_wide;

const BACKEND: u32 = 7;
const PORT: u16 = 30_080;

/// From outside to the NodePort.
fn there(family: Family, sport: u16) -> weir_abi::conntrack::Tuple {
    tuple(family.world(), sport, family.node(), PORT)
}

fn arrives(node: &mut Node, packet: &Packet) -> Run {
    node.run(
        Hook::FromUplink,
        &packet.clone().addressed(MAC_UPLINK).frame(),
    )
}

#[test]
fn a_node_port_with_a_local_backend_keeps_the_clients_address_and_answers_by_the_uplink() {
    for proto in PROTOS {
        on_node(move |node| {
            for family in Family::BOTH {
                let (b, world, host) = (family.b(), family.world(), family.node());
                node.node_port(family == Family::V4, PORT, proto, &[(BACKEND, b, 8080)]);
                let run = arrives(node, &opening(proto, &there(family, 4000))).delivered();
                let seen = see(&run.packet);
                assert_eq!(ends(&seen), (world, 4000, b, 8080));
                assert_eq!((seen.ttl, seen.macs), (63, (MAC_POD_B, MAC_HOST_B)));
                let (_, entry) = node.entry(&there(family, 4000), proto).unwrap();
                assert_eq!(entry.uplink, node.if_uplink);
                let back = answer(proto, &tuple(b, 8080, world, 4000)).addressed(MAC_HOST_B);
                let run = node.run(Hook::FromB, &back.frame());
                let run = run.expect(REDIRECTED, Counter::Forwarded);
                assert_eq!(ends(&see(&run.packet)), (host, PORT, world, 4000));
                assert_eq!(see(&run.packet).ttl, 63);
            }
        });
    }
}

#[test]
fn policy_judges_the_clients_own_address_at_a_node_port() {
    on_node(|node| {
        for family in Family::BOTH {
            let v4 = family == Family::V4;
            node.node_port(v4, PORT, Proto::TCP, &[(BACKEND, family.b(), 8080)]);
            let syn = Packet::tcp(&there(family, 4000), SYN);
            node.groups(SLOT_B, GroupId(20), GroupId::OPEN);
            arrives(node, &syn).dropped(Counter::DropNoRow);
            assert_eq!(node.entries(), 0);
            node.peer(family.world(), 7);
            let allow = weir_abi::policy::RuleVerdict::allow(weir_abi::policy::RuleId(100));
            node.inline_row(GroupId(20), 7, allow);
            arrives(node, &syn).delivered();
            node.map::<weir_abi::conntrack::CtKey, weir_abi::conntrack::CtEntry>("CT_NEW")
                .keys()
                .collect::<Result<Vec<_>, _>>()
                .unwrap()
                .iter()
                .for_each(|key| {
                    node.map::<weir_abi::conntrack::CtKey, weir_abi::conntrack::CtEntry>("CT_NEW")
                        .remove(key)
                        .unwrap();
                });
        }
    });
}

#[test]
fn what_is_no_node_port_of_the_node_is_the_stacks() {
    on_node(|node| {
        for family in Family::BOTH {
            let v4 = family == Family::V4;
            node.node_port(v4, PORT, Proto::TCP, &[(BACKEND, family.b(), 8080)]);
            let ssh = tuple(family.world(), 4000, family.node(), 22);
            for packet in [
                Packet::tcp(&ssh, SYN),
                Packet::tcp(&ssh, ACK),
                Packet::udp(&there(family, 4000), b"?"),
                Packet::echo(family, family.world(), family.node(), 7, false),
            ] {
                let packet = packet.addressed(MAC_UPLINK).frame();
                let run = node.run(Hook::FromUplink, &packet).left_to_stack();
                assert_eq!(run.packet, packet);
            }
            assert_eq!(node.entries(), 0);
        }
    });
}

#[test]
fn a_frontend_at_the_nodes_loopback_is_not_served_to_those_outside() {
    on_node(|node| {
        for family in Family::BOTH {
            let localhost: IpAddr = match family {
                Family::V4 => Ipv4Addr::LOCALHOST.into(),
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
            };
            let localhost = localhost.into();
            node.service(localhost, 80, Proto::TCP, &[(BACKEND, family.b(), 8080)]);
            let syn = Packet::tcp(&tuple(family.world(), 4000, localhost, 80), SYN);
            arrives(node, &syn).left_to_stack();
            assert_eq!(node.entries(), 0);
        }
    });
}

#[test]
fn an_external_address_is_served_and_its_other_ports_are_the_stacks() {
    on_node(|node| {
        for family in Family::BOTH {
            let (vip, b) = (family.vip(), family.b());
            node.service(vip, 80, Proto::TCP, &[(BACKEND, b, 8080)]);
            let marker = weir_abi::service::ServiceKey::marker(vip);
            node.map("SERVICES")
                .insert(marker, Service::default(), 0)
                .unwrap();
            let to = |port| Packet::tcp(&tuple(family.world(), 4000, vip, port), SYN);
            let run = arrives(node, &to(80)).delivered();
            assert_eq!(ends(&see(&run.packet)), (family.world(), 4000, b, 8080));
            arrives(node, &to(81)).left_to_stack();
        }
    });
}

#[test]
fn a_connection_met_midway_is_given_to_the_backend_that_every_node_chooses() {
    on_node(|node| {
        for family in Family::BOTH {
            let b = family.b();
            let backends = [(7, b, 8080), (8, b, 8081), (9, b, 8082)];
            node.node_port(family == Family::V4, PORT, Proto::TCP, &backends);
            for sport in 4000..4020 {
                let t = there(family, sport);
                let run = arrives(node, &Packet::tcp(&t, ACK)).delivered();
                let chosen = see(&run.packet).dport;
                let (_, entry) = node.entry(&t, Proto::TCP).unwrap();
                assert_eq!(entry.seen & seen::MIDSTREAM, seen::MIDSTREAM);
                assert_eq!(entry.flags & flags::SNAT, 0);
                node.map::<weir_abi::conntrack::CtKey, weir_abi::conntrack::CtEntry>("CT_NEW")
                    .remove(&weir_abi::conntrack::CtKey::sorted(&t, Proto::TCP).0)
                    .unwrap();
                let twin = tuple(t.src, sport, b, chosen);
                node.map::<weir_abi::conntrack::CtKey, weir_abi::conntrack::CtEntry>("CT_NEW")
                    .remove(&weir_abi::conntrack::CtKey::sorted(&twin, Proto::TCP).0)
                    .unwrap();
                let run = arrives(node, &Packet::tcp(&t, SYN)).delivered();
                assert_eq!(see(&run.packet).dport, chosen);
            }
            // What opens and continues nothing.
            for flags in [RST, SYN | ACK] {
                let t = there(family, 5000);
                let run = arrives(node, &Packet::tcp(&t, flags));
                assert_eq!(run.counted, [Counter::RefusedNoEndpoint]);
                assert!(node.entry(&t, Proto::TCP).is_none());
            }
        }
    });
}

#[test]
fn a_node_port_without_backends_is_refused_out_of_the_uplink_from_its_own_address() {
    on_node(|node| {
        for family in Family::BOTH {
            let v4 = family == Family::V4;
            for proto in [Proto::TCP, Proto::UDP] {
                node.node_port(v4, PORT, proto, &[]);
                let question = opening(proto, &there(family, 4000));
                let run = arrives(node, &question);
                let run = run.expect(REDIRECTED, Counter::RefusedNoEndpoint);
                let seen = see(&run.packet);
                assert_eq!((seen.src, seen.dst), (family.node(), family.world()));
                assert_eq!(seen.macs, ([2, 0, 0, 0, 0, 0xee], MAC_UPLINK));
                if proto == Proto::TCP {
                    assert_eq!((seen.sport, seen.dport), (PORT, 4000));
                    assert_eq!(seen.l4[13], RST | ACK);
                } else {
                    let kind = if v4 { [3, 3] } else { [1, 4] };
                    assert_eq!(seen.l4[..2], kind);
                    assert_eq!(seen.l4[8..], question.ip()[..]);
                }
            }
        }
    });
}

#[test]
fn icmp_errors_to_those_outside_are_limited_and_resets_are_not() {
    on_node(|node| {
        node.node_port(true, PORT, Proto::UDP, &[]);
        node.node_port(true, PORT, Proto::TCP, &[]);
        let t = there(Family::V4, 4000);
        let udp = Packet::udp(&t, b"?").addressed(MAC_UPLINK).frame();
        let limited = (0..50_000).any(|_| {
            let run = node.run(Hook::FromUplink, &udp);
            run.counted == [Counter::DropRateLimited]
        });
        assert!(limited);
        arrives(node, &Packet::tcp(&t, SYN)).expect(REDIRECTED, Counter::RefusedNoEndpoint);
    });
}

#[test]
fn local_traffic_policy_without_a_local_backend_drops_in_silence_and_serves_the_nodes_own_pods() {
    on_node(|node| {
        for family in Family::BOTH {
            let v4 = family == Family::V4;
            node.node_port(v4, PORT, Proto::TCP, &[]);
            let value = |flags| Service {
                flags,
                ..Service::default()
            };
            let key = |scope| node_wide(v4, PORT, Proto::TCP, scope);
            let everyone = value(frontend::OUTSIDE_OWN);
            node.frontend(
                key(scope::EVERYONE),
                everyone,
                &[(BACKEND, family.b(), 8080)],
            );
            node.frontend(key(scope::OUTSIDE), value(frontend::SILENT), &[]);
            arrives(node, &Packet::tcp(&there(family, 4000), SYN))
                .dropped(Counter::DropNoLocalBackend);
            let own = tuple(family.a(), 4000, family.node(), PORT);
            let run = node.run(Hook::FromA, &Packet::tcp(&own, SYN).frame());
            assert_eq!(see(&run.delivered().packet).dst, family.b());
        }
    });
}

#[test]
fn who_is_in_none_of_the_source_ranges_is_dropped_outside_and_in_pods() {
    on_node(|node| {
        for family in Family::BOTH {
            let (vip, b, world) = (family.vip(), family.b(), family.world());
            node.service(vip, 80, Proto::TCP, &[]);
            let key = weir_abi::service::ServiceKey {
                addr: vip,
                ..node_wide(true, 80, Proto::TCP, scope::EVERYONE)
            };
            let ranges = Service {
                ranges: 5,
                ..Service::default()
            };
            node.frontend(key, ranges, &[(BACKEND, b, 8080)]);
            let syn = Packet::tcp(&tuple(world, 4000, vip, 80), SYN);
            let pod = Packet::tcp(&tuple(family.a(), 4000, vip, 80), SYN).frame();
            arrives(node, &syn).dropped(Counter::DropSourceRange);
            node.run(Hook::FromA, &pod)
                .dropped(Counter::DropSourceRange);
            let bits = if family == Family::V4 { 24 } else { 64 };
            node.source_range(RangeKey::prefix(5, world, bits));
            arrives(node, &syn).delivered();
            node.run(Hook::FromA, &pod)
                .dropped(Counter::DropSourceRange);
        }
    });
}

#[test]
fn a_client_with_affinity_comes_to_one_backend_by_every_port_from_outside_and_from_a_pod() {
    on_node(|node| {
        for family in Family::BOTH {
            let b = family.b();
            let backends = [(7, b, 8080), (8, b, 8081), (9, b, 8082), (10, b, 8083)];
            node.node_port(family == Family::V4, PORT, Proto::TCP, &backends);
            let value = Service {
                affinity_secs: 10_800,
                ..Service::default()
            };
            let key = node_wide(family == Family::V4, PORT, Proto::TCP, scope::EVERYONE);
            node.frontend(key, value, &backends);
            let mut chosen = [Vec::new(), Vec::new()];
            for sport in 4000..4030 {
                let run = arrives(node, &Packet::tcp(&there(family, sport), SYN)).delivered();
                chosen[0].push(see(&run.packet).dport);
                let own = tuple(family.a(), sport, family.node(), PORT);
                let run = node.run(Hook::FromA, &Packet::tcp(&own, SYN).frame());
                chosen[1].push(see(&run.delivered().packet).dport);
            }
            for ports in chosen {
                assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
            }
        }
    });
}

#[test]
fn a_datagram_without_a_hop_left_is_answered_to_its_sender_and_one_larger_than_the_pods_link_arrives()
 {
    on_node(|node| {
        for family in Family::BOTH {
            let v4 = family == Family::V4;
            let mut narrow = node.pod_b();
            narrow.mtu = 1400;
            node.adopt(narrow);
            node.node_port(v4, PORT, Proto::UDP, &[(BACKEND, family.b(), 8080)]);
            let before = node.entries();
            let last = Packet::udp(&there(family, 4001), b"?").ttl(1);
            let run = arrives(node, &last).expect(REDIRECTED, Counter::AnsweredIcmp);
            let seen = see(&run.packet);
            assert_eq!((seen.src, seen.dst), (family.node(), family.world()));
            assert_eq!(seen.l4[0], if v4 { 11 } else { 3 });
            assert_eq!(seen.l4[8..], last.ip()[..seen.l4.len() - 8]);
            assert_eq!(node.entries(), before);
            // An error from the node's address would narrow the way to the node for everybody.
            let big = Packet::udp(&there(family, 4000), b"").payload(1420);
            let run = arrives(node, &big);
            assert_eq!(see(&run.delivered().packet).dst, family.b());
        }
    });
}
