//! A dry run says what the programs do, and leaves no trace in the maps.

use weir_abi::Proto;
use weir_abi::counter::Counter;
use weir_abi::policy::{GroupId, RuleId, RuleVerdict};

use crate::dry::*;
use crate::packets::*;
use crate::rig::*;

#[test]
fn a_new_flow_of_every_protocol_is_judged_at_both_ends() {
    both(|both| {
        both.policy(ALLOW_OUT, ALLOW_IN);
        for family in Family::BOTH {
            let t = tuple(family.a(), 4000, family.b(), 80);
            for packet in [
                Packet::tcp(&t, SYN),
                Packet::udp(&t, b"hello"),
                Packet::sctp(&t, 1),
                Packet::echo(family, t.src, t.dst, 7, false),
                Packet::new(t.src, t.dst, Proto(47), vec![0, 0, 8, 0]),
            ] {
                let verdicts = (Some(ALLOW_OUT), Some(ALLOW_IN), false, 0);
                both.expect(Hook::FromA, &packet, Counter::Delivered, verdicts);
                // The entry has the same rules.
                let (_, entry) = both.node.entry(&t, packet.proto).unwrap_or_else(|| {
                    let echo = tuple(t.src, 7, t.dst, 0);
                    let none = tuple(t.src, 0, t.dst, 0);
                    let echo = both.node.entry(&echo, packet.proto);
                    echo.or_else(|| both.node.entry(&none, packet.proto))
                        .unwrap()
                });
                assert_eq!(
                    (entry.egress_rule, entry.ingress_rule),
                    (ALLOW_OUT, ALLOW_IN)
                );
                let tracked = (Some(ALLOW_OUT), Some(ALLOW_IN), true, 0);
                both.expect(Hook::FromA, &packet, Counter::Delivered, tracked);
            }
        }
    });
}

#[test]
fn a_denial_at_either_end_is_named_and_the_other_end_judged_too() {
    both(|both| {
        for family in Family::BOTH {
            let t = tuple(family.a(), 4000, family.b(), 80);
            for (egress, ingress, counter) in [
                (ALLOW_OUT, DENY_IN, Counter::DropPolicyIngress),
                (DENY_OUT, ALLOW_IN, Counter::DropPolicyEgress),
                (DENY_OUT, DENY_IN, Counter::DropPolicyEgress),
            ] {
                both.policy(egress, ingress);
                let verdicts = (Some(egress), Some(ingress), false, 0);
                both.expect(Hook::FromA, &Packet::tcp(&t, SYN), counter, verdicts);
            }
            both.node.groups(SLOT_A, GroupId::OPEN, GroupId::CLOSED);
            let no_row = RuleVerdict::deny(RuleId::NO_ROW);
            let verdicts = (Some(no_row), Some(DENY_IN), false, 0);
            both.expect(
                Hook::FromA,
                &Packet::udp(&t, b""),
                Counter::DropNoRow,
                verdicts,
            );
        }
        assert_eq!(both.node.entries(), 0);
    });
}

#[test]
fn each_way_out_and_in_is_judged_at_the_end_that_is_here() {
    both(|both| {
        for family in Family::BOTH {
            let (cidr, len) = family.remote_cidr();
            both.node.node_cidr(cidr, len, both.node.if_uplink);
            both.policy(ALLOW_OUT, ALLOW_IN);
            for (dst, counter) in [
                (family.remote(), Counter::Forwarded),
                (family.world(), Counter::ToStack),
            ] {
                let packet = Packet::tcp(&tuple(family.a(), 4000, dst, 80), SYN);
                let verdicts = (Some(ALLOW_OUT), None, false, 0);
                both.expect(Hook::FromA, &packet, counter, verdicts);
            }
            for (hook, ingress, counter) in [
                (Hook::FromUplink, ALLOW_IN, Counter::Delivered),
                (Hook::ToB, ALLOW_IN, Counter::ToStack),
                (Hook::FromUplink, DENY_IN, Counter::DropPolicyIngress),
                (Hook::ToB, DENY_IN, Counter::DropPolicyIngress),
            ] {
                both.policy(ALLOW_OUT, ingress);
                let port = if hook == Hook::ToB { 81 } else { 80 };
                let t = tuple(family.remote(), 4000, family.b(), port);
                // An entry of the round before is judged again.
                let tracked = !ingress.allowed();
                let verdicts = (None, Some(ingress), tracked, 0);
                both.expect(hook, &Packet::tcp(&t, SYN), counter, verdicts);
            }
            // The node's own, and what only looks like it.
            let t = tuple(family.node(), 4000, family.b(), 80);
            let syn = Packet::tcp(&t, SYN);
            let unjudged = (None, None, false, 0);
            both.expect(Hook::NodeToB, &syn, Counter::ToStack, unjudged);
            let replies = (None, None, true, 0);
            let back = Packet::tcp(&t.reversed(), SYN | ACK);
            both.expect(Hook::FromB, &back, Counter::ToStack, replies);
            both.run(Hook::ToB, &syn);
            both.run(Hook::FromUplink, &syn);
        }
    });
}

