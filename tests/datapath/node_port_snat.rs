//! Packets of those outside to a Service with a backend on another node, or on this node itself.

use weir_abi::conntrack::{Tuple, flags};
use weir_abi::counter::Counter;
use weir_abi::{Addr, Proto};

use crate::packets::*;
use crate::rig::*;
use crate::services::{PROTOS, answer, ends, opening};

const BACKEND: u32 = 7;
const PORT: u16 = 30_080;
const NAT: (u16, u16) = (61_000, 61_003);

fn there(family: Family, sport: u16) -> Tuple {
    tuple(family.world(), sport, family.node(), PORT)
}

fn arrives(node: &mut Node, packet: &Packet) -> Run {
    node.run(
        Hook::FromUplink,
        &packet.clone().addressed(MAC_UPLINK).frame(),
    )
}

/// A NodePort whose backend is a pod of another node.
fn far(node: &mut Node, family: Family, proto: Proto) {
    let (cidr, len) = family.remote_cidr();
    let uplink = node.if_uplink;
    node.node_cidr(cidr, len, uplink);
    node.nat(NAT.0, NAT.1);
    let v4 = family == Family::V4;
    node.node_port(v4, PORT, proto, &[(BACKEND, family.remote(), 8080)]);
}

/// Sends a client's packet on: the port that it gets.
fn sent(node: &mut Node, family: Family, packet: &Packet) -> u16 {
    let run = arrives(node, packet).expect(REDIRECTED, Counter::Forwarded);
    let seen = see(&run.packet);
    assert_eq!((seen.src, seen.dst), (family.node(), family.remote()));
    assert!((NAT.0..=NAT.1).contains(&seen.sport), "{}", seen.sport);
    seen.sport
}

#[test]
fn a_backend_on_another_node_sees_the_node_and_its_reply_comes_from_the_node_port() {
    for proto in PROTOS {
        on_node(move |node| {
            for family in Family::BOTH {
                far(node, family, proto);
                let (world, host, remote) = (family.world(), family.node(), family.remote());
                let first = opening(proto, &there(family, 4000));
                let run = arrives(node, &first).expect(REDIRECTED, Counter::Forwarded);
                let seen = see(&run.packet);
                assert_eq!((seen.dst, seen.dport, seen.ttl), (remote, 8080, 63));
                let port = sent(node, family, &first);
                assert_eq!(port, seen.sport, "the flow keeps its port");
                let (_, entry) = node.entry(&there(family, 4000), proto).unwrap();
                assert_eq!(entry.flags & flags::SNAT, flags::SNAT);
                let run = arrives(node, &answer(proto, &tuple(remote, 8080, host, port)));
                let run = run.expect(REDIRECTED, Counter::Forwarded);
                assert_eq!(ends(&see(&run.packet)), (host, PORT, world, 4000));
            }
        });
    }
}

#[test]
fn clients_get_ports_of_their_own_until_none_is_left_and_then_their_packets_are_dropped() {
    on_node(|node| {
        for family in Family::BOTH {
            far(node, family, Proto::UDP);
            let mut ports: Vec<u16> = (4000..4004)
                .map(|sport| sent(node, family, &Packet::udp(&there(family, sport), b"?")))
                .collect();
            ports.sort_unstable();
            assert_eq!(ports, [61_000, 61_001, 61_002, 61_003]);
            let one_more = Packet::udp(&there(family, 5000), b"?");
            arrives(node, &one_more).dropped(Counter::DropPortsExhausted);
            // The time of one is over.
            let old = tuple(family.node(), 61_002, family.remote(), 8080);
            node.edit_entry(&old, Proto::UDP, |entry| {
                entry.last_seen = entry.last_seen.wrapping_sub(100);
            });
            assert_eq!(sent(node, family, &one_more), 61_002);
            node.nat(0, 0);
            let none = Packet::udp(&there(family, 5001), b"?");
            arrives(node, &none).dropped(Counter::DropPortsExhausted);
        }
    });
}

/// Makes the flow that has a port of the node's idle for some ticks.
fn ages(node: &mut Node, family: Family, proto: Proto, port: u16, ticks: u32) {
    let twin = tuple(family.node(), port, family.remote(), 8080);
    node.edit_entry(&twin, proto, |entry| {
        entry.last_seen = entry.last_seen.wrapping_sub(ticks);
    });
}

