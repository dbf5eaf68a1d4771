//! Established flows over VXLAN: most of their packets pass without the overlay's device, and nothing must show
//! of that but the time that it saves.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use weir_lab::spawn::{Place, run_in};
use weir_lab::{Lab, Pod};

use crate::overlay::{DEVICE, address, lab, pod};
use crate::overlay_wire::{Packed, Sniffer};
use crate::services_world::FAMILIES;
use crate::wait::await_that;

/// How long one packet may take.
const LIMIT: Duration = Duration::from_secs(5);

fn start() -> (Lab, [Arc<Pod>; 2]) {
    let lab = lab("--mode=vxlan");
    let pods = [0, 1].map(|node| pod(&lab, &format!("p{node}"), node));
    (lab, pods)
}

fn within(pod: &Pod) -> Place {
    pod.place().unwrap().net_only()
}

/// Changes IPsec's policies on a node, to one that asks for nothing.
fn ipsec(lab: &Lab, node: usize, change: &str) {
    run_in(&lab.nodes[node].place().net_only(), || {
        let words = ["xfrm", "policy", change, "src", "192.0.2.1/32"];
        let rest = ["dst", "192.0.2.2/32", "dir", "out"];
        let done = Command::new("ip").args(words).args(rest).status()?;
        anyhow::ensure!(done.success(), "ip xfrm: {done}");
        Ok(())
    })
    .unwrap();
}

/// Whether the node's status says that IPsec slows the overlay down.
fn is_slowed(lab: &Lab, node: usize) -> bool {
    let status = lab.nodes[node].client().status().unwrap();
    status.notes.iter().any(|note| note.contains("IPsec"))
}

#[test]
fn where_the_kernel_has_ipsec_policies_every_packet_goes_through_the_device_and_the_status_says_so()
{
    const ROUNDS: u64 = 300;
    let (lab, pods) = start();
    for v4 in FAMILIES {
        let sockets = sockets(&pods, v4);
        let mut number = 0;
        // Packets of so many rounds that node 0's device has taken in and sent.
        let mut by_device = || {
            let before = device_packets(&lab, 0);
            for _ in 0..ROUNDS {
                number += 1;
                round(&sockets, number);
            }
            let after = device_packets(&lab, 0);
            [after[0] - before[0], after[1] - before[1]]
        };
        by_device();
        assert!(!is_slowed(&lab, 0));
        assert!(by_device().iter().all(|n| *n < ROUNDS / 2));
        ipsec(&lab, 0, "add");
        // The agent hears of it.
        await_that("the agent hears of it", || is_slowed(&lab, 0));
        assert_eq!(by_device(), [ROUNDS; 2]);
        ipsec(&lab, 0, "delete");
        await_that("the agent hears of it", || !is_slowed(&lab, 0));
        by_device();
        await_that("the device is passed by again", || {
            by_device().iter().all(|n| *n < ROUNDS / 2)
        });
    }
}

/// Packets that the overlay's device of a node has taken in and sent.
fn device_packets(lab: &Lab, node: usize) -> [u64; 2] {
    let path = format!("/proc/{}/net/dev", lab.nodes[node].holder_pid());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text
        .lines()
        .find_map(|l| l.trim_start().strip_prefix(DEVICE));
    let line = line.unwrap().trim_start_matches(':');
    let fields: Vec<u64> = line
        .split_whitespace()
        .map(|f| f.parse().unwrap())
        .collect();
    [fields[1], fields[9]]
}

/// Two sockets, each connected to the other.
fn sockets(pods: &[Arc<Pod>; 2], v4: bool) -> [UdpSocket; 2] {
    let sockets = [0, 1].map(|i| {
        let bind = || Ok(UdpSocket::bind((address(&pods[i], v4), 0))?);
        run_in(&within(&pods[i]), bind).unwrap()
    });
    for i in [0, 1] {
        let other = sockets[1 - i].local_addr().unwrap();
        sockets[i].connect(other).unwrap();
        sockets[i].set_read_timeout(Some(LIMIT)).unwrap();
    }
    sockets
}

/// A datagram there and one back.
fn round([a, b]: &[UdpSocket; 2], number: u32) {
    for (from, to) in [(a, b), (b, a)] {
        from.send(&number.to_be_bytes()).unwrap();
        let mut got = [0; 8];
        let length = to.recv(&mut got).unwrap();
        assert_eq!(got[..length], number.to_be_bytes());
    }
}

#[test]
fn an_established_flows_packets_pass_the_device_only_now_and_then_and_have_one_source_port_whoever_packs_them()
 {
    const ROUNDS: u32 = 3000;
    let (lab, pods) = start();
    for v4 in FAMILIES {
        let sockets = sockets(&pods, v4);
        (0..5).for_each(|number| round(&sockets, number));
        let wire = Sniffer::start(&lab.fabric()).unwrap();
        let before = [0, 1].map(|node| device_packets(&lab, node));
        let mut rounds = 0;
        // Until the device has packed one of each end, too.
        let by_device = || {
            [0, 1].map(|node| {
                let [received, sent] = device_packets(&lab, node);
                [received - before[node][0], sent - before[node][1]]
            })
        };
        while rounds < ROUNDS || by_device().iter().any(|[_, sent]| *sent == 0) {
            round(&sockets, rounds);
            rounds += 1;
            assert!(rounds < 100 * ROUNDS, "the device never packs anything");
        }
        for packets in by_device() {
            assert!(
                packets.iter().all(|n| *n < u64::from(rounds) / 10),
                "{packets:?} of {rounds}"
            );
        }
        let packed = wire.packed().unwrap();
        for i in [0, 1] {
            let [from, to] = [i, 1 - i].map(|i| address(&pods[i], v4));
            let of_flow = |p: &&Packed| p.inside == [from, to];
            let ports: BTreeSet<u16> = packed
                .iter()
                .filter(of_flow)
                .map(|p| p.source_port)
                .collect();
            assert_eq!(ports.len(), 1, "{from} to {to}: {ports:?}");
        }
    }
}