#[test]
fn a_flow_to_a_service_names_its_backend_also_if_it_is_denied() {
    both(|both| {
        for family in Family::BOTH {
            for proto in [Proto::TCP, Proto::UDP, Proto::SCTP] {
                both.node
                    .service(family.vip(), 80, proto, &[(9, family.b(), 8080)]);
            }
            let t = tuple(family.a(), 4000, family.vip(), 80);
            for packet in [
                Packet::tcp(&t, SYN),
                Packet::udp(&t, b"x"),
                Packet::sctp(&t, 1),
            ] {
                both.policy(DENY_OUT, ALLOW_IN);
                let denied = (Some(DENY_OUT), Some(ALLOW_IN), false, 9);
                both.expect(Hook::FromA, &packet, Counter::DropPolicyEgress, denied);
                both.policy(ALLOW_OUT, ALLOW_IN);
                let allowed = (Some(ALLOW_OUT), Some(ALLOW_IN), false, 9);
                both.expect(Hook::FromA, &packet, Counter::Delivered, allowed);
                let tracked = (Some(ALLOW_OUT), Some(ALLOW_IN), true, 9);
                both.expect(Hook::FromA, &packet, Counter::Delivered, tracked);
            }
            // A port that it does not serve, and what opens nothing.
            let unserved = Packet::udp(&tuple(family.a(), 4000, family.vip(), 81), b"");
            let nothing = (None, None, false, 0);
            both.expect(Hook::FromA, &unserved, Counter::RefusedNoEndpoint, nothing);
            let late = Packet::tcp(&tuple(family.a(), 4999, family.vip(), 80), ACK);
            both.expect(Hook::FromA, &late, Counter::RefusedNoEndpoint, nothing);
        }
    });
}

#[test]
fn a_hairpin_and_a_pod_that_asks_itself_are_not_held_by_policy() {
    both(|both| {
        both.policy(DENY_OUT, DENY_IN);
        for family in Family::BOTH {
            both.node
                .service(family.vip(), 80, Proto::TCP, &[(9, family.b(), 8080)]);
            let packet = Packet::tcp(&tuple(family.b(), 4000, family.vip(), 80), SYN);
            let unjudged = (None, None, false, 9);
            both.expect(Hook::FromB, &packet, Counter::Delivered, unjudged);
            let itself = Some(RuleVerdict::allow(RuleId::SELF));
            let packet = Packet::udp(&tuple(family.b(), 4000, family.b(), 80), b"x");
            let expected = (itself, itself, false, 0);
            both.expect(Hook::FromB, &packet, Counter::Delivered, expected);
        }
    });
}

