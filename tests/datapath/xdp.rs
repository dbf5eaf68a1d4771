//! The XDP program: what the tc programs have opened goes on in the driver, with the same result;
//! everything else is left to them.

use aya::programs::{TestRun, TestRunOptions, Xdp};
use weir_abi::conntrack::Tuple;
use weir_abi::counter::Counter;
use weir_abi::{Addr, Proto};

use crate::packets::*;
use crate::rig::*;
use crate::services::{answer, ends, opening};

const BACKEND: u32 = 7;
const PORT: u16 = 30_080;
const PASS: u32 = 2;
const TRANSMIT: u32 = 3;
const ROUTER: [u8; 6] = [2, 0, 0, 0, 9, 9];
const PROTOS: [Proto; 2] = [Proto::TCP, Proto::UDP];

/// Runs a frame through the program at the uplink: what it says, and the frame.
fn run(node: &mut Node, frame: &[u8]) -> (u32, Vec<u8>) {
    let uplink = node.if_uplink;
    let program: &mut Xdp = node
        .ebpf
        .program_mut("xdp_uplink")
        .expect("xdp_uplink")
        .try_into()
        .expect("an XDP program");
    if program.fd().is_err() {
        program.load().expect("the verifier accepts it");
    }
    // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let ctx = [0, frame.len() as u32, 0, uplink, 0, 0];
    let ctx: Vec<u8> = ctx.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut out = vec![0; frame.len() + 64];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&ctx),
            ..TestRunOptions::default()
        })
        .expect("BPF_PROG_TEST_RUN");
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

fn passes(node: &mut Node, packet: &Packet) {
    let frame = packet.clone().addressed(MAC_UPLINK).frame();
    assert_eq!(run(node, &frame), (PASS, frame), "left as it is");
}

/// A router on the uplink that all else is behind, and a NodePort with a backend behind it.
fn far(node: &mut Node, family: Family, proto: Proto) {
    let (cidr, len) = family.remote_cidr();
    let uplink = node.if_uplink;
    node.node_cidr(cidr, len, uplink);
    node.nat(61_000, 61_999);
    let v4 = family == Family::V4;
    node.node_port(v4, PORT, proto, &[(BACKEND, family.remote(), 8080)]);
}

fn on_wired_node(test: impl FnOnce(&mut Node) + Send + 'static) {
    on_node(|node| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        let router = ROUTER.map(|b| format!("{b:02x}")).join(":");
        ip("link set weirupp up");
        ip("addr add 10.100.0.1/24 dev weirup");
        ip("addr add fd00:64::1/64 dev weirup nodad");
        for (family, hop, default) in [
            ("-4", "10.100.0.2", "0.0.0.0/0"),
            ("-6", "fd00:64::2", "::/0"),
        ] {
            ip(&format!(
                "{family} route add {default} via {hop} dev weirup"
            ));
            ip(&format!(
                "{family} neigh replace {hop} lladdr {router} dev weirup nud permanent"
            ));
        }
        test(node);
    });
}

fn there(family: Family) -> Tuple {
    tuple(family.world(), 4000, family.node(), PORT)
}

/// Opens a flow through tc: the port that the node gives it.
fn opened(node: &mut Node, family: Family, proto: Proto) -> u16 {
    let first = opening(proto, &there(family)).addressed(MAC_UPLINK).frame();
    let sent = node.run(Hook::FromUplink, &first);
    assert_eq!(sent.action, REDIRECTED);
    see(&sent.packet).sport
}

/// A later packet of the client.
fn later(family: Family, proto: Proto) -> Packet {
    match proto {
        Proto::TCP => Packet::tcp(&there(family), ACK).payload(100),
        _ => Packet::udp(&there(family), b"another question"),
    }
}

/// A packet through the driver and through tc: the same but for the addresses of the frame, which
/// tc leaves to the kernel's neighbour table.
fn goes_on_as_by_tc(node: &mut Node, packet: &Packet) -> Seen {
    let frame = packet.clone().addressed(MAC_UPLINK).frame();
    let (action, out) = run(node, &frame);
    assert_eq!(action, TRANSMIT);
    assert_eq!((&out[..6], &out[6..12]), (&ROUTER[..], &MAC_UPLINK[..]));
    let by_tc = node.run(Hook::FromUplink, &frame);
    // The driver's packet is counted as well.
    assert_eq!(by_tc.counted, [Counter::Forwarded, Counter::Forwarded]);
    assert_eq!(out[12..], by_tc.packet[12..]);
    see(&out)
}

