//! Direct server return: at the node that is dialled, and at the backend's.

use std::sync::{Arc, Mutex};

use weir_abi::conntrack::{Tuple, flags, seen};
use weir_abi::counter::Counter;
use weir_abi::endpoint::Endpoint;
use weir_abi::node::config;
use weir_abi::policy::{GroupId, RuleId, RuleVerdict};
use weir_abi::{Addr, Proto};

use crate::packets::*;
use crate::rig::*;
use crate::services::{answer, ends};

const BACKEND: u32 = 7;
const PORT: u16 = 30_080;

fn there(family: Family) -> Tuple {
    tuple(family.world(), 4000, family.node(), PORT)
}

fn arrives(node: &mut Node, packet: &Packet) -> Run {
    let frame = packet.clone().addressed(MAC_UPLINK).frame();
    node.run(Hook::FromUplink, &frame)
}

fn dsr(node: &mut Node) {
    let word = config::flags::DSR;
    node.array::<u64>("CONFIG")
        .set(config::FLAGS, word, 0)
        .unwrap();
}

/// The node that is dialled: the backend is another node's pod.
fn dialled(node: &mut Node, family: Family, proto: Proto) {
    dsr(node);
    let (cidr, len) = family.remote_cidr();
    let uplink = node.if_uplink;
    node.node_cidr(cidr, len, uplink);
    node.nat(61_000, 61_999);
    let v4 = family == Family::V4;
    node.node_port(v4, PORT, proto, &[(BACKEND, family.remote(), 8080)]);
}

/// Where an IP header and its options end in a frame, and what the header's checksum comes to.
fn header(family: Family, frame: &[u8]) -> (usize, u16) {
    match family {
        Family::V4 => {
            let len = 4 * usize::from(frame[14] & 15);
            (14 + len, checksum(0, &frame[14..14 + len]))
        }
        Family::V6 if frame[20] == 60 => (14 + 40 + 8 * (usize::from(frame[55]) + 1), 0),
        Family::V6 => (14 + 40, 0),
    }
}

/// The packet as one without options, which `see` checks byte by byte.
fn plain(family: Family, frame: &[u8]) -> Vec<u8> {
    let (l4, check) = header(family, frame);
    assert_eq!(check, 0, "the header's checksum");
    let mut out = frame[..family.l4()].to_vec();
    out.extend(&frame[l4..]);
    let len = (out.len() - 14) as u16;
    if family == Family::V4 {
        out[14] = 0x45;
        out[16..18].copy_from_slice(&len.to_be_bytes());
        out[24..26].fill(0);
        let check = checksum(0, &out[14..34]);
        out[24..26].copy_from_slice(&check.to_be_bytes());
    } else {
        out[20] = frame[54];
        out[18..20].copy_from_slice(&(len - 40).to_be_bytes());
    }
    out
}

/// A connection's first packet as the dialled node sends it on.
fn announced(family: Family) -> Vec<u8> {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&sent);
    on_node(move |node| {
        dialled(node, family, Proto::TCP);
        let run = arrives(node, &Packet::tcp(&there(family), SYN));
        *to.lock().unwrap() = run.expect(REDIRECTED, Counter::Forwarded).packet;
    });
    std::mem::take(&mut *sent.lock().unwrap())
}

#[test]
fn a_first_packet_keeps_the_clients_address_and_says_what_was_dialled() {
    for family in Family::BOTH {
        let frame = announced(family);
        let (l4, _) = header(family, &frame);
        let port = PORT.to_be_bytes();
        let host = family.node();
        if family == Family::V4 {
            assert_eq!(frame[34..38], [0x9e, 8, port[0], port[1]]);
            assert_eq!(frame[38..42], host.v4_word().to_ne_bytes());
            assert_eq!(l4, 42);
        } else {
            assert_eq!(frame[54..62], [6, 2, 0x1e, 20, port[0], port[1], 0, 0]);
            assert_eq!(frame[62..78], host.octets());
            assert_eq!(l4, 78);
        }
        let seen = see(&plain(family, &frame));
        assert_eq!(ends(&seen), (family.world(), 4000, family.remote(), 8080));
        assert_eq!(seen.ttl, 63);
    }
}

#[test]
fn later_packets_go_the_same_way_without_an_option_and_keep_the_flow_for_hours() {
    on_node(|node| {
        for family in Family::BOTH {
            dialled(node, family, Proto::TCP);
            let first = Packet::tcp(&there(family), SYN);
            let long = arrives(node, &first).packet.len();
            assert_eq!(arrives(node, &first).packet.len(), long, "said again");
            let run = arrives(node, &Packet::tcp(&there(family), ACK));
            let seen = see(&run.expect(REDIRECTED, Counter::Forwarded).packet);
            assert_eq!(ends(&seen), (family.world(), 4000, family.remote(), 8080));
            let (map, entry) = node.entry(&there(family), Proto::TCP).unwrap();
            // Forged packets could come as far.
            assert_eq!((map, entry.flags & flags::DSR), ("CT_NEW", flags::DSR));
            assert_ne!(entry.seen & seen::ESTABLISHED, 0);
        }
    });
}

#[test]
fn datagrams_and_a_backend_outside_of_all_pod_prefixes_go_from_the_nodes_address() {
    on_node(|node| {
        for family in Family::BOTH {
            dialled(node, family, Proto::UDP);
            let run = arrives(node, &Packet::udp(&there(family), b"question"));
            assert_eq!(see(&run.packet).src, family.node());
        }
    });
}