#[test]
fn an_established_flow_is_judged_by_its_entry_and_again_after_a_change() {
    both(|both| {
        for family in Family::BOTH {
            both.node
                .service(family.vip(), 80, Proto::TCP, &[(9, family.b(), 8080)]);
            for (dst, dport, backend) in [(family.b(), 81, 0), (family.vip(), 80, 9)] {
                both.policy(ALLOW_OUT, ALLOW_IN);
                both.connect(family, dst, dport);
                let t = tuple(family.a(), 4000, dst, dport);
                let data = Packet::tcp(&t, ACK);
                let port = if backend == 0 { 81 } else { 8080 };
                let back = tuple(family.b(), port, family.a(), 4000);
                let reply = Packet::tcp(&back, ACK);
                let verdicts = (Some(ALLOW_OUT), Some(ALLOW_IN), true, backend);
                both.expect(Hook::FromA, &data, Counter::Delivered, verdicts);
                both.expect(Hook::FromB, &reply, Counter::Delivered, verdicts);
                // Forbidden at the destination: cut both ways, and the dry run has stamped nothing.
                both.policy(ALLOW_OUT, DENY_IN);
                let verdicts = (Some(ALLOW_OUT), Some(DENY_IN), true, backend);
                let cut = Counter::DropPolicyIngress;
                both.expect(Hook::FromB, &reply, cut, verdicts);
                both.expect(Hook::FromA, &data, cut, verdicts);
                both.policy(DENY_OUT, DENY_IN);
                let verdicts = (Some(DENY_OUT), Some(DENY_IN), true, backend);
                both.expect(Hook::FromA, &data, Counter::DropPolicyEgress, verdicts);
            }
        }
    });
}

#[test]
fn a_flow_that_takes_anothers_place_is_judged_as_if_that_one_were_gone() {
    both(|both| {
        for family in Family::BOTH {
            for proto in [Proto::TCP, Proto::UDP] {
                let backends = [(9, family.b(), 8080)];
                both.node.service(family.vip(), 80, proto, &backends);
            }
            // A connection that was closed, and opened again, directly and through the Service.
            for (dst, dport, backend) in [(family.b(), 81, 0), (family.vip(), 80, 9)] {
                both.connect(family, dst, dport);
                let t = tuple(family.a(), 4000, dst, dport);
                both.run(Hook::FromA, &Packet::tcp(&t, RST | ACK));
                let again = (OPEN, OPEN, false, backend);
                let syn = Packet::tcp(&t, SYN);
                both.expect(Hook::FromA, &syn, Counter::Delivered, again);
            }
            // A UDP flow whose backend has gone, and one whose address was given to another pod.
            let t = tuple(family.a(), 4000, family.vip(), 80);
            let datagram = Packet::udp(&t, b"question");
            both.run(Hook::FromA, &datagram);
            both.node.remove_backend(9);
            let gone = Counter::RefusedNoEndpoint;
            both.expect(Hook::FromA, &datagram, gone, (None, None, false, 0));
            let more = [(9, family.b(), 8080), (10, family.b(), 8081)];
            both.node.service(family.vip(), 80, Proto::UDP, &more);
            both.node.remove_backend(9);
            let moved = (OPEN, OPEN, false, 10);
            both.expect(Hook::FromA, &datagram, Counter::Delivered, moved);
            let t = tuple(family.a(), 5000, family.b(), 53);
            both.run(Hook::FromA, &Packet::udp(&t, b"x"));
            let mut b = both.node.pod_b();
            b.incarnation += 1;
            both.node.adopt(b);
            let anew = (OPEN, OPEN, false, 0);
            both.expect(
                Hook::FromA,
                &Packet::udp(&t, b"x"),
                Counter::Delivered,
                anew,
            );
            both.node.adopt(both.node.pod_b());
        }
    });
}

#[test]
fn a_reply_tuple_that_is_another_flows_is_seen() {
    both(|both| {
        for family in Family::BOTH {
            both.node
                .service(family.vip(), 80, Proto::TCP, &[(9, family.b(), 8080)]);
            let direct = tuple(family.a(), 4000, family.b(), 8080);
            both.run(Hook::FromA, &Packet::tcp(&direct, SYN));
            let t = tuple(family.a(), 4000, family.vip(), 80);
            let (_, run) = both.run(Hook::FromA, &Packet::tcp(&t, SYN));
            assert_ne!(see(&run.packet).sport, 4000);
        }
    });
}

