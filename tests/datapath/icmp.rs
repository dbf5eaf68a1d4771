//! ICMP errors of flows without translation; those of Services stand with the Services.

use weir_abi::conntrack::Tuple;
use weir_abi::counter::Counter;
use weir_abi::policy::GroupId;

use crate::packets::*;
use crate::rig::*;

const CLOSED: GroupId = GroupId::CLOSED;

/// "Port unreachable" (or another code) about a packet, from `src`.
fn unreachable(family: Family, src: weir_abi::Addr, about: &Packet) -> Packet {
    let (kind, code) = if family == Family::V4 { (3, 3) } else { (1, 4) };
    let dst = about.src;
    Packet::icmp(src, dst, kind, code, [0; 4], &about.ip())
}

fn flow(family: Family) -> Tuple {
    tuple(family.a(), 4000, family.b(), 53)
}

#[test]
fn an_error_about_a_flow_passes_against_every_policy() {
    on_node(|node| {
        for family in Family::BOTH {
            node.groups(SLOT_A, CLOSED, GroupId::OPEN);
            node.groups(SLOT_B, GroupId::OPEN, CLOSED);
            let query = Packet::udp(&flow(family), b"?");
            node.run(Hook::FromA, &query.frame()).delivered();
            let error = unreachable(family, family.b(), &query);
            let run = node.run(Hook::FromB, &error.frame()).delivered();
            let seen = see(&run.packet);
            assert_eq!((seen.src, seen.dst, seen.ttl), (family.b(), family.a(), 63));
            assert_eq!(seen.l4[8..], query.ip()[..]);
            assert_eq!(node.entries(), 1, "an error creates no state");
            node.groups(SLOT_A, GroupId::OPEN, GroupId::OPEN);
            node.groups(SLOT_B, GroupId::OPEN, GroupId::OPEN);
            node.map::<weir_abi::conntrack::CtKey, weir_abi::conntrack::CtEntry>("CT_NEW")
                .remove(&weir_abi::conntrack::CtKey::sorted(&flow(family), weir_abi::Proto::UDP).0)
                .unwrap();
        }
    });
}

#[test]
fn an_error_of_any_router_about_a_flow_reaches_the_pod() {
    on_node(|node| {
        for family in Family::BOTH {
            node.groups(SLOT_B, CLOSED, GroupId::OPEN);
            let t = tuple(family.b(), 4000, family.world(), 443);
            let packet = Packet::tcp(&t, SYN);
            let frame = packet.clone().addressed(MAC_HOST_B).frame();
            node.run(Hook::FromB, &frame).left_to_stack();
            let mut about = packet.clone();
            about.l4.truncate(8);
            about.no_checksum = true;
            let (kind, code) = if family == Family::V4 {
                (11, 0)
            } else {
                (3, 0)
            };
            let error = Packet::icmp(family.remote(), family.b(), kind, code, [0; 4], &about.ip());
            // By the stack, which has forwarded what it is about.
            let frame = error.clone().addressed(MAC_UPLINK).frame();
            node.run(Hook::FromUplink, &frame).left_to_stack();
            let frame = error.addressed(MAC_POD_B).frame();
            node.run(Hook::ToB, &frame).left_to_stack();
            // About a flow that is not there, it is a message like any other.
            let other = Packet::tcp(&tuple(family.b(), 4001, family.world(), 443), SYN);
            let error = Packet::icmp(family.remote(), family.b(), kind, code, [0; 4], &other.ip());
            node.run(Hook::FromUplink, &error.addressed(MAC_UPLINK).frame())
                .dropped(Counter::DropNoRow);
            node.groups(SLOT_B, GroupId::OPEN, GroupId::OPEN);
        }
    });
}

