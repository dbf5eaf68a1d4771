//! VXLAN without its device: what of an established flow's packets is packed at the pod's edge, and what is left to
//! the device. That the two understand each other shows in the lab.

use weir_abi::conntrack::{Tuple, seen};
use weir_abi::counter::Counter;
use weir_abi::node::{NodeCidr, OVERLAY_MAC, UplinkInfo, VXLAN_SOURCE_PORTS, config, node_cidr};
use weir_abi::{Addr, Proto};

use crate::overlay::{PORT, overlaid};
use crate::packets::*;
use crate::rig::*;

const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 0xd0];
const OUTER: usize = 20 + 8 + 8 + 14;
/// A third node, at which other tunnels end.
pub const OTHER: Addr = Addr::from_v4([10, 200, 0, 3]);

pub fn node_v4() -> Addr {
    Family::V4.node()
}

/// The other node, at which tunnels end.
pub fn there_v4() -> Addr {
    Family::V4.other_node()
}

/// The remote pods of both families behind the overlay, over IPv4, and a way to the other node.
pub fn packing(node: &mut Node) {
    let device = node.if_overlay;
    overlaid(node);
    let word = overlay_word(node);
    node.config(config::OVERLAY, word | config::OVERLAY_IS_VXLAN);
    let pods = |number, tunnel| NodeCidr {
        node: number,
        ifindex: device,
        flags: node_cidr::OVERLAY,
        zero: 0,
        tunnel,
    };
    for family in Family::BOTH {
        let (cidr, len) = family.remote_cidr();
        node.put_node_cidr(cidr, len, pods(9, there_v4()));
    }
    let uplink = node.if_uplink;
    let info = UplinkInfo {
        addr4: node_v4(),
        addr6: Family::V6.node(),
        mac: MAC_UPLINK,
        flags: 0,
    };
    node.map("UPLINKS").insert(uplink, info, 0).unwrap();
    // Another node, whose pods are others.
    node.put_node_cidr(Addr::from_v4([10, 3, 0, 0]), 24, pods(8, OTHER));
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    ip(&format!("addr add {}/32 dev weirup", node_v4().to_ip()));
    ip(&format!("route add {} dev weirup", there_v4().to_ip()));
    ip(&neighbour());
}

/// What tells the kernel the other node's MAC address.
fn neighbour() -> String {
    let (there, mac) = (there_v4().to_ip(), mac(NEIGHBOUR));
    format!("neigh add {there} lladdr {mac} dev weirup")
}

/// What the programs are told of the overlay.
pub fn overlay_word(node: &mut Node) -> u64 {
    let words = node.array::<u64>("CONFIG");
    words.get(&config::OVERLAY, 0).unwrap()
}

pub fn flow(family: Family) -> Tuple {
    tuple(family.a(), 4000, family.remote(), 80)
}

/// A packet of the flow out of the pod, and one into it.
fn out(family: Family) -> Packet {
    Packet::udp(&flow(family), b"there")
}

pub fn back(family: Family) -> Packet {
    Packet::udp(&flow(family).reversed(), b"back")
}

/// The flow in its usual state: a test run brings no tunnel along, so the other end's packet is taken for seen.
pub fn open(node: &mut Node, family: Family) {
    node.run(Hook::FromA, &out(family).frame())
        .expect(REDIRECTED, Counter::Forwarded);
    node.edit_entry(&flow(family), Proto::UDP, |entry| {
        entry.seen = seen::REPLY | seen::ESTABLISHED | seen::ASSURED;
    });
    node.establish(&flow(family), Proto::UDP);
    // The whole way notes that the way leads to the overlay.
    node.run(Hook::FromA, &out(family).frame())
        .expect(REDIRECTED, Counter::Forwarded);
}

