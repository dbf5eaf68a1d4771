//! Ways with less room than the machines' links: senders are told, through every translation, and what
//! they send arrives. Between any two machines is a router here.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;
use weir_lab::{Lab, LabBuilder, Listen, Outcome, OutsideClient, Pod, PodSpec, Probe, Proto};

use crate::services_world::{
    FAMILIES, NODE_PORT, PORT, TARGET, answer, eventually, node_port, server,
};
use weir_lab::Backend;

/// Room on the way, bytes; the links have 1500.
const ROOM: u32 = 1400;
/// What is echoed, so that both ways carry full packets.
const BULK: u32 = 300_000;

const TCP: Listen = Listen {
    proto: Proto::Tcp,
    port: TARGET,
};

fn lab(nodes: u8) -> LabBuilder {
    Lab::builder().nodes(nodes).narrow(ROOM)
}

fn pod(lab: &Lab, name: &str, node: usize) -> Arc<Pod> {
    let spec = PodSpec::new("default", name, node).label("app", "web");
    lab.add_pod(&spec.port(TCP, "")).unwrap()
}

fn bulk(to: IpAddr, port: u16) -> Probe {
    Probe::tcp(to, port).bytes(BULK).timeout_ms(15_000)
}

fn address(pod: &Pod, v4: bool) -> IpAddr {
    if v4 { pod.v4() } else { pod.v6() }
}

#[track_caller]
fn answered(outcome: &Outcome, name: &str, what: &str) {
    assert!(
        matches!(outcome, Outcome::Answer { from, .. } if from == name),
        "{what}: {outcome:?}"
    );
}

/// Isolates all pods in both directions, but for TCP to and from everybody: ICMP is let in nowhere, and errors
/// come in with their flow or not at all.
fn isolate(lab: &Lab) {
    let tcp = json!([{"ports": [{"protocol": "TCP"}]}]);
    lab.cluster
        .apply(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "default", "name": "tcp-only"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                     "ingress": tcp, "egress": tcp},
        }))
        .unwrap();
}

/// A machine behind the router, which serves.
fn machine(lab: &Lab) -> OutsideClient {
    let machine = lab.add_client(0).unwrap();
    machine.control.listen(&[TCP]).unwrap();
    machine
}

/// Pods that anybody may send to, and pods that are isolated but for TCP.
fn open_and_isolated(lab: &Lab, check: impl Fn(&str)) {
    check("open");
    isolate(lab);
    check("isolated");
}

#[test]
fn a_masqueraded_pod_and_a_server_behind_a_narrow_router_exchange_bulk() {
    let lab = lab(1).unrouted().start().unwrap();
    let machine = machine(&lab);
    open_and_isolated(&lab, |what| {
        // Each has a destination cache of its own, which has not heard of the router yet.
        let pod = pod(&lab, what, 0);
        for v4 in FAMILIES {
            let outcome = pod.probe(bulk(machine.address(v4), TARGET)).unwrap();
            answered(&outcome, "outside/c0", &format!("{what}, IPv4 {v4}"));
        }
        lab.remove_pod(&pod).unwrap();
    });
    let seen = machine.control.seen().unwrap();
    let nodes = lab.nodes[0].addresses;
    assert!(
        seen.iter().all(|seen| nodes.contains(&seen.from.ip())),
        "masqueraded: {seen:?}"
    );
}

fn pods_of_two_nodes(mode: &str) {
    let lab = lab(2).agent_arg(mode).start().unwrap();
    open_and_isolated(&lab, |what| {
        let pods = [0, 1].map(|node| pod(&lab, &format!("{what}{node}"), node));
        for v4 in FAMILIES {
            for (from, to) in [(0, 1), (1, 0)] {
                let outcome = pods[from].probe(bulk(address(&pods[to], v4), TARGET));
                let what = format!("{mode}, {what}, IPv4 {v4}, node {from} to {to}");
                answered(&outcome.unwrap(), &pods[to].key(), &what);
            }
        }
    });
}

#[test]
fn pods_of_two_nodes_with_a_narrow_router_between_exchange_bulk() {
    pods_of_two_nodes("--mode=native");
}

#[test]
fn pods_exchange_bulk_through_an_overlay_whose_tunnel_has_a_narrow_router_between() {
    pods_of_two_nodes("--mode=vxlan");
}

fn node_ports(mode: &str) {
    let lab = lab(2).agent_arg(mode).start().unwrap();
    let machine = machine(&lab);
    let [one, two] = [0, 1].map(|node| server(&lab, &format!("b{node}"), node));
    let spec = node_port();
    spec.apply(&lab).unwrap();
    for backend in [&one, &two] {
        spec.set_backends(&lab, &[Backend::ready(backend)]).unwrap();
        for v4 in FAMILIES {
            // By the first node: a backend that is local, then one that is not.
            let node = lab.nodes[0].addresses[usize::from(!v4)];
            eventually(
                || match machine.probe(Probe::tcp(node, NODE_PORT)).unwrap() {
                    Outcome::Answer { from, .. } if from == backend.key() => Ok(()),
                    other => Err(format!("{node}: {other:?}")),
                },
            );
        }
        for v4 in FAMILIES {
            let node = lab.nodes[0].addresses[usize::from(!v4)];
            let what = format!("{mode}, {} through {node}", backend.key());
            let outcome = machine.probe(bulk(node, NODE_PORT)).unwrap();
            assert_eq!(answer(&outcome, node, &what), backend.key());
        }
    }
}

#[test]
fn a_node_exchanges_bulk_with_a_pod_through_an_overlay_whose_tunnel_has_a_narrow_router_between() {
    let lab = lab(2).agent_arg("--mode=vxlan").start().unwrap();
    let host = lab.add_host_server(0, &[TCP]).unwrap();
    let pod = pod(&lab, "p", 1);
    for v4 in FAMILIES {
        let outcome = host.probe(bulk(address(&pod, v4), TARGET)).unwrap();
        answered(&outcome, &pod.key(), "node to pod");
        let node = lab.nodes[0].addresses[usize::from(!v4)];
        let outcome = pod.probe(bulk(node, TARGET)).unwrap();
        answered(&outcome, "node/n1", "pod to node");
    }
}

#[test]
fn a_client_behind_a_narrow_router_exchanges_bulk_with_node_ports_here_and_there() {
    node_ports("--mode=native");
}

#[test]
fn a_client_behind_a_narrow_router_exchanges_bulk_with_node_ports_across_an_overlay() {
    node_ports("--mode=vxlan");
}

#[test]
fn pods_exchange_bulk_with_a_service_whose_backend_is_behind_a_narrow_router() {
    for mode in ["--mode=native", "--mode=vxlan"] {
        let lab = lab(2).agent_arg(mode).start().unwrap();
        let backend = server(&lab, "b", 1);
        let spec = node_port();
        spec.apply(&lab).unwrap();
        spec.set_backends(&lab, &[Backend::ready(&backend)])
            .unwrap();
        for covered in [true, false] {
            let name = if covered { "c1" } else { "c2" };
            let client = crate::services_world::client(&lab, name, 0, covered);
            for v4 in FAMILIES {
                let vip = crate::services_world::vip(v4);
                eventually(|| match client.probe(Probe::tcp(vip, PORT)).unwrap() {
                    Outcome::Answer { .. } => Ok(()),
                    other => Err(format!("{other:?}")),
                });
                let outcome = client.probe(bulk(vip, PORT)).unwrap();
                answer(&outcome, vip, &format!("{mode}, covered {covered}"));
            }
        }
    }
}