#[test]
fn a_connection_whose_tuple_another_has_at_the_backend_goes_from_the_nodes_address() {
    on_node(|node| {
        for family in Family::BOTH {
            dialled(node, family, Proto::TCP);
            arrives(node, &Packet::tcp(&there(family), SYN));
            let v4 = family == Family::V4;
            node.node_port(
                v4,
                PORT + 1,
                Proto::TCP,
                &[(BACKEND, family.remote(), 8080)],
            );
            let other = tuple(family.world(), 4000, family.node(), PORT + 1);
            let run = arrives(node, &Packet::tcp(&other, SYN));
            let seen = see(&run.expect(REDIRECTED, Counter::Forwarded).packet);
            assert_eq!((seen.src, seen.dst), (family.node(), family.remote()));
            assert!((61_000..=61_999).contains(&seen.sport));
        }
    });
}

#[test]
fn a_client_that_is_a_pod_or_a_node_goes_from_the_dialled_nodes_address() {
    on_node(|node| {
        for family in Family::BOTH {
            dialled(node, family, Proto::TCP);
            let other = family.other_node();
            node.node_cidr(other, if family == Family::V4 { 32 } else { 128 }, 0);
            for client in [family.remote(), other] {
                let there = tuple(client, 4000, family.node(), PORT);
                let run = arrives(node, &Packet::tcp(&there, SYN));
                assert_eq!(see(&run.packet).src, family.node());
            }
        }
    });
}

/// The backend's node: the pod that is another node's at the dialled one.
fn backends_node(node: &mut Node) -> Endpoint {
    dsr(node);
    let pod = Endpoint {
        addr4: Family::V4.remote(),
        addr6: Family::V6.remote(),
        ..node.pod_b()
    };
    node.adopt(pod);
    for v4 in [true, false] {
        let family = if v4 { Family::V4 } else { Family::V6 };
        node.node_port(v4, PORT, Proto::TCP, &[(BACKEND, family.remote(), 8080)]);
        // The dialled node.
        node.node_cidr(family.node(), if v4 { 32 } else { 128 }, 0);
    }
    pod
}

#[test]
fn the_backends_node_answers_the_client_from_what_was_dialled() {
    for family in Family::BOTH {
        let mut frame = announced(family);
        on_node(move |node| {
            backends_node(node);
            frame[..6].copy_from_slice(&MAC_UPLINK);
            let run = node.run(Hook::FromUplink, &frame).delivered();
            let seen = see(&plain(family, &run.packet));
            assert_eq!(ends(&seen), (family.world(), 4000, family.remote(), 8080));
            let reply = answer(
                Proto::TCP,
                &tuple(family.remote(), 8080, family.world(), 4000),
            );
            let run = node.run(Hook::FromB, &reply.addressed(MAC_HOST_B).frame());
            let seen = see(&run.expect(REDIRECTED, Counter::Forwarded).packet);
            assert_eq!(ends(&seen), (family.node(), PORT, family.world(), 4000));
            let later = tuple(family.world(), 4000, family.remote(), 8080);
            arrives(node, &Packet::tcp(&later, ACK)).delivered();
            assert_eq!(node.entry(&later, Proto::TCP).unwrap().0, "CT_EST");
        });
    }
}

#[test]
fn policy_at_the_backends_node_judges_the_clients_own_address() {
    for family in Family::BOTH {
        let mut frame = announced(family);
        on_node(move |node| {
            backends_node(node);
            frame[..6].copy_from_slice(&MAC_UPLINK);
            node.groups(SLOT_B, GroupId(20), GroupId::OPEN);
            node.peer(family.world(), 7);
            node.inline_row(GroupId(20), 7, RuleVerdict::deny(RuleId(9)));
            node.inline_row(GroupId(20), 0, RuleVerdict::allow(RuleId(8)));
            node.run(Hook::FromUplink, &frame)
                .dropped(Counter::DropPolicyIngress);
            node.inline_row(GroupId(20), 7, RuleVerdict::allow(RuleId(9)));
            node.run(Hook::FromUplink, &frame).delivered();
        });
    }
}

#[test]
fn what_no_service_has_is_not_answered_as_and_nothing_is_where_the_way_is_off() {
    for family in Family::BOTH {
        let frame = announced(family);
        for off in [false, true] {
            let mut frame = frame.clone();
            on_node(move |node| {
                backends_node(node);
                if off {
                    node.array::<u64>("CONFIG")
                        .set(config::FLAGS, 0, 0)
                        .unwrap();
                } else {
                    // Another port is said to have been dialled.
                    let at = if family == Family::V4 { 37 } else { 59 };
                    frame[at] ^= 1;
                    if family == Family::V4 {
                        frame[24..26].fill(0);
                        let check = checksum(0, &frame[14..42]).to_be_bytes();
                        frame[24..26].copy_from_slice(&check);
                    }
                }
                frame[..6].copy_from_slice(&MAC_UPLINK);
                node.run(Hook::FromUplink, &frame).delivered();
                let world: Addr = family.world();
                let reply = answer(Proto::TCP, &tuple(family.remote(), 8080, world, 4000));
                let run = node.run(Hook::FromB, &reply.addressed(MAC_HOST_B).frame());
                assert_eq!(see(&run.packet).src, family.remote());
            });
        }
    }
}