#[test]
fn errors_fragments_and_what_has_no_way_come_to_the_same() {
    both(|both| {
        for family in Family::BOTH {
            both.connect(family, family.b(), 80);
            let t = tuple(family.a(), 4000, family.b(), 80);
            let (kind, code) = if family == Family::V4 { (3, 3) } else { (1, 4) };
            let quote = Packet::tcp(&t, ACK).ip();
            let error = Packet::icmp(family.b(), family.a(), kind, code, [0; 4], &quote);
            let tracked = (OPEN, OPEN, true, 0);
            both.expect(Hook::FromB, &error, Counter::Delivered, tracked);
            // Its last hop, too long, forged, for another pod.
            both.run(Hook::FromA, &Packet::tcp(&t, ACK).ttl(1));
            both.run(Hook::FromA, &Packet::udp(&t, b"").payload(1600));
            both.run(Hook::FromB, &Packet::tcp(&t, ACK));
            let other = tuple(family.world(), 4000, family.a(), 80);
            both.run(Hook::ToB, &Packet::tcp(&other, SYN));
            let mine = tuple(family.b(), 4000, family.b(), 80);
            both.run(Hook::FromUplink, &Packet::tcp(&mine, SYN));
        }
        let t = tuple(Family::V4.a(), 4000, Family::V4.b(), 80);
        let mut fragment = Packet::udp(&t, b"later");
        fragment.fragment = 100;
        both.run(Hook::FromA, &fragment);
        both.policy(ALLOW_OUT, ALLOW_IN);
        let nothing = (None, None, false, 0);
        both.expect(Hook::FromA, &fragment, Counter::DropFragment, nothing);
    });
}

#[test]
fn a_packet_cut_at_any_length_comes_to_the_same_and_a_report_is_of_its_own_packet() {
    both(|both| {
        both.policy(ALLOW_OUT, ALLOW_IN);
        let mut kinds = std::collections::BTreeSet::new();
        for family in Family::BOTH {
            let t = tuple(family.a(), 4000, family.b(), 80);
            let whole = Packet::tcp(&t, SYN);
            let frame = whole.frame();
            let before = both.node.snapshot();
            // The kernel refuses a test run with less of an IP packet (6.18).
            let cut: Vec<_> = (family.l4()..=frame.len())
                .map(|len| {
                    both.dry.run(both.node, Hook::FromA, &frame);
                    both.dry.run(both.node, Hook::FromA, &frame[..len])
                })
                .collect();
            assert!(both.node.snapshot() == before);
            for (len, ran) in (family.l4()..).zip(cut) {
                let run = both.node.run(Hook::FromA, &frame[..len]);
                same(&ran, &run);
                if run.action == DROPPED {
                    assert_eq!(said(&ran), (None, None, false, 0), "{len} bytes");
                }
                kinds.insert(run.counted[0]);
            }
        }
        assert!(kinds.contains(&Counter::DropMalformed) && kinds.contains(&Counter::Delivered));
    });
}

#[test]
fn arp_and_neighbour_discovery_are_answered_dry_as_well() {
    both(|both| {
        let mut arp = vec![0xff; 6];
        arp.extend(MAC_POD_A);
        arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        arp.extend(MAC_POD_A);
        arp.extend(&Family::V4.a().octets()[12..]);
        arp.extend([0; 6]);
        arp.extend(&Family::V4.gateway().octets()[12..]);
        let (ran, run) = both.run_frame(Hook::FromA, &arp);
        assert_eq!(run.counted, [Counter::AnsweredNeighbour]);
        assert_eq!(said(&ran), (None, None, false, 0));
    });
}

#[test]
fn a_real_run_leaves_the_control_block_alone() {
    on_node(|node| {
        let cb = [11, 12, 13, 14, 15];
        for family in Family::BOTH {
            for flags in [SYN, ACK] {
                let t = tuple(family.a(), 4000, family.b(), 80);
                let packet = Packet::tcp(&t, flags).frame();
                let run = node.run_with(Hook::FromA, &packet, |ctx| {
                    ctx[weir_abi::dry_run::CB..][..5].copy_from_slice(&cb);
                });
                assert_eq!(run.delivered().cb, cb);
            }
        }
    });
}
