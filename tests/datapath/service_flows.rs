//! Flows through a Service while its endpoints change, and errors about them.

use weir_abi::counter::Counter;
use weir_abi::{Addr, Proto};

use crate::packets::*;
use crate::rig::*;

const FIRST: u32 = 7;
const SECOND: u32 = 8;

/// A Service on port 80 with two backends on pod B, 8080 and 8081.
fn two_backends(node: &mut Node, family: Family, proto: Proto) {
    let b = family.b();
    node.service(
        family.vip(),
        80,
        proto,
        &[(FIRST, b, 8080), (SECOND, b, 8081)],
    );
}

/// Sends a packet of A's to the Service: the backend's port that it goes to.
fn sent(node: &mut Node, packet: &Packet) -> u16 {
    see(&node.run(Hook::FromA, &packet.frame()).delivered().packet).dport
}

fn id(port: u16) -> u32 {
    if port == 8080 { FIRST } else { SECOND }
}

fn udp(family: Family, sport: u16) -> Packet {
    Packet::udp(&tuple(family.a(), sport, family.vip(), 80), b"question")
}

fn tcp(family: Family, sport: u16, flags: u8) -> Packet {
    Packet::tcp(&tuple(family.a(), sport, family.vip(), 80), flags)
}

/// B's packet to A.
fn reply(family: Family, from: u16, to: u16, flags: u8) -> Packet {
    Packet::tcp(&tuple(family.b(), from, family.a(), to), flags).addressed(MAC_HOST_B)
}

#[test]
fn a_udp_flow_keeps_its_backend() {
    on_node(|node| {
        for family in Family::BOTH {
            two_backends(node, family, Proto::UDP);
            let first = sent(node, &udp(family, 4000));
            for _ in 0..50 {
                assert_eq!(sent(node, &udp(family, 4000)), first);
            }
        }
    });
}

#[test]
fn a_udp_flow_leaves_a_removed_backend_with_its_next_packet() {
    on_node(|node| {
        for family in Family::BOTH {
            two_backends(node, family, Proto::UDP);
            let first = sent(node, &udp(family, 4000));
            let back = Packet::udp(&tuple(family.b(), first, family.a(), 4000), b"answer");
            node.run(Hook::FromB, &back.addressed(MAC_HOST_B).frame())
                .delivered();
            node.remove_backend(id(first));
            let second = sent(node, &udp(family, 4000));
            assert_ne!(second, first);
            assert_eq!(sent(node, &udp(family, 4000)), second);
            let back = Packet::udp(&tuple(family.b(), second, family.a(), 4000), b"answer");
            let run = node
                .run(Hook::FromB, &back.addressed(MAC_HOST_B).frame())
                .delivered();
            assert_eq!(see(&run.packet).src, family.vip());
            node.remove_backend(id(second));
            let run = node.run(Hook::FromA, &udp(family, 4000).frame());
            run.expect(REDIRECTED, Counter::RefusedNoEndpoint);
        }
    });
}

#[test]
fn an_established_connection_stays_with_a_removed_backend_and_a_new_one_does_not_go_there() {
    on_node(|node| {
        for family in Family::BOTH {
            two_backends(node, family, Proto::TCP);
            let first = sent(node, &tcp(family, 4000, SYN));
            node.run(Hook::FromB, &reply(family, first, 4000, SYN | ACK).frame())
                .delivered();
            assert_eq!(sent(node, &tcp(family, 4000, ACK)), first);
            node.remove_backend(id(first));
            assert_eq!(sent(node, &tcp(family, 4000, ACK)), first);
            let run = node
                .run(Hook::FromB, &reply(family, first, 4000, ACK).frame())
                .delivered();
            assert_eq!(see(&run.packet).src, family.vip());
            for port in 5000..5020 {
                assert_ne!(sent(node, &tcp(family, port, SYN)), first);
            }
        }
    });
}

