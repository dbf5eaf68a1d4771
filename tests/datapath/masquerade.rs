//! What pods send to those outside the cluster, from the node's address; and what comes back.

use weir_abi::conntrack::{Tuple, flags};
use weir_abi::counter::Counter;
use weir_abi::node::{NodeCidr, config, node_cidr};
use weir_abi::policy::{GroupId, RuleId, RuleVerdict};
use weir_abi::{Addr, Proto};

use crate::packets::*;
use crate::rig::*;
use crate::services::{PROTOS, answer, ends, opening};

const NAT: (u16, u16) = (61_000, 61_003);

/// A node with a default route by its uplink, which masquerades.
pub fn masquerading(node: &mut Node) {
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
    for peer in ["weirap", "weirbp", "weirupp"] {
        ip(&format!("link set {peer} up"));
    }
    ip("addr add 10.100.0.1/24 dev weirup");
    ip("addr add fd00:64::1/64 dev weirup nodad");
    ip("-4 route add default via 10.100.0.2 dev weirup");
    ip("-6 route add default via fd00:64::2 dev weirup");
    node.nat(NAT.0, NAT.1);
    node.flags(config::flags::MASQUERADE);
}

pub fn arrives(node: &mut Node, packet: &Packet) -> Run {
    node.run(
        Hook::FromUplink,
        &packet.clone().addressed(MAC_UPLINK).frame(),
    )
}

/// Pod A sends to the world: what leaves, from the node's address and a port of its range.
#[track_caller]
pub fn leaves(node: &mut Node, family: Family, packet: &Packet) -> Seen {
    let run = node
        .run(Hook::FromA, &packet.frame())
        .expect(REDIRECTED, Counter::Forwarded);
    let seen = see(&run.packet);
    assert_eq!((seen.src, seen.dst), (family.node(), family.world()));
    seen
}

#[track_caller]
fn in_range(port: u16) -> u16 {
    assert!((NAT.0..=NAT.1).contains(&port), "{port}");
    port
}

/// The identifier of an echo.
fn id(seen: &Seen) -> u16 {
    u16::from_be_bytes([seen.l4[4], seen.l4[5]])
}

pub fn there(family: Family, sport: u16) -> Tuple {
    tuple(family.a(), sport, family.world(), 443)
}

#[test]
fn a_pod_reaches_the_world_from_the_nodes_address_and_the_reply_finds_it() {
    for proto in PROTOS {
        on_node(move |node| {
            masquerading(node);
            for family in Family::BOTH {
                let out = there(family, 4000);
                let seen = leaves(node, family, &opening(proto, &out));
                assert_eq!((seen.dport, seen.ttl), (443, 63));
                let port = in_range(seen.sport);
                let again = leaves(node, family, &opening(proto, &out));
                assert_eq!(again.sport, port, "the flow keeps its port");
                let (_, entry) = node.entry(&out, proto).unwrap();
                let all = flags::NAT | flags::SNAT | flags::MASQUERADE;
                assert_eq!(entry.flags & (all | flags::BY_STACK), all);
                let back = tuple(family.world(), 443, family.node(), port);
                let run = arrives(node, &answer(proto, &back)).delivered();
                let seen = see(&run.packet);
                assert_eq!(ends(&seen), (family.world(), 443, family.a(), 4000));
                assert_eq!((seen.macs, seen.ttl), ((MAC_POD_A, MAC_HOST_A), 63));
            }
        });
    }
}

#[test]
fn an_echo_leaves_with_an_identifier_of_the_nodes_and_its_reply_has_the_pods_again() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let (a, world) = (family.a(), family.world());
            let seen = leaves(node, family, &Packet::echo(family, a, world, 77, false));
            let port = in_range(id(&seen));
            // Another pod with the same identifier.
            let other = Packet::echo(family, family.b(), world, 77, false);
            let run = node.run(Hook::FromB, &other.addressed(MAC_HOST_B).frame());
            assert_ne!(id(&see(&run.packet)), port);
            let reply = Packet::echo(family, world, family.node(), port, true);
            let seen = see(&arrives(node, &reply).delivered().packet);
            assert_eq!((seen.src, seen.dst, id(&seen)), (world, a, 77));
            // A request is no reply, and nobody's here.
            let request = Packet::echo(family, world, family.node(), port, false);
            arrives(node, &request).left_to_stack();
        }
    });
}

