//! Services in the packet path: for pods whose sockets no hook covers, and for SCTP.

use std::collections::BTreeMap;

use weir_abi::conntrack::Tuple;
use weir_abi::counter::Counter;
use weir_abi::policy::{GroupId, Interval, RuleId, RuleVerdict};
use weir_abi::{Addr, Proto};

use crate::packets::*;
use crate::rig::*;

pub const PROTOS: [Proto; 3] = [Proto::TCP, Proto::UDP, Proto::SCTP];
const BACKEND: u32 = 7;
/// Chunk types of SCTP.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// The first packet of a flow.
pub fn opening(proto: Proto, t: &Tuple) -> Packet {
    match proto {
        Proto::TCP => Packet::tcp(t, SYN),
        Proto::UDP => Packet::udp(t, b"question"),
        _ => Packet::sctp(t, INIT),
    }
}

/// The answer to it.
pub fn answer(proto: Proto, t: &Tuple) -> Packet {
    match proto {
        Proto::TCP => Packet::tcp(t, SYN | ACK),
        Proto::UDP => Packet::udp(t, b"an answer"),
        _ => Packet::sctp(t, INIT_ACK),
    }
}

pub fn ends(seen: &Seen) -> (Addr, u16, Addr, u16) {
    (seen.src, seen.sport, seen.dst, seen.dport)
}

#[test]
fn a_flow_to_a_service_reaches_its_backend_and_the_reply_comes_from_the_service() {
    for proto in PROTOS {
        on_node(move |node| {
            for family in Family::BOTH {
                let (a, b, vip) = (family.a(), family.b(), family.vip());
                node.service(vip, 80, proto, &[(BACKEND, b, 8080)]);
                let there = tuple(a, 4000, vip, 80);
                let run = node
                    .run(Hook::FromA, &opening(proto, &there).frame())
                    .delivered();
                let seen = see(&run.packet);
                assert_eq!(ends(&seen), (a, 4000, b, 8080));
                assert_eq!(seen.macs, (MAC_POD_B, MAC_HOST_B));
                let back = answer(proto, &tuple(b, 8080, a, 4000)).addressed(MAC_HOST_B);
                let run = node.run(Hook::FromB, &back.frame()).delivered();
                assert_eq!(ends(&see(&run.packet)), (vip, 80, a, 4000));
            }
        });
    }
}

#[test]
fn a_backend_on_another_node_is_reached_by_the_uplink_and_answers_through_it() {
    for proto in PROTOS {
        on_node(move |node| {
            for family in Family::BOTH {
                let (a, far, vip) = (family.a(), family.remote(), family.vip());
                let (cidr, len) = family.remote_cidr();
                let uplink = node.if_uplink;
                node.node_cidr(cidr, len, uplink);
                node.service(vip, 80, proto, &[(BACKEND, far, 8080)]);
                let there = opening(proto, &tuple(a, 4000, vip, 80));
                let run = node.run(Hook::FromA, &there.frame());
                let run = run.expect(REDIRECTED, Counter::Forwarded);
                assert_eq!(ends(&see(&run.packet)), (a, 4000, far, 8080));
                let back = answer(proto, &tuple(far, 8080, a, 4000)).addressed(MAC_UPLINK);
                let run = node.run(Hook::FromUplink, &back.frame()).delivered();
                assert_eq!(ends(&see(&run.packet)), (vip, 80, a, 4000));
            }
        });
    }
}

#[test]
fn a_backend_on_the_nodes_own_address_is_reached_through_the_stack_and_answers_through_it() {
    on_node(|node| {
        for family in Family::BOTH {
            let (b, host, vip) = (family.b(), family.node(), family.vip());
            node.service(vip, 443, Proto::TCP, &[(BACKEND, host, 6443)]);
            let there = Packet::tcp(&tuple(b, 4000, vip, 443), SYN).addressed(MAC_HOST_B);
            let run = node.run(Hook::FromB, &there.frame()).left_to_stack();
            assert_eq!(ends(&see(&run.packet)), (b, 4000, host, 6443));
            let back = Packet::tcp(&tuple(host, 6443, b, 4000), SYN | ACK).addressed(MAC_POD_B);
            let run = node.run(Hook::NodeToB, &back.frame()).left_to_stack();
            assert_eq!(ends(&see(&run.packet)), (vip, 443, b, 4000));
        }
    });
}