/// The frame, with the outer IPv4 header's checksum made right again.
pub fn summed(mut frame: Vec<u8>) -> Vec<u8> {
    frame[24..26].fill(0);
    let sum = checksum(0, &frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Makes a run's packet a train of segments; the kernel wants their size to be no larger than the packet.
pub fn train(ctx: &mut [u32]) {
    ctx[skb::GSO_SIZE] = 10;
    ctx[skb::GSO_SEGS] = 2;
}

/// The first of three runs that has not met a new tick of the clock.
fn tried(
    node: &mut Node,
    run: impl Fn(&mut Node) -> Run,
    is: impl Fn(&Run) -> bool,
) -> Option<Run> {
    (0..3).map(|_| run(node)).find(is)
}

#[test]
fn an_established_flows_packet_is_packed_at_the_pods_edge_for_the_node_that_has_the_other_end() {
    on_node(|node| {
        packing(node);
        for family in Family::BOTH {
            for mut packet in [out(family), out(family).payload(1390)] {
                packet.ttl = 64;
                open(node, family);
                let frame = packet.frame();
                let run = |node: &mut Node| {
                    let run = node.run(Hook::FromA, &frame);
                    run.expect(REDIRECTED, Counter::Forwarded)
                };
                let run = tried(node, run, |run| run.packet.len() > frame.len());
                let sent = run.expect("packed").packet;
                assert_eq!(sent.len(), frame.len() + OUTER);
                let outer = see(&sent);
                assert_eq!(outer.macs, (NEIGHBOUR, MAC_UPLINK));
                assert_eq!(
                    (outer.src, outer.dst, outer.ttl),
                    (node_v4(), there_v4(), 64)
                );
                let (first, end) = VXLAN_SOURCE_PORTS;
                assert!((first..end).contains(&outer.sport), "{}", outer.sport);
                assert_eq!(outer.dport, PORT);
                // Don't fragment, no type of service, no checksum of UDP.
                assert_eq!((sent[15], &sent[20..22]), (0, &[0x40, 0][..]));
                assert_eq!(outer.l4[6..16], [0, 0, 8, 0, 0, 0, 0, 0, 0x57, 0]);
                assert_eq!(sent[50..56], OVERLAY_MAC);
                assert_ne!(sent[56..62], OVERLAY_MAC);
                // The packet itself has one hop less.
                let inner = see(&sent[50..]);
                let was = see(&frame);
                assert_eq!(sent[62..64], frame[12..14]);
                assert_eq!((inner.src, inner.dst), (was.src, was.dst));
                assert_eq!((inner.ttl, inner.l4), (63, was.l4));
            }
        }
    });
}

#[test]
fn congestion_notification_is_carried_to_the_outer_packet_but_congestion_met_before_is_not() {
    on_node(|node| {
        packing(node);
        open(node, Family::V4);
        for (inner, outer) in [(0xb8, 0), (1, 1), (2, 2), (3, 2), (0xbb, 2)] {
            let mut frame = out(Family::V4).frame();
            frame[15] = inner;
            let frame = summed(frame);
            let run = |node: &mut Node| node.run(Hook::FromA, &frame);
            let run = tried(node, run, |run| run.packet.len() > frame.len()).expect("packed");
            assert_eq!((run.packet[15], run.packet[65]), (outer, inner));
        }
    });
}

#[test]
fn what_cannot_be_packed_goes_to_the_device_as_it_is() {
    on_node(|node| {
        packing(node);
        for family in Family::BOTH {
            open(node, family);
            let frame = out(family).frame();
            let is_packed = |run: &Run| run.packet.len() > frame.len();
            let packs = |node: &mut Node| {
                let run = |node: &mut Node| node.run(Hook::FromA, &frame);
                assert!(tried(node, run, is_packed).is_some(), "{family:?}");
            };
            let goes_to_device = |node: &mut Node, set: &dyn Fn(&mut [u32])| {
                for _ in 0..3 {
                    let run = node.run_with(Hook::FromA, &frame, set);
                    let run = run.expect(REDIRECTED, Counter::Forwarded);
                    assert!(!is_packed(&run), "{family:?}");
                }
            };
            packs(node);
            goes_to_device(node, &train);
            packs(node);
            // A neighbour of whom nobody knows the address, and a way that is too narrow.
            let there = there_v4().to_ip();
            for (spoil, mend) in [
                (format!("neigh del {there} dev weirup"), neighbour()),
                (
                    format!("route replace {there} dev weirup mtu lock 70"),
                    format!("route replace {there} dev weirup"),
                ),
                (
                    format!("route del {there} dev weirup"),
                    format!("route add {there} dev weirup"),
                ),
            ] {
                ip(&spoil);
                goes_to_device(node, &|_| {});
                ip(&mend);
                packs(node);
            }
            let word = overlay_word(node);
            node.config(config::OVERLAY, word & !config::OVERLAY_IS_VXLAN);
            goes_to_device(node, &|_| {});
            node.config(config::OVERLAY, word);
        }
    });
}