#[test]
fn a_pod_that_dials_a_service_with_a_backend_outside_is_masqueraded_as_well() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let (a, vip, world) = (family.a(), family.vip(), family.world());
            node.service(vip, 80, Proto::TCP, &[(7, world, 8080)]);
            let dial = tuple(a, 4000, vip, 80);
            let seen = leaves(node, family, &Packet::tcp(&dial, SYN));
            assert_eq!(seen.dport, 8080);
            let back = tuple(world, 8080, family.node(), in_range(seen.sport));
            let run = arrives(node, &Packet::tcp(&back, SYN | ACK)).delivered();
            assert_eq!(ends(&see(&run.packet)), (vip, 80, a, 4000));
        }
    });
}

#[test]
fn pods_nodes_excluded_prefixes_and_link_local_addresses_see_the_pods_own_address() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let v4 = family == Family::V4;
            let external = if v4 {
                Addr::from_v4([198, 51, 100, 7])
            } else {
                Addr::from_v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7])
            };
            let link_local = if v4 {
                Addr::from_v4([169, 254, 169, 254])
            } else {
                Addr::from_v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9])
            };
            let (cidr, len) = family.remote_cidr();
            let uplink = node.if_uplink;
            node.node_cidr(cidr, len, uplink);
            let full = if v4 { 32 } else { 128 };
            node.node_cidr(family.other_node(), full, 0);
            let value = NodeCidr {
                flags: node_cidr::EXTERNAL,
                ..NodeCidr::default()
            };
            node.put_node_cidr(external, full, value);
            for dst in [family.other_node(), external, link_local, family.node()] {
                let out = tuple(family.a(), 4000, dst, 443);
                let frame = Packet::udp(&out, b"?").frame();
                let run = node.run(Hook::FromA, &frame).left_to_stack();
                assert_eq!(run.packet, frame, "{dst:?}");
                let (_, entry) = node.entry(&out, Proto::UDP).unwrap();
                assert_eq!(entry.flags & flags::NAT, 0, "{dst:?}");
            }
            let far = tuple(family.a(), 4000, family.remote(), 443);
            let run = node.run(Hook::FromA, &Packet::tcp(&far, SYN).frame());
            let seen = see(&run.expect(REDIRECTED, Counter::Forwarded).packet);
            assert_eq!(ends(&seen), (family.a(), 4000, family.remote(), 443));
            let near = tuple(family.a(), 4000, family.b(), 443);
            let run = node.run(Hook::FromA, &Packet::tcp(&near, SYN).frame());
            assert_eq!(see(&run.delivered().packet).src, family.a());
        }
    });
}

#[test]
fn without_masquerade_or_a_way_by_an_uplink_the_stack_has_the_packet_as_it_came() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let off = |node: &mut Node, sport: u16| {
                let frame = Packet::tcp(&there(family, sport), SYN).frame();
                let run = node.run(Hook::FromA, &frame).left_to_stack();
                assert_eq!(run.packet, frame);
            };
            node.flags(0);
            off(node, 4000);
            node.flags(config::flags::MASQUERADE);
            leaves(node, family, &Packet::tcp(&there(family, 4001), SYN));
            // The way is by a device that is none of the uplinks.
            let all = if family == Family::V4 { "-4" } else { "-6" };
            ip(&format!("{all} route replace default dev weirb"));
            off(node, 4002);
            ip(&format!("{all} route del default dev weirb"));
            let _ = std::process::Command::new("ip")
                .args([all, "route", "del", "default"])
                .output();
            off(node, 4003);
        }
    });
}

#[test]
fn what_has_no_port_or_opens_nothing_is_not_masqueraded() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let (a, world) = (family.a(), family.world());
            let gre = Packet::new(a, world, Proto(47), vec![0; 16]);
            let group = if family == Family::V4 {
                Addr::from_v4([239, 1, 1, 1])
            } else {
                Addr::from_v6([0xff, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
            };
            for packet in [
                gre,
                Packet::tcp(&there(family, 4000), RST),
                Packet::udp(&tuple(a, 4000, group, 443), b"?"),
            ] {
                let frame = packet.frame();
                let run = node.run(Hook::FromA, &frame).left_to_stack();
                assert_eq!(run.packet, frame);
            }
        }
    });
}