#[test]
fn a_known_flows_packets_go_on_in_the_driver_both_ways_as_tc_sends_them() {
    for proto in PROTOS {
        on_wired_node(move |node| {
            for family in Family::BOTH {
                far(node, family, proto);
                let port = opened(node, family, proto);
                let (world, host, remote) = (family.world(), family.node(), family.remote());
                let reply = answer(proto, &tuple(remote, 8080, host, port));
                let seen = goes_on_as_by_tc(node, &reply);
                assert_eq!(ends(&seen), (host, PORT, world, 4000));
                let seen = goes_on_as_by_tc(node, &later(family, proto));
                assert_eq!(ends(&seen), (host, port, remote, 8080));
                assert_eq!(seen.ttl, 63);
            }
        });
    }
}

#[test]
fn a_flow_is_established_by_packets_that_only_the_driver_sees() {
    on_wired_node(|node| {
        for family in Family::BOTH {
            far(node, family, Proto::TCP);
            let port = opened(node, family, Proto::TCP);
            assert_eq!(node.entry(&there(family), Proto::TCP).unwrap().0, "CT_NEW");
            let back = tuple(family.remote(), 8080, family.node(), port);
            for packet in [answer(Proto::TCP, &back), later(family, Proto::TCP)] {
                let frame = packet.addressed(MAC_UPLINK).frame();
                assert_eq!(run(node, &frame).0, TRANSMIT);
            }
            for tuple in [there(family), back] {
                assert_eq!(node.entry(&tuple, Proto::TCP).unwrap().0, "CT_EST");
            }
        }
    });
}

#[test]
fn what_is_unknown_opens_or_is_not_plain_is_left_to_tc() {
    on_wired_node(|node| {
        for family in Family::BOTH {
            far(node, family, Proto::TCP);
            passes(node, &later(family, Proto::TCP));
            opened(node, family, Proto::TCP);
            passes(node, &opening(Proto::TCP, &there(family)));
            passes(node, &later(family, Proto::TCP).ttl(1));
            let own: Addr = family.node();
            passes(node, &Packet::tcp(&tuple(own, 4000, own, PORT), ACK));
            let anothers = later(family, Proto::TCP)
                .addressed([2, 0, 0, 0, 7, 7])
                .frame();
            assert_eq!(run(node, &anothers), (PASS, anothers));
            let (echo, _) = family.echo();
            passes(
                node,
                &Packet::icmp(family.world(), own, echo, 0, [0, 1, 0, 1], b"x"),
            );
        }
    });
}

#[test]
fn datagrams_to_a_backend_that_is_gone_are_left_to_tc_which_moves_them() {
    on_wired_node(|node| {
        for family in Family::BOTH {
            far(node, family, Proto::UDP);
            opened(node, family, Proto::UDP);
            goes_on_as_by_tc(node, &later(family, Proto::UDP));
            node.remove_backend(BACKEND);
            passes(node, &later(family, Proto::UDP));
        }
    });
}

#[test]
fn without_a_way_out_of_the_same_device_packets_are_left_to_tc() {
    on_wired_node(|node| {
        for family in Family::BOTH {
            far(node, family, Proto::TCP);
            opened(node, family, Proto::TCP);
        }
        ip("route del default");
        ip("-6 route del default");
        for family in Family::BOTH {
            passes(node, &later(family, Proto::TCP));
        }
    });
}

#[test]
fn flows_to_pods_of_this_node_are_left_to_tc() {
    on_wired_node(|node| {
        for family in Family::BOTH {
            let v4 = family == Family::V4;
            node.node_port(v4, PORT, Proto::TCP, &[(BACKEND, family.b(), 8080)]);
            let first = opening(Proto::TCP, &there(family))
                .addressed(MAC_UPLINK)
                .frame();
            node.run(Hook::FromUplink, &first).delivered();
            passes(node, &later(family, Proto::TCP));
        }
    });
}