#[test]
fn ports_of_answered_questions_and_of_connections_that_are_over_are_soon_anothers() {
    on_node(|node| {
        for family in Family::BOTH {
            for proto in [Proto::UDP, Proto::TCP] {
                far(node, family, proto);
                node.nat(NAT.0, NAT.0);
                let first = opening(proto, &there(family, 4000));
                let port = sent(node, family, &first);
                let reply = answer(proto, &tuple(family.remote(), 8080, family.node(), port));
                arrives(node, &reply).expect(REDIRECTED, Counter::Forwarded);
                if proto == Proto::TCP {
                    arrives(node, &Packet::tcp(&there(family, 4000), RST));
                }
                let second = opening(proto, &there(family, 4001));
                arrives(node, &second).dropped(Counter::DropPortsExhausted);
                ages(node, family, proto, port, 9);
                assert_eq!(sent(node, family, &second), port);
                assert!(node.entry(&there(family, 4000), proto).is_none());
                ages(node, family, proto, port, 100_000);
            }
        }
    });
}

#[test]
fn the_port_of_a_flow_that_goes_on_is_nobody_elses() {
    on_node(|node| {
        for family in Family::BOTH {
            far(node, family, Proto::UDP);
            node.nat(NAT.0, NAT.0);
            let question = Packet::udp(&there(family, 4000), b"?");
            let port = sent(node, family, &question);
            let back = tuple(family.remote(), 8080, family.node(), port);
            arrives(node, &Packet::udp(&back, b"!"));
            arrives(node, &question);
            ages(node, family, Proto::UDP, port, 100);
            let other = Packet::udp(&there(family, 4001), b"?");
            arrives(node, &other).dropped(Counter::DropPortsExhausted);
            ages(node, family, Proto::UDP, port, 100_000);
        }
    });
}

#[test]
fn a_port_on_which_a_socket_of_the_node_waits_for_the_reply_is_not_taken() {
    on_node(|node| {
        ip("addr add 10.100.0.1/24 dev weirup");
        ip("addr add fd00:64::1/64 dev weirup nodad");
        for family in Family::BOTH {
            let bind = |port| (family.node().to_ip(), port);
            let _udp = std::net::UdpSocket::bind(bind(61_001)).unwrap();
            let _tcp = std::net::TcpListener::bind(bind(61_000)).unwrap();
            for (proto, busy) in [(Proto::UDP, 61_001), (Proto::TCP, 61_000)] {
                far(node, family, proto);
                for sport in 4000..4003 {
                    let port = sent(node, family, &opening(proto, &there(family, sport)));
                    assert_ne!(port, busy, "{proto:?}");
                }
                let last = opening(proto, &there(family, 4003));
                arrives(node, &last).dropped(Counter::DropPortsExhausted);
            }
        }
    });
}

#[test]
fn a_client_that_is_the_backend_itself_reaches_itself_through_another_node() {
    on_node(|node| {
        for family in Family::BOTH {
            far(node, family, Proto::TCP);
            let remote = family.remote();
            let hairpin = tuple(remote, 4000, family.node(), PORT);
            let port = sent(node, family, &Packet::tcp(&hairpin, SYN));
            let back = tuple(remote, 8080, family.node(), port);
            let run = arrives(node, &Packet::tcp(&back, SYN | ACK));
            let run = run.expect(REDIRECTED, Counter::Forwarded);
            assert_eq!(ends(&see(&run.packet)), (family.node(), PORT, remote, 4000));
        }
    });
}

#[test]
fn without_a_way_to_the_backend_the_packet_is_dropped_and_said_to_be() {
    on_node(|node| {
        for family in Family::BOTH {
            node.nat(NAT.0, NAT.1);
            let v4 = family == Family::V4;
            node.node_port(v4, PORT, Proto::TCP, &[(BACKEND, family.remote(), 8080)]);
            arrives(node, &Packet::tcp(&there(family, 4000), SYN)).dropped(Counter::DropNoRoute);
            assert_eq!(node.entries(), 0);
        }
    });
}

#[test]
fn a_backend_on_another_nodes_own_address_is_reached_by_the_uplink_that_routes_name() {
    on_node(|node| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        ip("link set weirupp up");
        ip("addr add 10.100.0.1/24 dev weirup");
        ip("addr add fd00:64::1/64 dev weirup nodad");
        ip("route add 10.200.0.0/24 via 10.100.0.2");
        ip("-6 route add fd00:c8::/64 via fd00:64::2");
        for family in Family::BOTH {
            let other: Addr = family.other_node();
            node.nat(NAT.0, NAT.1);
            let v4 = family == Family::V4;
            node.node_port(v4, PORT, Proto::TCP, &[(BACKEND, other, 9100)]);
            let run = arrives(node, &Packet::tcp(&there(family, 4000), SYN));
            let seen = see(&run.expect(REDIRECTED, Counter::Forwarded).packet);
            assert_eq!(
                (seen.src, seen.dst, seen.dport),
                (family.node(), other, 9100)
            );
        }
    });
}