#[test]
fn an_error_about_a_flow_that_is_forbidden_now_is_cut_too() {
    on_node(|node| {
        for family in Family::BOTH {
            let query = Packet::udp(&flow(family), b"?");
            node.run(Hook::FromA, &query.frame()).delivered();
            node.groups(SLOT_B, CLOSED, GroupId::OPEN);
            let error = unreachable(family, family.b(), &query);
            node.run(Hook::FromB, &error.frame())
                .dropped(Counter::DropNoRow);
            node.groups(SLOT_B, GroupId::OPEN, GroupId::OPEN);
        }
    });
}

#[test]
fn a_pod_cannot_report_on_what_it_was_not_sent() {
    on_node(|node| {
        for family in Family::BOTH {
            node.groups(SLOT_A, CLOSED, GroupId::OPEN);
            let t = tuple(family.a(), 4000, family.world(), 443);
            let packet = Packet::tcp(&t, SYN);
            node.run(Hook::FromA, &packet.frame()).left_to_stack();
            let forged = unreachable(family, family.b(), &packet);
            node.run(Hook::FromB, &forged.frame())
                .dropped(Counter::DropSpoofed);
            // Nor tell somebody else than the packet's sender.
            let query = Packet::udp(&tuple(family.remote(), 1, family.b(), 53), b"?");
            node.run(
                Hook::FromUplink,
                &query.clone().addressed(MAC_UPLINK).frame(),
            )
            .delivered();
            let mut astray = unreachable(family, family.b(), &query);
            astray.dst = family.a();
            node.run(Hook::FromB, &astray.frame())
                .dropped(Counter::DropNoRow);
            node.groups(SLOT_A, GroupId::OPEN, GroupId::OPEN);
        }
    });
}

#[test]
fn an_error_that_quotes_too_little_or_a_later_fragment_matches_no_flow() {
    on_node(|node| {
        for family in Family::BOTH {
            let query = Packet::udp(&flow(family), b"?");
            node.run(Hook::FromA, &query.frame()).delivered();
            node.groups(SLOT_A, CLOSED, GroupId::OPEN);
            let whole = unreachable(family, family.b(), &query);
            for len in 8..8 + family.ip_header() + 8 {
                let mut error = whole.clone();
                error.l4.truncate(len);
                node.run(Hook::FromB, &error.frame())
                    .dropped(Counter::DropNoRow);
            }
            let mut enough = whole.clone();
            enough.l4.truncate(8 + family.ip_header() + 8);
            node.run(Hook::FromB, &enough.frame()).delivered();
            let mut later = query.clone();
            if family == Family::V4 {
                later.fragment = 4;
            } else {
                later.first_extension = Some(44);
                later.options = vec![17, 0, 0, 32, 0, 0, 0, 1];
            }
            node.run(
                Hook::FromB,
                &unreachable(family, family.b(), &later).frame(),
            )
            .dropped(Counter::DropNoRow);
            node.groups(SLOT_A, GroupId::OPEN, GroupId::OPEN);
        }
    });
}

#[test]
fn an_error_about_an_error_matches_no_flow() {
    on_node(|node| {
        for family in Family::BOTH {
            let query = Packet::udp(&flow(family), b"?");
            node.run(Hook::FromA, &query.frame()).delivered();
            node.groups(SLOT_B, CLOSED, GroupId::OPEN);
            node.groups(SLOT_A, GroupId::OPEN, CLOSED);
            let error = unreachable(family, family.b(), &query);
            let twice = unreachable(family, family.a(), &error);
            node.run(Hook::FromA, &twice.frame())
                .dropped(Counter::DropNoRow);
            node.groups(SLOT_A, GroupId::OPEN, GroupId::OPEN);
            node.groups(SLOT_B, GroupId::OPEN, GroupId::OPEN);
        }
    });
}

#[test]
fn an_error_with_its_last_hop_is_dropped_without_an_answer() {
    on_node(|node| {
        for family in Family::BOTH {
            let query = Packet::udp(&flow(family), b"?");
            node.run(Hook::FromA, &query.frame()).delivered();
            let error = unreachable(family, family.b(), &query).ttl(1);
            node.run(Hook::FromB, &error.frame())
                .dropped(Counter::DropInvalidState);
        }
    });
}
