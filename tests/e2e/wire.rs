//! Which addresses are on the wire between nodes and to the world, captured there: masqueraded,
//! preserved, packed, and nothing else.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;
use weir_lab::{Lab, Listen, Outcome, Pod, PodSpec};

use crate::overlay_wire::{OnWire, Sniffer};
use crate::services_world::{FAMILIES, NODE_PORT, PROTOS, TARGET, World, ask, node_port};

const WORLD: [&str; 2] = ["203.0.113.10", "2001:db8:113::10"];
/// UDP port of the overlay.
const OVERLAY: u16 = 8472;

/// A pod on each of two nodes, in a network that knows no pods.
fn two_pods(mode: &str) -> (Lab, [Arc<Pod>; 2]) {
    let builder = Lab::builder().nodes(2).unrouted();
    let lab = builder.agent_arg(mode).start().unwrap();
    let pods = [0, 1].map(|node| {
        let mut spec = PodSpec::new("default", &format!("p{node}"), node);
        spec.listen = listens().into();
        lab.add_pod(&spec).unwrap()
    });
    (lab, pods)
}

fn listens() -> [Listen; 2] {
    PROTOS.map(|proto| Listen {
        proto,
        port: TARGET,
    })
}

fn dial(from: &Pod, to: IpAddr) {
    for proto in PROTOS {
        let outcome = from.probe(ask(to, TARGET, proto).bytes(3000)).unwrap();
        assert!(
            matches!(outcome, Outcome::Answer { .. }),
            "{proto:?} {to}: {outcome:?}"
        );
    }
}

fn address(pod: &Pod, v4: bool) -> IpAddr {
    if v4 { pod.v4() } else { pod.v6() }
}

/// Whom an address has exchanged packets with, bare. Groups (whose neighbour is asked for) are nobody.
fn peers_of(seen: &BTreeSet<OnWire>, address: IpAddr) -> BTreeSet<IpAddr> {
    let of = |flow: &OnWire| match (flow.from == address, flow.to == address) {
        (true, _) => Some(flow.to),
        (_, true) => Some(flow.from),
        _ => None,
    };
    let peers = seen.iter().filter_map(of);
    peers.filter(|peer| !peer.is_multicast()).collect()
}

/// What is on the wire while a pod dials the other node's pod and the world.
fn captured(lab: &Lab, pods: &[Arc<Pod>; 2]) -> BTreeSet<OnWire> {
    let _servers = WORLD.map(|ip| lab.add_outside(ip.parse().unwrap(), &listens()).unwrap());
    let wire = Sniffer::start(&lab.fabric()).unwrap();
    for v4 in FAMILIES {
        dial(&pods[0], address(&pods[1], v4));
        dial(&pods[0], WORLD[usize::from(!v4)].parse().unwrap());
    }
    wire.stop().unwrap().into_keys().collect()
}

#[test]
fn natively_pods_are_on_the_wire_between_nodes_and_the_world_sees_the_node_alone() {
    let (lab, pods) = two_pods("--mode=native");
    let seen = captured(&lab, &pods);
    for (family, v4) in FAMILIES.into_iter().enumerate() {
        let [near, far] = [0, 1].map(|pod| address(&pods[pod], v4));
        assert_eq!(peers_of(&seen, near), BTreeSet::from([far]), "preserved");
        assert_eq!(peers_of(&seen, far), BTreeSet::from([near]), "preserved");
        let world = peers_of(&seen, WORLD[family].parse().unwrap());
        let node = lab.nodes[0].addresses[family];
        assert_eq!(world, BTreeSet::from([node]), "masqueraded");
    }
    assert!(
        !seen.iter().any(|flow| flow.port == Some(OVERLAY)),
        "{seen:?}"
    );
}

#[test]
fn over_the_overlay_pods_are_inside_packets_between_nodes_and_the_world_sees_the_node_alone() {
    let (lab, pods) = two_pods("--mode=vxlan");
    let seen = captured(&lab, &pods);
    for (family, v4) in FAMILIES.into_iter().enumerate() {
        for pod in &pods {
            assert_eq!(peers_of(&seen, address(pod, v4)), BTreeSet::new(), "bare");
        }
        let world = peers_of(&seen, WORLD[family].parse().unwrap());
        let node = lab.nodes[0].addresses[family];
        assert_eq!(world, BTreeSet::from([node]), "masqueraded");
        let [near, far] = [0, 1].map(|pod| address(&pods[pod], v4));
        let inside: BTreeSet<[IpAddr; 2]> = seen.iter().filter_map(|flow| flow.inside).collect();
        let of_family = |pair: &&[IpAddr; 2]| pair[0].is_ipv4() == v4;
        let of_family: BTreeSet<_> = inside.iter().filter(of_family).copied().collect();
        assert_eq!(
            of_family,
            BTreeSet::from([[near, far], [far, near]]),
            "packed"
        );
    }
    let ends = [0, 1].map(|node| lab.nodes[node].addresses[0]);
    for flow in seen.iter().filter(|flow| flow.port == Some(OVERLAY)) {
        assert!(
            ends.contains(&flow.from) && ends.contains(&flow.to),
            "{flow:?}"
        );
        assert!(
            flow.inside.is_some(),
            "something else in the tunnel: {flow:?}"
        );
    }
}

#[test]
fn a_node_port_with_local_traffic_brings_the_clients_own_address_into_the_pod_in_both_modes() {
    for mode in ["--mode=native", "--mode=vxlan"] {
        let spec = node_port().with("externalTrafficPolicy", json!("Local"));
        let world = World::with_args(&[mode], 2, spec, &[0]);
        let backend = &world.backends[0];
        let pod = Sniffer::start(&backend.place().unwrap()).unwrap();
        let wire = Sniffer::start(&world.lab.fabric()).unwrap();
        for v4 in FAMILIES {
            for proto in PROTOS {
                let outcome = world
                    .outside
                    .probe(ask(world.node(0, v4), NODE_PORT, proto));
                let outcome = outcome.unwrap();
                assert!(matches!(outcome, Outcome::Answer { .. }), "{outcome:?}");
            }
        }
        let [pod, wire] = [pod, wire].map(|s| s.stop().unwrap().into_keys().collect());
        for v4 in FAMILIES {
            let client = world.outside.address(v4);
            let own = BTreeSet::from([address(backend, v4)]);
            assert_eq!(peers_of(&pod, client), own, "{mode}: in the pod");
            let node = BTreeSet::from([world.node(0, v4)]);
            assert_eq!(peers_of(&wire, client), node, "{mode}: on the wire");
            assert_eq!(
                peers_of(&wire, address(backend, v4)),
                BTreeSet::new(),
                "{mode}"
            );
        }
    }
}