#[test]
fn a_syn_that_is_sent_again_leaves_a_backend_that_was_removed_meanwhile() {
    on_node(|node| {
        for family in Family::BOTH {
            two_backends(node, family, Proto::TCP);
            let first = sent(node, &tcp(family, 4000, SYN));
            assert_eq!(
                sent(node, &tcp(family, 4000, SYN)),
                first,
                "sent again, same backend"
            );
            node.remove_backend(id(first));
            assert_ne!(sent(node, &tcp(family, 4000, SYN)), first);
        }
    });
}

#[test]
fn a_reused_source_port_after_a_close_is_a_new_choice() {
    on_node(|node| {
        for family in Family::BOTH {
            two_backends(node, family, Proto::TCP);
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..60 {
                let port = sent(node, &tcp(family, 4000, SYN));
                node.run(Hook::FromB, &reply(family, port, 4000, SYN | ACK).frame())
                    .delivered();
                assert_eq!(sent(node, &tcp(family, 4000, ACK)), port);
                assert_eq!(sent(node, &tcp(family, 4000, FIN | ACK)), port);
                node.run(Hook::FromB, &reply(family, port, 4000, FIN | ACK).frame())
                    .delivered();
                seen.insert(port);
            }
            // Never the other one: a probability of 2^-59.
            assert_eq!(seen.len(), 2);
        }
    });
}

#[test]
fn an_error_about_a_translated_packet_is_about_the_packet_that_the_client_sent() {
    on_node(|node| {
        for family in Family::BOTH {
            let (a, b, vip) = (family.a(), family.b(), family.vip());
            two_backends(node, family, Proto::UDP);
            let there = udp(family, 4000).frame();
            let run = node.run(Hook::FromA, &there).delivered();
            let translated = &run.packet[14..];
            let (kind, code) = if family == Family::V4 { (3, 3) } else { (1, 4) };
            let error = Packet::icmp(b, a, kind, code, [0; 4], translated).addressed(MAC_HOST_B);
            let run = node.run(Hook::FromB, &error.frame()).delivered();
            let seen = see(&run.packet);
            assert_eq!((seen.src, seen.dst), (vip, a));
            let quoted = see_ip(&seen.l4[8..], false);
            assert_eq!((quoted.src, quoted.sport), (a, 4000));
            assert_eq!((quoted.dst, quoted.dport), (vip, 80));
        }
    });
}

#[test]
fn an_error_from_a_router_about_a_translated_packet_keeps_the_routers_address() {
    on_node(|node| {
        for family in Family::BOTH {
            let (a, far, vip): (Addr, Addr, Addr) = (family.a(), family.remote(), family.vip());
            let (cidr, len) = family.remote_cidr();
            let uplink = node.if_uplink;
            node.node_cidr(cidr, len, uplink);
            node.service(vip, 80, Proto::UDP, &[(FIRST, far, 8080)]);
            let run = node.run(Hook::FromA, &udp(family, 4000).frame());
            let run = run.expect(REDIRECTED, Counter::Forwarded);
            let kind = if family == Family::V4 { 11 } else { 3 };
            let router = family.world();
            let error = Packet::icmp(router, a, kind, 0, [0; 4], &run.packet[14..]);
            let run = node
                .run(Hook::FromUplink, &error.addressed(MAC_UPLINK).frame())
                .delivered();
            let seen = see(&run.packet);
            assert_eq!((seen.src, seen.dst), (router, a));
            let quoted = see_ip(&seen.l4[8..], false);
            assert_eq!((quoted.dst, quoted.dport), (vip, 80));
        }
    });
}

#[test]
fn a_flow_that_is_older_than_its_service_becomes_the_services_with_its_next_packet() {
    on_node(|node| {
        for family in Family::BOTH {
            node.run(Hook::FromA, &udp(family, 4000).frame())
                .left_to_stack();
            node.run(Hook::FromA, &tcp(family, 4000, SYN).frame())
                .left_to_stack();
            node.service(family.vip(), 80, Proto::UDP, &[(FIRST, family.b(), 8080)]);
            node.service(family.vip(), 80, Proto::TCP, &[(SECOND, family.b(), 8080)]);
            assert_eq!(sent(node, &udp(family, 4000)), 8080);
            assert_eq!(sent(node, &tcp(family, 4000, SYN)), 8080);
        }
    });
}
