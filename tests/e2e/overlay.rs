//! Pods on different nodes over VXLAN: what they reach, what is on the wire, and what a hostile pod
//! or machine cannot do.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_lab::netlink::interface_index;
use weir_lab::spawn::{Place, run_in};
use weir_lab::{Exchange, Lab, Listen, Outcome, Pod, Probe};

use crate::overlay_wire::{OnWire, Sniffer, send_ip, vxlan};
use crate::services_world::{
    FAMILIES, NODE_PORT, PORT, PROTOS, TARGET, World, answer, ask, node_port, server_of,
};
use crate::spoof::{FORGED, HONEST, arrived, datagram};

/// UDP port of the overlay.
pub const OVERLAY: u16 = 8472;
/// Its device.
pub const DEVICE: &str = "weir-overlay";

pub fn lab(mode: &str) -> Lab {
    Lab::builder().nodes(2).agent_arg(mode).start().unwrap()
}

pub fn pod(lab: &Lab, name: &str, node: usize) -> Arc<Pod> {
    server_of(lab, name, node, name)
}

pub fn address(pod: &Pod, v4: bool) -> IpAddr {
    if v4 { pod.v4() } else { pod.v6() }
}

pub fn answers(outcome: &Outcome, name: &str, what: &str) {
    match outcome {
        Outcome::Answer { from, .. } if from == name => {}
        other => panic!("{what}: {other:?}, not an answer of {name}"),
    }
}

#[test]
fn pods_have_the_overlays_mtu_and_are_reached_from_pods_and_nodes_and_only_packed_packets_are_on_the_wire()
 {
    let lab = lab("--mode=vxlan");
    let pods = [0, 1].map(|node| pod(&lab, &format!("p{node}"), node));
    let listen = PROTOS.map(|proto| Listen {
        proto,
        port: TARGET,
    });
    let hosts = [0, 1].map(|node| lab.add_host_server(node, &listen).unwrap());
    let mtu = run_in(&pods[0].place().unwrap().net_only(), || {
        Ok(weir_net::Netlink::open()?.link("eth0")?.mtu)
    });
    assert_eq!(mtu.unwrap(), 1450);
    let status = lab.nodes[0].client().status().unwrap();
    let told = status.features.iter().find(|f| f.name == "overlay");
    let told = told.map(|feature| (&*feature.state, &*feature.detail));
    assert_eq!(told, Some(("used", "vxlan on UDP port 8472, weir-overlay")));
    let wire = Sniffer::start(&lab.fabric()).unwrap();
    for v4 in FAMILIES {
        for proto in PROTOS {
            let probe = |to| ask(to, TARGET, proto).bytes(1300);
            for (from, to) in [(0, 1), (1, 0)] {
                let what = format!("{proto:?}, IPv4 {v4}, node {from} to {to}");
                let (pod, other) = (&pods[from], &pods[to]);
                let reached = pod.probe(probe(address(other, v4))).unwrap();
                answers(&reached, &other.key(), &format!("pod to pod, {what}"));
                let reached = hosts[from].probe(probe(address(other, v4))).unwrap();
                answers(&reached, &other.key(), &format!("node to pod, {what}"));
                let node = &lab.nodes[to];
                let reached = pod.probe(probe(node.addresses[usize::from(!v4)])).unwrap();
                let name = format!("node/{}", node.name);
                answers(&reached, &name, &format!("pod to node, {what}"));
            }
        }
        let probe = Probe::tcp(address(&pods[1], v4), TARGET).bytes(300_000);
        let reached = pods[0].probe(probe.timeout_ms(8000)).unwrap();
        answers(&reached, &pods[1].key(), "300 kB");
    }
    let seen = wire.stop().unwrap();
    let is_pod = |ip: &IpAddr| pods.iter().any(|pod| pod.addresses.contains(ip));
    let bare: Vec<_> = seen
        .iter()
        .filter(|(flow, _)| is_pod(&flow.from) || is_pod(&flow.to))
        .collect();
    assert!(bare.is_empty(), "not packed: {bare:?}");
    let packed = seen.iter().filter(|(flow, _)| flow.port == Some(OVERLAY));
    let packed: BTreeMap<_, _> = packed.collect();
    for (from, to) in [(0, 1), (1, 0)] {
        let ends = [from, to].map(|node| lab.nodes[node].addresses[0]);
        assert!(
            packed.keys().any(|flow| [flow.from, flow.to] == ends),
            "{packed:?}"
        );
    }
}

