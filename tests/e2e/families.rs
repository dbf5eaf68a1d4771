//! Clusters of one address family: the other is nowhere, and nobody misses it.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;
use weir_lab::{Families, Lab, Listen, Outcome, Pod, PodSpec, Probe, Proto};

use crate::overlay_wire::{OnWire, Sniffer};
use crate::services_world::{NODE_PORT, PORT, PROTOS, TARGET, VIPS, ask, eventually};

fn listens() -> [Listen; 2] {
    PROTOS.map(|proto| Listen {
        proto,
        port: TARGET,
    })
}

fn pod(lab: &Lab, name: &str, node: usize, covered: bool) -> Arc<Pod> {
    let mut spec = PodSpec::new("default", name, node).label("app", "web");
    spec.covered = covered;
    let spec = listens().into_iter().fold(spec, |s, port| s.port(port, ""));
    lab.add_pod(&spec).unwrap()
}

/// A Service of one family with node ports, and its slice.
fn service(lab: &Lab, v4: bool, backend: &Pod, node: &str) {
    let family = if v4 { "IPv4" } else { "IPv6" };
    let vip = VIPS[usize::from(!v4)];
    let port = |proto: Proto| {
        let name = proto.name().to_ascii_lowercase();
        json!({"name": name, "protocol": proto.name(), "port": PORT, "targetPort": TARGET, "nodePort": NODE_PORT})
    };
    let target = |proto: Proto| {
        let name = proto.name().to_ascii_lowercase();
        json!({"name": name, "protocol": proto.name(), "port": TARGET})
    };
    let objects = [
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "default", "name": "web"},
            "spec": {"type": "NodePort", "clusterIP": vip, "clusterIPs": [vip], "ipFamilies": [family],
                     "ipFamilyPolicy": "SingleStack", "selector": {"app": "web"}, "ports": PROTOS.map(port)},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": "default", "name": "web-1",
                         "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": family, "ports": PROTOS.map(target),
            "endpoints": [{"addresses": [backend.addresses[0].to_string()],
                           "conditions": {"ready": true}, "nodeName": node}],
        }),
    ];
    for object in objects {
        lab.cluster.apply(&object).unwrap();
    }
}

#[track_caller]
fn reached(outcome: &Outcome, what: &str) {
    assert!(
        matches!(outcome, Outcome::Answer { .. }),
        "{what}: {outcome:?}"
    );
}

/// Whether the packets between the nodes were packed into UDP between their addresses.
fn is_packed(lab: &Lab, wire: Sniffer, family: usize) -> bool {
    let ends = [0, 1].map(|node| lab.nodes[node].addresses[family]);
    let packed = |flow: &OnWire| [flow.from, flow.to] == ends && flow.port == Some(8472);
    wire.stop().unwrap().keys().any(packed)
}

fn works_alone(mode: &str, families: Families) {
    let v4 = families == Families::V4;
    let family = usize::from(!v4);
    let lab = Lab::builder()
        .nodes(2)
        .families(families)
        .unrouted()
        .agent_arg(mode)
        .start()
        .unwrap();
    let world: IpAddr = ["203.0.113.10", "2001:db8:113::10"][family]
        .parse()
        .unwrap();
    let server = lab.add_outside(world, &listens()).unwrap();
    let outside = lab.add_client(0).unwrap();
    let hosts = [0, 1].map(|node| lab.add_host_server(node, &[]).unwrap());
    let wire = Sniffer::start(&lab.fabric()).unwrap();
    let backend = pod(&lab, "backend", 0, true);
    assert_eq!(backend.addresses.len(), 1, "{:?}", backend.addresses);
    assert_eq!(backend.addresses[0].is_ipv4(), v4);
    service(&lab, v4, &backend, &lab.nodes[0].name);
    let vip = VIPS[family].parse().unwrap();
    for (name, node, covered) in [("a", 0, true), ("b", 1, true), ("c", 1, false)] {
        let client = pod(&lab, name, node, covered);
        for proto in PROTOS {
            let what = format!("{mode} {families:?} {name} {proto:?}");
            let direct = ask(backend.addresses[0], TARGET, proto).bytes(1200);
            reached(&client.probe(direct).unwrap(), &what);
            eventually(|| match client.probe(ask(vip, PORT, proto)).unwrap() {
                Outcome::Answer { .. } => Ok(()),
                other => Err(format!("{what}, the Service: {other:?}")),
            });
            let out = client.probe(ask(world, TARGET, proto)).unwrap();
            reached(&out, &format!("{what}, the world"));
        }
        let bulk = Probe::tcp(backend.addresses[0], TARGET).bytes(200_000);
        reached(&client.probe(bulk.timeout_ms(8000)).unwrap(), "bulk");
    }
    for (host, node) in hosts.iter().zip(&lab.nodes) {
        for proto in PROTOS {
            let what = format!("{mode} {families:?} {} {proto:?}", node.name);
            reached(
                &host
                    .probe(ask(backend.addresses[0], TARGET, proto))
                    .unwrap(),
                &what,
            );
            reached(&host.probe(ask(vip, PORT, proto)).unwrap(), &what);
            let to = node.addresses[family];
            reached(&outside.probe(ask(to, NODE_PORT, proto)).unwrap(), &what);
        }
    }
    let nodes = lab.nodes.iter().map(|node| node.addresses[family]);
    let nodes: Vec<IpAddr> = nodes.collect();
    let seen = server.seen().unwrap();
    assert!(
        !seen.is_empty() && seen.iter().all(|seen| nodes.contains(&seen.from.ip())),
        "masqueraded: {seen:?}"
    );
    assert_eq!(is_packed(&lab, wire, family), mode == "--mode=vxlan");
    for node in &lab.nodes {
        let status = node.client().status().unwrap();
        assert!(status.ready);
        assert_eq!(status.degraded, [""; 0]);
        let log = node.log();
        let complaint = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        let complaints: Vec<&str> = log.lines().filter(complaint).collect();
        assert_eq!(complaints, [""; 0]);
    }
}

#[test]
fn an_ipv6_cluster_works_by_routes() {
    works_alone("--mode=native", Families::V6);
}

#[test]
fn an_ipv6_cluster_works_over_the_overlay() {
    works_alone("--mode=vxlan", Families::V6);
}

#[test]
fn an_ipv4_cluster_works_by_routes() {
    works_alone("--mode=native", Families::V4);
}

#[test]
fn an_ipv4_cluster_works_over_the_overlay() {
    works_alone("--mode=vxlan", Families::V4);
}