#[test]
fn errors_about_a_translated_source_reach_the_client_and_the_clients_reach_the_backend() {
    on_node(|node| {
        for family in Family::BOTH {
            far(node, family, Proto::UDP);
            let (world, host, remote) = (family.world(), family.node(), family.remote());
            let first = Packet::udp(&there(family, 4000), b"question");
            let run = arrives(node, &first).expect(REDIRECTED, Counter::Forwarded);
            let port = see(&run.packet).sport;
            let (kind, code) = if family == Family::V4 { (3, 3) } else { (1, 4) };
            // The backend's node: nobody listens.
            let error = Packet::icmp(remote, host, kind, code, [0; 4], &run.packet[14..]);
            let run = arrives(node, &error).expect(REDIRECTED, Counter::Forwarded);
            let seen = see(&run.packet);
            assert_eq!((seen.src, seen.dst), (host, world));
            let quoted = see_ip(&seen.l4[8..], false);
            assert_eq!(ends(&quoted), (world, 4000, host, PORT));
            // The client: it is gone.
            let reply = Packet::udp(&tuple(remote, 8080, host, port), b"answer");
            let run = arrives(node, &reply).expect(REDIRECTED, Counter::Forwarded);
            let error = Packet::icmp(world, host, kind, code, [0; 4], &run.packet[14..]);
            let run = arrives(node, &error).expect(REDIRECTED, Counter::Forwarded);
            let seen = see(&run.packet);
            assert_eq!((seen.src, seen.dst), (host, remote));
            let quoted = see_ip(&seen.l4[8..], false);
            assert_eq!(ends(&quoted), (remote, 8080, host, port));
            // A router on the way to the client: the way is narrow. The overlay takes no router's word.
            let router: Addr = family.other_node();
            let (kind, code) = if family == Family::V4 { (3, 4) } else { (2, 0) };
            let reply = arrives(node, &reply).expect(REDIRECTED, Counter::Forwarded);
            let error = Packet::icmp(router, host, kind, code, [0; 4], &reply.packet[14..]);
            let run = arrives(node, &error).expect(REDIRECTED, Counter::Forwarded);
            let seen = see(&run.packet);
            assert_eq!(
                (seen.src, seen.dst),
                (host, remote),
                "from whom the pod knows"
            );
        }
    });
}

#[test]
fn a_udp_flow_from_outside_leaves_a_removed_backend_with_its_next_packet() {
    on_node(|node| {
        for family in Family::BOTH {
            far(node, family, Proto::UDP);
            let v4 = family == Family::V4;
            let backends = [(7, family.remote(), 8080), (8, family.remote(), 8081)];
            node.node_port(v4, PORT, Proto::UDP, &backends);
            let packet = Packet::udp(&there(family, 4000), b"?");
            let first = see(&arrives(node, &packet).packet).dport;
            // As the agent does it: first the frontend's new set, then the backend's state.
            let (gone, left) = if first == 8080 {
                (7, backends[1])
            } else {
                (8, backends[0])
            };
            node.node_port(v4, PORT, Proto::UDP, &[left]);
            node.remove_backend(gone);
            let second = see(&arrives(node, &packet).packet).dport;
            assert_eq!(first + second, 8080 + 8081);
            node.node_port(v4, PORT, Proto::UDP, &[]);
            node.remove_backend(left.0);
            arrives(node, &packet).expect(REDIRECTED, Counter::RefusedNoEndpoint);
        }
    });
}

#[test]
fn a_backend_on_the_node_itself_gets_the_packet_by_the_stack_and_its_reply_is_met_at_the_uplink() {
    for proto in PROTOS {
        on_node(move |node| {
            for family in Family::BOTH {
                let (world, host) = (family.world(), family.node());
                let v4 = family == Family::V4;
                node.node_port(v4, PORT, proto, &[(BACKEND, host, 9100)]);
                let run = arrives(node, &opening(proto, &there(family, 4000)));
                let seen = see(&run.left_to_stack().packet);
                assert_eq!(ends(&seen), (world, 4000, host, 9100));
                let back = answer(proto, &tuple(host, 9100, world, 4000));
                let run = node.run(Hook::ToUplink, &back.frame()).left_to_stack();
                assert_eq!(ends(&see(&run.packet)), (host, PORT, world, 4000));
                // Forwarded packets are none of the node's.
                let frame = back.frame();
                let run = node.run_with(Hook::ToUplink, &frame, |ctx| {
                    ctx[skb::INGRESS_IFINDEX] = ctx[skb::IFINDEX];
                });
                assert_eq!((run.action, run.packet), (STACK, frame));
                assert!(run.counted.is_empty());
            }
        });
    }
}