#[test]
fn a_udp_datagram_without_a_checksum_stays_without_one() {
    on_node(|node| {
        let (a, b, vip) = (Family::V4.a(), Family::V4.b(), Family::V4.vip());
        node.service(vip, 53, Proto::UDP, &[(BACKEND, b, 5353)]);
        let mut packet = Packet::udp(&tuple(a, 4000, vip, 53), b"question");
        packet.no_checksum = true;
        let run = node.run(Hook::FromA, &packet.frame()).delivered();
        let seen = see(&run.packet);
        assert_eq!(ends(&seen), (a, 4000, b, 5353));
        assert_eq!(seen.l4[6..8], [0, 0]);
    });
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
    on_node(|node| {
        for family in Family::BOTH {
            let (a, b, vip) = (family.a(), family.b(), family.vip());
            node.service(vip, 53, Proto::UDP, &[(BACKEND, b, 5353)]);
            // The payload's last word is what makes the translated datagram sum up to zero.
            let translated = tuple(a, 4000, b, 5353);
            let probe = Packet::udp(&translated, &[0, 0]).frame();
            let sum = &probe[family.l4() + 6..family.l4() + 8];
            let packet = Packet::udp(&tuple(a, 4000, vip, 53), sum);
            let run = node.run(Hook::FromA, &packet.frame()).delivered();
            assert_eq!(see(&run.packet).l4[6..8], [0xff, 0xff]);
        }
    });
}

#[test]
fn a_service_without_endpoints_and_an_unserved_port_answer_a_syn_with_a_reset() {
    on_node(|node| {
        for family in Family::BOTH {
            let (a, vip) = (family.a(), family.vip());
            node.service(vip, 80, Proto::TCP, &[]);
            for port in [80, 81] {
                let syn = Packet::tcp(&tuple(a, 4000, vip, port), SYN);
                let run = node.run(Hook::FromA, &syn.frame());
                let seen = see(&run.expect(REDIRECTED, Counter::RefusedNoEndpoint).packet);
                assert_eq!(ends(&seen), (vip, port, a, 4000));
                assert_eq!(seen.macs, (MAC_POD_A, MAC_HOST_A));
                // RFC 9293 §3.5.2: sequence 0, acknowledges the SYN (whose number is 1000).
                assert_eq!(seen.l4[4..8], 0u32.to_be_bytes());
                assert_eq!(seen.l4[8..12], 1001u32.to_be_bytes());
                assert_eq!(seen.l4[13], RST | ACK);
            }
        }
        assert_eq!(node.entries(), 0, "a refusal leaves no state");
    });
}

#[test]
fn a_service_without_endpoints_and_an_unserved_port_answer_udp_and_sctp_with_port_unreachable() {
    for proto in [Proto::UDP, Proto::SCTP] {
        on_node(move |node| {
            for family in Family::BOTH {
                let (a, vip) = (family.a(), family.vip());
                node.service(vip, 80, proto, &[]);
                for port in [80, 81] {
                    let packet = opening(proto, &tuple(a, 4000, vip, port)).frame();
                    let run = node.run(Hook::FromA, &packet);
                    let seen = see(&run.expect(REDIRECTED, Counter::RefusedNoEndpoint).packet);
                    assert_eq!((seen.src, seen.dst, seen.proto), (vip, a, family.icmp()));
                    let unreachable = if family == Family::V4 { [3, 3] } else { [1, 4] };
                    assert_eq!(seen.l4[..2], unreachable);
                    assert_eq!(seen.l4[8..], packet[14..], "it quotes what the pod sent");
                }
            }
            assert_eq!(node.entries(), 0, "a refusal leaves no state");
        });
    }
}

#[test]
fn a_ping_to_a_cluster_ip_is_refused_and_not_routed_out() {
    on_node(|node| {
        for family in Family::BOTH {
            let (a, vip) = (family.a(), family.vip());
            node.service(vip, 80, Proto::TCP, &[(BACKEND, family.b(), 8080)]);
            let ping = Packet::echo(family, a, vip, 77, false);
            let run = node.run(Hook::FromA, &ping.frame());
            run.expect(REDIRECTED, Counter::RefusedNoEndpoint);
        }
    });
}

#[test]
fn a_connection_that_is_not_remembered_is_reset_and_not_balanced_anew() {
    on_node(|node| {
        for family in Family::BOTH {
            let (a, vip) = (family.a(), family.vip());
            node.service(vip, 80, Proto::TCP, &[(BACKEND, family.b(), 8080)]);
            for flags in [ACK, FIN | ACK, SYN | ACK] {
                let packet = Packet::tcp(&tuple(a, 4000, vip, 80), flags);
                let run = node.run(Hook::FromA, &packet.frame());
                let seen = see(&run.expect(REDIRECTED, Counter::RefusedNoEndpoint).packet);
                assert_eq!(ends(&seen), (vip, 80, a, 4000));
                // It acknowledged 2000: that is the number the reset must have.
                assert_eq!(
                    (&seen.l4[4..8], seen.l4[13]),
                    (&2000u32.to_be_bytes()[..], RST)
                );
            }
            let reset = Packet::tcp(&tuple(a, 4000, vip, 80), RST);
            node.run(Hook::FromA, &reset.frame())
                .dropped(Counter::RefusedNoEndpoint);
        }
        assert_eq!(node.entries(), 0);
    });
}