#[test]
fn policy_judges_the_pods_own_address_and_the_server_and_a_denied_packet_takes_no_port() {
    on_node(|node| {
        masquerading(node);
        let group = GroupId(9);
        node.groups(SLOT_A, GroupId::CLOSED, group);
        for family in Family::BOTH {
            let full = if family == Family::V4 { 32 } else { 128 };
            let class = 40 + u32::from(full);
            node.cidr(family.world(), full, class);
            node.inline_row(group, class, RuleVerdict::deny(RuleId(3)));
            let packet = Packet::udp(&there(family, 4000), b"?");
            node.run(Hook::FromA, &packet.frame())
                .dropped(Counter::DropPolicyEgress);
            assert!(node.entry(&there(family, 4000), Proto::UDP).is_none());
            node.inline_row(group, class, RuleVerdict::allow(RuleId(3)));
            let port = leaves(node, family, &packet).sport;
            // The reply passes a closed ingress; a change of policy cuts both ways.
            let back = tuple(family.world(), 443, family.node(), port);
            let reply = Packet::udp(&back, b"!");
            arrives(node, &reply).delivered();
            node.inline_row(group, class, RuleVerdict::deny(RuleId(3)));
            node.bump(SLOT_A);
            arrives(node, &reply).dropped(Counter::DropPolicyEgress);
        }
    });
}

#[test]
fn an_unrelated_packet_at_a_port_in_use_is_the_stacks() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let port = leaves(node, family, &Packet::udp(&there(family, 4000), b"?")).sport;
            for (src, sport) in [(family.other_node(), 443), (family.world(), 444)] {
                let packet = Packet::udp(&tuple(src, sport, family.node(), port), b"!");
                let run = arrives(node, &packet).left_to_stack();
                assert_eq!(see(&run.packet).dst, family.node());
            }
        }
    });
}

#[test]
fn flows_to_one_server_get_ports_of_their_own_and_none_that_a_socket_of_the_node_has() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let bind = |port| (family.node().to_ip(), port);
            let _udp = std::net::UdpSocket::bind(bind(61_001)).unwrap();
            let _tcp = std::net::TcpListener::bind(bind(61_000)).unwrap();
            for (proto, busy) in [(Proto::UDP, 61_001), (Proto::TCP, 61_000)] {
                let mut ports: Vec<u16> = (4000..4003)
                    .map(|sport| leaves(node, family, &opening(proto, &there(family, sport))).sport)
                    .collect();
                ports.sort_unstable();
                ports.dedup();
                assert_eq!(ports.len(), 3);
                assert!(!ports.contains(&busy), "{proto:?}");
                node.run(Hook::FromA, &opening(proto, &there(family, 4003)).frame())
                    .dropped(Counter::DropPortsExhausted);
                // Another server has all ports again.
                let elsewhere = tuple(family.a(), 4003, family.other_node(), 443);
                node.run(Hook::FromA, &opening(proto, &elsewhere).frame())
                    .expect(REDIRECTED, Counter::Forwarded);
            }
        }
    });
}

#[test]
fn another_node_behind_the_overlay_sees_this_node_and_not_the_pod() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let own = NodeCidr {
                node: 9,
                tunnel: family.other_node(),
                ..NodeCidr::default()
            };
            let host = if family == Family::V4 { 32 } else { 128 };
            let t = tuple(family.a(), 4000, family.other_node(), 10_250);
            // In native mode the nodes know each other's pods.
            node.put_node_cidr(
                family.other_node(),
                host,
                NodeCidr {
                    tunnel: Addr::NONE,
                    ..own
                },
            );
            node.run(Hook::FromA, &Packet::udp(&t, b"?").frame())
                .left_to_stack();
            node.forget(&t, Proto::UDP);
            node.put_node_cidr(family.other_node(), host, own);
            node.config(
                config::OVERLAY,
                u64::from(node.if_overlay) | 8472 << 32 | config::OVERLAY_IS_TOLD,
            );
            let run = node.run(Hook::FromA, &Packet::udp(&t, b"?").frame());
            let run = run.expect(REDIRECTED, Counter::Forwarded);
            assert_eq!(see(&run.packet).src, family.node());
            node.config(config::OVERLAY, 0);
        }
    });
}