#[test]
fn nodes_without_ipv4_addresses_tunnel_over_ipv6() {
    let lab = Lab::builder()
        .nodes(2)
        .agent_arg("--mode=vxlan")
        .without_agents()
        .start()
        .unwrap();
    for node in &lab.nodes {
        let mut object = lab.cluster.get("Node", None, &node.name).unwrap();
        object["status"]["addresses"] =
            json!([{"type": "InternalIP", "address": node.addresses[1].to_string()}]);
        lab.cluster.apply(&object).unwrap();
        node.start_agent().unwrap();
    }
    let pods = [0, 1].map(|node| pod(&lab, &format!("p{node}"), node));
    let wire = Sniffer::start(&lab.fabric()).unwrap();
    for v4 in FAMILIES {
        for proto in PROTOS {
            let probe = ask(address(&pods[1], v4), TARGET, proto).bytes(1300);
            answers(&pods[0].probe(probe).unwrap(), &pods[1].key(), "over IPv6");
        }
    }
    let seen = wire.stop().unwrap();
    let ends = [0, 1].map(|node| lab.nodes[node].addresses[1]);
    let packed = |flow: &OnWire| [flow.from, flow.to] == ends && flow.port == Some(OVERLAY);
    assert!(seen.keys().any(packed), "{seen:?}");
}

#[test]
fn services_and_node_ports_reach_backends_over_the_overlay() {
    let world = World::with_args(&["--mode=vxlan"], 2, node_port(), &[0]);
    let client = crate::services_world::client(&world.lab, "client", 1, true);
    let uncovered = crate::services_world::client(&world.lab, "uncovered", 1, false);
    for v4 in FAMILIES {
        for proto in PROTOS {
            for node in [0, 1] {
                let address = world.node(node, v4);
                let probe = ask(address, NODE_PORT, proto).bytes(1200);
                let what = format!("{proto:?} through {address}");
                let from = answer(&world.outside.probe(probe).unwrap(), address, &what);
                assert_eq!(from, world.backends[0].key(), "{what}");
            }
            let vip = crate::services_world::VIPS[usize::from(!v4)]
                .parse()
                .unwrap();
            for pod in [&client, &uncovered] {
                let reached = pod.probe(ask(vip, PORT, proto)).unwrap();
                answers(&reached, &world.backends[0].key(), &pod.key());
            }
        }
    }
}

