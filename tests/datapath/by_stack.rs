//! Flows between a pod and the world: what goes one way by the stack comes back by the stack, for
//! whoever follows connections there (netfilter) must see both sides of each, or nothing of it.

use weir_abi::conntrack::flags;
use weir_abi::counter::Counter;
use weir_abi::{Addr, Proto};

use crate::packets::*;
use crate::rig::*;
use crate::services::ends;

const UNTRACKED: &str = "the stack has seen it";

fn arrives(node: &mut Node, packet: &Packet) -> Run {
    let frame = packet.clone().addressed(MAC_UPLINK).frame();
    node.run(Hook::FromUplink, &frame)
}

fn sends(node: &mut Node, packet: &Packet) -> Run {
    node.run(Hook::FromB, &packet.clone().addressed(MAC_HOST_B).frame())
}

#[test]
fn the_answer_to_what_a_pod_has_sent_by_the_stack_goes_to_the_pod_by_the_stack() {
    on_node(|node| {
        for family in Family::BOTH {
            let (pod, world) = (family.b(), family.world());
            let out = tuple(pod, 4000, world, 443);
            sends(node, &Packet::tcp(&out, SYN)).left_to_stack();
            let (_, entry) = node.entry(&out, Proto::TCP).unwrap();
            assert_ne!(entry.flags & flags::BY_STACK, 0, "{UNTRACKED}");
            let back = Packet::tcp(&out.reversed(), SYN | ACK);
            arrives(node, &back).left_to_stack();
            let frame = back.addressed(MAC_POD_B).frame();
            node.run(Hook::ToB, &frame).left_to_stack();
            sends(node, &Packet::tcp(&out, ACK)).left_to_stack();
            assert_eq!(node.entry(&out, Proto::TCP).unwrap().0, "CT_EST");
        }
    });
}

#[test]
fn a_reply_through_a_service_comes_back_by_the_stack_and_is_translated_at_the_pod() {
    on_node(|node| {
        for family in Family::BOTH {
            let (pod, world, vip) = (family.b(), family.world(), family.vip());
            node.service(vip, 80, Proto::UDP, &[(7, world, 8080)]);
            let out = Packet::udp(&tuple(pod, 4000, vip, 80), b"question");
            let seen = see(&sends(node, &out).left_to_stack().packet);
            assert_eq!(ends(&seen), (pod, 4000, world, 8080));
            let back = Packet::udp(&tuple(world, 8080, pod, 4000), b"answer");
            let seen = see(&arrives(node, &back).left_to_stack().packet);
            assert_eq!(seen.src, world, "the stack knows it by this");
            let run = node.run(Hook::ToB, &back.addressed(MAC_POD_B).frame());
            assert_eq!(
                ends(&see(&run.left_to_stack().packet)),
                (vip, 80, pod, 4000)
            );
        }
    });
}

#[test]
fn a_pods_answer_to_who_came_by_an_uplink_past_the_stack_goes_back_past_it() {
    on_node(|node| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        ip("link set weirupp up");
        ip("link set weirbp up");
        ip("addr add 10.100.0.1/24 dev weirup");
        ip("addr add fd00:64::1/64 dev weirup nodad");
        for (family, routed) in Family::BOTH
            .into_iter()
            .flat_map(|f| [(f, false), (f, true)])
        {
            let hop = if family == Family::V4 {
                "10.100.0.2"
            } else {
                "fd00:64::2"
            };
            let all = if family == Family::V4 { "-4" } else { "-6" };
            if routed {
                ip(&format!("{all} route add default via {hop} dev weirup"));
            }
            node.nat(61_000, 61_003);
            let port = if routed { 4001 } else { 4000 };
            let (pod, world): (Addr, Addr) = (family.b(), family.world());
            let there = tuple(world, port, pod, 8080);
            arrives(node, &Packet::tcp(&there, SYN)).delivered();
            let answer = sends(node, &Packet::tcp(&there.reversed(), SYN | ACK));
            if routed {
                let run = answer.expect(REDIRECTED, Counter::Forwarded);
                assert_eq!(see(&run.packet).ttl, 63);
            } else {
                // Whatever the kernel makes of it.
                answer.left_to_stack();
            }
        }
    });
}