#[test]
fn a_pod_that_reaches_itself_through_a_service_sees_another_address_than_its_own() {
    for proto in PROTOS {
        on_node(move |node| {
            for family in Family::BOTH {
                let (a, vip) = (family.a(), family.vip());
                // Its gateway's; in IPv6 the Service's, as that one is not link-local.
                let gateway = match family {
                    Family::V4 => family.gateway(),
                    Family::V6 => vip,
                };
                node.service(vip, 80, proto, &[(BACKEND, a, 8080)]);
                // Policy has no say in what a pod does with itself.
                node.groups(SLOT_A, GroupId::CLOSED, GroupId::CLOSED);
                let there = opening(proto, &tuple(a, 4000, vip, 80));
                let seen = see(&node.run(Hook::FromA, &there.frame()).delivered().packet);
                assert_eq!((seen.src, seen.dst, seen.dport), (gateway, a, 8080));
                assert_eq!(seen.macs, (MAC_POD_A, MAC_HOST_A));
                let back = answer(proto, &tuple(a, 8080, gateway, seen.sport));
                let seen = see(&node.run(Hook::FromA, &back.frame()).delivered().packet);
                assert_eq!(ends(&seen), (vip, 80, a, 4000));
            }
        });
    }
}

#[test]
fn a_translated_flow_whose_reply_tuple_is_taken_gets_another_source_port() {
    on_node(|node| {
        for family in Family::BOTH {
            let (a, b, vip) = (family.a(), family.b(), family.vip());
            node.service(vip, 80, Proto::UDP, &[(BACKEND, b, 8080)]);
            let direct = Packet::udp(&tuple(a, 4000, b, 8080), b"direct");
            node.run(Hook::FromA, &direct.frame()).delivered();
            let there = Packet::udp(&tuple(a, 4000, vip, 80), b"by name");
            let seen = see(&node.run(Hook::FromA, &there.frame()).delivered().packet);
            assert_eq!((seen.src, seen.dst, seen.dport), (a, b, 8080));
            assert_ne!(seen.sport, 4000);
            for (port, expected) in [(seen.sport, (vip, 80, a, 4000)), (4000, (b, 8080, a, 4000))] {
                let back = Packet::udp(&tuple(b, 8080, a, port), b"answer").addressed(MAC_HOST_B);
                let seen = see(&node.run(Hook::FromB, &back.frame()).delivered().packet);
                assert_eq!(ends(&seen), expected);
            }
        }
    });
}

#[test]
fn policy_judges_the_backends_address_and_port_and_the_clients_own_address() {
    const CLIENT: u32 = 20;
    const SERVER: u32 = 21;
    const EGRESS: GroupId = GroupId(30);
    const INGRESS: GroupId = GroupId(31);
    let yes = RuleVerdict::allow(RuleId(100));
    let no = RuleVerdict::deny(RuleId(101));
    // Whether 8080 is what policy allows, and what becomes of the packet then.
    for (allowed, outcome) in [(8080, Ok(())), (80, Err(()))] {
        on_node(move |node| {
            for family in Family::BOTH {
                let (a, b, vip) = (family.a(), family.b(), family.vip());
                node.service(vip, 80, Proto::TCP, &[(BACKEND, b, 8080)]);
                node.peer(a, CLIENT);
                node.peer(b, SERVER);
                let at = Interval::key(Proto::TCP, allowed);
                node.table(EGRESS, SERVER, 0, &[(0, no), (at, yes), (at + 1, no)]);
                node.inline_row(INGRESS, CLIENT, yes);
                node.groups(SLOT_A, GroupId::OPEN, EGRESS);
                node.groups(SLOT_B, INGRESS, GroupId::OPEN);
                let run = node.run(
                    Hook::FromA,
                    &Packet::tcp(&tuple(a, 4000, vip, 80), SYN).frame(),
                );
                match outcome {
                    Ok(()) => drop(run.delivered()),
                    Err(()) => drop(run.dropped(Counter::DropPolicyEgress)),
                }
            }
        });
    }
}

#[test]
fn new_flows_spread_evenly_over_the_backends() {
    const FLOWS: u16 = 1200;
    on_node(|node| {
        for family in Family::BOTH {
            let (a, b, vip) = (family.a(), family.b(), family.vip());
            let backends = [8080, 8081, 8082, 8083].map(|port| (u32::from(port), b, port));
            node.service(vip, 80, Proto::UDP, &backends);
            let mut hits: BTreeMap<u16, u16> = BTreeMap::new();
            for port in 0..FLOWS {
                let packet = Packet::udp(&tuple(a, 10_000 + port, vip, 80), b"?");
                let run = node.run(Hook::FromA, &packet.frame()).delivered();
                *hits.entry(see(&run.packet).dport).or_default() += 1;
            }
            // 300 expected, standard deviation 15: 7 of them.
            assert_eq!(hits.len(), 4);
            assert!(hits.values().all(|n| (195..=405).contains(n)), "{hits:?}");
        }
    });
}