#[test]
fn policy_sees_a_pods_own_address_across_the_overlay() {
    let lab = lab("--mode=vxlan");
    let [server, good, bad] =
        [("server", 0), ("good", 1), ("bad", 1)].map(|(name, node)| pod(&lab, name, node));
    lab.cluster
        .apply(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "default", "name": "good-only"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "good"}}}]}],
            },
        }))
        .unwrap();
    let shut = Probe::tcp(server.v4(), TARGET).timeout_ms(300);
    crate::services_world::eventually(|| match bad.probe(shut).unwrap() {
        Outcome::Timeout { .. } => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for v4 in FAMILIES {
        for proto in PROTOS {
            let to = address(&server, v4);
            let reached = good.probe(ask(to, TARGET, proto)).unwrap();
            answers(&reached, &server.key(), "the one that is let in");
            let shut = Probe::new(to, TARGET, proto).timeout_ms(500);
            let outcome = bad.probe(shut).unwrap();
            assert!(matches!(outcome, Outcome::Timeout { .. }), "{outcome:?}");
        }
    }
}

/// Sends a datagram from a place, bound to an address if one is given.
fn send_udp(place: &Place, from: Option<IpAddr>, to: (IpAddr, u16), payload: &[u8]) {
    let any: IpAddr = if to.0.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    run_in(&place.net_only(), || {
        let socket = UdpSocket::bind((from.unwrap_or(any), 0))?;
        socket.send_to(payload, to)?;
        Ok(())
    })
    .unwrap();
}

/// Waits until a pod has seen so many honest packets.
fn await_honest(victim: &Pod, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let honest = || arrived(victim).iter().filter(|p| **p == HONEST).count();
    while honest() < count {
        assert!(Instant::now() < deadline, "saw {:?}", arrived(victim));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_tunnel_is_believed_from_the_node_that_has_the_source_and_from_nobody_else() {
    let lab = lab("--mode=vxlan");
    let [victim, friend, far] =
        [("victim", 0), ("friend", 0), ("far", 1)].map(|(name, node)| pod(&lab, name, node));
    let client = lab.add_client(0).unwrap();
    let outside = Place::of_process(client.control.pid()).unwrap();
    let target = (lab.nodes[0].addresses[0], OVERLAY);
    for v4 in FAMILIES {
        let to = address(&victim, v4);
        let own = lab.nodes[0].addresses[usize::from(!v4)];
        let world: IpAddr = if v4 { "203.0.113.9" } else { "2001:db8::9" }
            .parse()
            .unwrap();
        // A machine that is no node, and a pod on each node, in the name of a pod behind the overlay.
        let forged = vxlan(&datagram(address(&far, v4), to, FORGED));
        send_udp(&outside, None, target, &forged);
        send_udp(&far.place().unwrap(), None, target, &forged);
        send_udp(&friend.place().unwrap(), None, target, &forged);
        // A node, in the name of what is not its own.
        for from in [address(&friend, v4), own, world] {
            let forged = vxlan(&datagram(from, to, FORGED));
            send_udp(&lab.nodes[1].place(), None, target, &forged);
        }
        // The same from the node that has the pod is well made.
        let honest = vxlan(&datagram(address(&far, v4), to, HONEST));
        send_udp(&lab.nodes[1].place(), None, target, &honest);
    }
    await_honest(&victim, 2);
    assert!(
        !arrived(&victim).contains(&FORGED),
        "{:?}",
        arrived(&victim)
    );
}

#[test]
fn a_bare_packet_from_outside_with_the_source_of_a_pod_behind_the_overlay_is_dropped() {
    let lab = lab("--mode=vxlan");
    let [victim, far] = [("victim", 0), ("far", 1)].map(|(name, node)| pod(&lab, name, node));
    let gateway: [IpAddr; 2] = ["172.18.0.1", "fd00:18::1"].map(|ip| ip.parse().unwrap());
    for v4 in FAMILIES {
        let to = address(&victim, v4);
        send_ip(&lab.fabric(), &datagram(address(&far, v4), to, FORGED), to).unwrap();
        let from = gateway[usize::from(!v4)];
        send_ip(&lab.fabric(), &datagram(from, to, HONEST), to).unwrap();
    }
    await_honest(&victim, 2);
    assert!(
        !arrived(&victim).contains(&FORGED),
        "{:?}",
        arrived(&victim)
    );
}

pub fn device(lab: &Lab, node: usize) -> Option<u32> {
    run_in(&lab.nodes[node].place().net_only(), || {
        interface_index(DEVICE)
    })
    .ok()
}

#[test]
fn a_restart_of_the_agents_keeps_the_device_and_loses_nothing() {
    let lab = lab("--mode=vxlan");
    let [client, server] = [("client", 0), ("server", 1)].map(|(name, node)| pod(&lab, name, node));
    let devices = [0, 1].map(|node| device(&lab, node));
    assert!(devices.iter().all(Option::is_some), "{devices:?}");
    let exchange = |v4, proto| {
        let target = (address(&server, v4), TARGET).into();
        let exchange = Exchange {
            target,
            proto,
            every_ms: 5,
        };
        client.exchange(exchange).unwrap()
    };
    let running: Vec<_> = FAMILIES
        .into_iter()
        .flat_map(|v4| PROTOS.map(|proto| exchange(v4, proto)))
        .collect();
    for node in &lab.nodes {
        node.kill_agent();
    }
    for node in &lab.nodes {
        node.start_agent().unwrap();
    }
    for exchange in running {
        let report = exchange.stop().unwrap();
        assert!(report.sent > 20, "{report:?}");
        assert_eq!(
            (report.received, &report.error),
            (report.sent, &None),
            "{report:?}"
        );
    }
    assert_eq!([0, 1].map(|node| device(&lab, node)), devices);
}

#[test]
fn a_change_of_mode_by_a_restart_of_all_agents_costs_at_most_five_seconds() {
    let lab = lab("--mode=native");
    let [client, server] = [("client", 0), ("server", 1)].map(|(name, node)| pod(&lab, name, node));
    for mode in ["vxlan", "native"] {
        for node in &lab.nodes {
            node.stop_agent().unwrap();
            node.set_agent_args(&[&format!("--mode={mode}")]);
        }
        // With the agents down, all goes on as it was.
        let probe = |v4| Probe::udp(address(&server, v4), TARGET).timeout_ms(100);
        for v4 in FAMILIES {
            answers(&client.probe(probe(v4)).unwrap(), &server.key(), "before");
        }
        for node in &lab.nodes {
            node.launch_agent().unwrap();
        }
        let packed = mode == "vxlan";
        let (mut last, mut worst) = ([Instant::now(); 2], Duration::ZERO);
        let deadline = Instant::now() + Duration::from_secs(60);
        let changed = || (0..2).all(|node| device(&lab, node).is_some() == packed);
        let mut after = 0;
        while after < 10 {
            assert!(Instant::now() < deadline, "{mode} is not in force");
            let mut reached = true;
            for (v4, last) in FAMILIES.into_iter().zip(&mut last) {
                if matches!(client.probe(probe(v4)).unwrap(), Outcome::Answer { .. }) {
                    worst = worst.max(last.elapsed());
                    *last = Instant::now();
                } else {
                    reached = false;
                }
            }
            if changed() && reached {
                after += 1;
            }
        }
        println!("change to {mode}: nothing was answered for {worst:?} at most");
        assert!(worst < Duration::from_secs(5), "to {mode}: {worst:?}");
        for node in &lab.nodes {
            node.await_ready(weir_lab::node::READY).unwrap();
        }
    }
}

#[test]
fn geneve_without_the_kernels_help_is_refused_at_start_with_the_remedy() {
    let lab = Lab::builder().nodes(1).without_agents().start().unwrap();
    let node = &lab.nodes[0];
    let made = run_in(&node.place().net_only(), || {
        let netlink = weir_net::Netlink::open()?;
        let made = netlink.create_link("probe", "geneve");
        Ok(made.is_ok() && netlink.delete_link("probe")?)
    });
    node.set_agent_args(&["--mode=geneve"]);
    if made.unwrap() {
        // The kernel has it: then it must work.
        node.start_agent().unwrap();
        return;
    }
    let error = node.start_agent().unwrap_err().to_string();
    for part in ["geneve", "--mode=vxlan", DEVICE] {
        assert!(error.contains(part), "{error}");
    }
}
