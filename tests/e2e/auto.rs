//! `--mode=auto`: packets go as they are to nodes in a subnet of the uplink, packed to all others.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_lab::{Lab, LabBuilder};

use crate::overlay::{OVERLAY, address, answers, pod};
use crate::overlay_wire::Sniffer;
use crate::services_world::{FAMILIES, PROTOS, TARGET, ask};

/// How packets between pods of two nodes look on the wire, after pods, nodes and pods on them have been reached:
/// those with a pod's address, and the packed ones' port.
fn on_wire(lab: LabBuilder) -> BTreeSet<Option<u16>> {
    let lab = lab.nodes(2).agent_arg("--mode=auto").start().unwrap();
    let pods = [0, 1].map(|node| pod(&lab, &format!("p{node}"), node));
    let host = lab.add_host_server(0, &[]).unwrap();
    let wire = Sniffer::start(&lab.fabric()).unwrap();
    let (here, there) = (&pods[0], &pods[1]);
    for v4 in FAMILIES {
        let to = address(there, v4);
        for proto in PROTOS {
            for from in [&here.control, &host] {
                let outcome = from.probe(ask(to, TARGET, proto).bytes(1300)).unwrap();
                answers(&outcome, &there.key(), &format!("{to}, {proto:?}"));
            }
        }
    }
    let is_pod = |ip: &IpAddr| pods.iter().any(|pod| pod.addresses.contains(ip));
    let seen = wire.stop().unwrap().into_keys();
    let looks = seen.filter_map(|packet| {
        if packet.inside.is_some_and(|ends| ends.iter().any(is_pod)) {
            Some(packet.port)
        } else {
            (is_pod(&packet.from) || is_pod(&packet.to)).then_some(None)
        }
    });
    looks.collect()
}

#[test]
fn packets_to_a_node_in_the_uplinks_subnet_go_as_they_are() {
    assert_eq!(on_wire(Lab::builder()), BTreeSet::from([None]));
}

#[test]
fn packets_to_a_node_behind_a_router_go_packed() {
    // The router's network knows no pods.
    let lab = Lab::builder().narrow(1500).unrouted();
    assert_eq!(on_wire(lab), BTreeSet::from([Some(OVERLAY)]));
}
