//! Services for clients in the cluster: NodePorts of one's own node, localhost, hairpins, session
//! affinity, internal traffic policy, and UDP flows that have to move.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use weir_lab::control::Control;
use weir_lab::{Backend, Listen, Outcome, Pod, PodSpec, Proto};

use crate::services_world::{
    FAMILIES, NODE_PORT, PORT, PROTOS, TARGET, World, answer, ask, client, cluster_ip, node_port,
    server, vip,
};

/// A pod on the first node that the socket hooks cover, and one that they do not.
fn clients(world: &World) -> [Arc<Pod>; 2] {
    [true, false].map(|covered| {
        let name = if covered { "covered" } else { "uncovered" };
        client(&world.lab, name, 0, covered)
    })
}

#[test]
fn a_node_reaches_its_own_and_other_nodes_node_ports_and_by_localhost() {
    let world = World::new(2, node_port(), &[0, 1]);
    let host = world.on_node(0);
    for serving in [0, 1] {
        world.serve(&[serving]);
        for v4 in FAMILIES {
            let local: IpAddr = if v4 {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            };
            for proto in PROTOS {
                for address in [world.node(0, v4), world.node(1, v4), local] {
                    let what = format!("{proto:?} to {address}");
                    let outcome = host.probe(ask(address, NODE_PORT, proto)).unwrap();
                    let from = answer(&outcome, address, &what);
                    assert_eq!(from, world.backends[serving].key(), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_pod_reaches_node_ports_of_its_own_and_of_another_node() {
    let world = World::new(2, node_port(), &[0, 1]);
    let clients = clients(&world);
    for serving in [0, 1] {
        world.serve(&[serving]);
        for (client, v4) in clients.iter().flat_map(|c| FAMILIES.map(|v4| (c, v4))) {
            for proto in PROTOS {
                for node in [0, 1] {
                    let address = world.node(node, v4);
                    let what = format!("{} {proto:?} to {address}", client.key());
                    let outcome = client.probe(ask(address, NODE_PORT, proto)).unwrap();
                    let from = answer(&outcome, address, &what);
                    assert_eq!(from, world.backends[serving].key(), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_pod_reaches_itself_through_a_node_port() {
    let world = World::new(2, node_port(), &[0]);
    let pod = &world.backends[0];
    for v4 in FAMILIES {
        for proto in PROTOS {
            for node in [0, 1] {
                let address = world.node(node, v4);
                let outcome = pod.probe(ask(address, NODE_PORT, proto)).unwrap();
                let from = answer(&outcome, address, &format!("{proto:?} by {address}"));
                assert_eq!(from, pod.key());
            }
        }
    }
}

#[test]
fn pods_and_nodes_reach_a_host_port() {
    let world = World::new(2, cluster_ip(), &[0]);
    let ports = PROTOS
        .map(|proto| json!({"containerPort": TARGET, "hostPort": 18080, "protocol": proto.name()}));
    let mut spec = PodSpec::new("default", "hosted", 0);
    for proto in PROTOS {
        let port = TARGET;
        spec = spec.port(Listen { proto, port }, "");
    }
    spec.object["spec"]["containers"][0]["ports"] = json!(ports);
    let hosted = world.lab.add_pod(&spec).unwrap();
    let pods = clients(&world);
    let hosts = [0, 1].map(|node| world.on_node(node));
    let there = client(&world.lab, "there", 1, true);
    for v4 in FAMILIES {
        let address = world.node(0, v4);
        for control in [
            &pods[0].control,
            &pods[1].control,
            &there.control,
            &hosted.control,
            &hosts[0],
            &hosts[1],
        ] {
            crate::services_world::eventually(|| {
                let outcome = control.probe(ask(address, 18080, Proto::Tcp)).unwrap();
                match outcome {
                    Outcome::Answer { .. } => Ok(()),
                    other => Err(format!("{control:?} to {address}: {other:?}")),
                }
            });
            for proto in PROTOS {
                let outcome = control.probe(ask(address, 18080, proto)).unwrap();
                let from = answer(&outcome, address, &format!("{control:?} {proto:?}"));
                assert_eq!(from, hosted.key());
            }
        }
    }
}

#[test]
fn a_load_balancers_address_in_mode_proxy_is_not_served_to_pods_either() {
    let addresses: [IpAddr; 2] = ["198.51.100.20", "2001:db8:20::20"].map(|a| a.parse().unwrap());
    let of_mode = |mode: &str| {
        let ingress = addresses.map(|ip| json!({"ip": ip.to_string(), "ipMode": mode}));
        node_port().load_balancer(json!(ingress))
    };
    let world = World::new(2, of_mode("VIP"), &[1]);
    let pods = clients(&world);
    for (mode, served) in [("VIP", true), ("Proxy", false)] {
        of_mode(mode).apply(&world.lab).unwrap();
        for (pod, address) in pods.iter().flat_map(|pod| addresses.map(|a| (pod, a))) {
            crate::services_world::eventually(|| {
                let probe = ask(address, PORT, Proto::Tcp).timeout_ms(700);
                let outcome = pod.probe(probe).unwrap();
                (matches!(outcome, Outcome::Answer { .. }) == served)
                    .then_some(())
                    .ok_or_else(|| format!("{mode}: {} to {address}: {outcome:?}", pod.key()))
            });
        }
    }
}

#[test]
fn without_endpoints_pods_and_nodes_are_refused_at_once() {
    let world = World::new(2, node_port(), &[]);
    let clients = clients(&world);
    let host = world.on_node(0);
    let controls: [&Arc<Control>; 3] = [&clients[0].control, &clients[1].control, &host];
    for (control, v4) in controls.iter().flat_map(|c| FAMILIES.map(|v4| (c, v4))) {
        for proto in PROTOS {
            for (address, port) in [(vip(v4), PORT), (world.node(0, v4), NODE_PORT)] {
                let outcome = control.probe(ask(address, port, proto)).unwrap();
                assert_eq!(
                    outcome,
                    Outcome::Refused,
                    "{control:?} {proto:?} to {address}"
                );
            }
        }
    }
}

#[test]
fn internal_traffic_policy_local_keeps_to_the_clients_node_and_refuses_without_a_backend_there() {
    let spec = cluster_ip().with("internalTrafficPolicy", json!("Local"));
    let world = World::new(3, spec, &[]);
    let pods = [&*world.backends[0], &*world.backends[1]];
    let backends: Vec<Backend<'_>> = pods.iter().map(|pod| Backend::ready(pod)).collect();
    world.spec.set_backends(&world.lab, &backends).unwrap();
    for (node, covered) in [0, 1, 2].iter().flat_map(|&n| [(n, true), (n, false)]) {
        let client = client(&world.lab, &format!("c{node}-{covered}"), node, covered);
        let wanted = pods.get(node).map(|pod| pod.key());
        for v4 in FAMILIES {
            let ask_once = || client.probe(ask(vip(v4), PORT, Proto::Tcp)).unwrap();
            let judge = |outcome: Outcome| match (&outcome, &wanted) {
                (Outcome::Answer { from, .. }, Some(own)) if from == own => Ok(()),
                (Outcome::Refused, None) => Ok(()),
                _ => Err(format!("{}: {outcome:?}", client.key())),
            };
            crate::services_world::eventually(|| judge(ask_once()));
            for _ in 0..20 {
                judge(ask_once()).unwrap();
            }
        }
    }
}

#[test]
fn session_affinity_keeps_a_client_on_its_backend_until_the_timeout() {
    let seconds = 2;
    let config = json!({"clientIP": {"timeoutSeconds": seconds}});
    let spec = node_port()
        .with("sessionAffinity", json!("ClientIP"))
        .with("sessionAffinityConfig", config);
    let world = World::new(2, spec, &[0, 1]);
    let more = [0, 1].map(|node| server(&world.lab, &format!("more{node}"), node));
    let all = [
        &*world.backends[0],
        &*world.backends[1],
        &*more[0],
        &*more[1],
    ];
    world.serve_by(&all);
    let clients = clients(&world);
    for v4 in FAMILIES {
        let node = world.node(0, v4);
        let once = |control: &Control, address, port| {
            let outcome = control.probe(ask(address, port, Proto::Tcp)).unwrap();
            answer(&outcome, address, &format!("{control:?}"))
        };
        // Without affinity, twenty of four backends are all the same one time in 10^11.
        for (control, address, port) in [
            (&clients[0].control, vip(v4), PORT),
            (&clients[1].control, vip(v4), PORT),
            (&world.outside.control, node, NODE_PORT),
        ] {
            let chosen: BTreeSet<String> = (0..20).map(|_| once(control, address, port)).collect();
            assert_eq!(chosen.len(), 1, "{control:?}: {chosen:?}");
        }
        // Afterwards the choice is free again: the same one eight times in a row is one in 65,000.
        for client in &clients {
            let first = once(&client.control, vip(v4), PORT);
            let moved = (0..8).any(|_| {
                // Time itself is what has to pass: the timeout, and a tick of the programs' clock each way.
                std::thread::sleep(Duration::from_secs(seconds) + Duration::from_millis(2200));
                once(&client.control, vip(v4), PORT) != first
            });
            assert!(moved, "{} stayed on {first}", client.key());
        }
    }
}

#[test]
fn a_udp_flow_leaves_a_removed_backend_with_its_next_packet() {
    let world = World::new(2, node_port(), &[0]);
    let clients = clients(&world);
    for v4 in FAMILIES {
        let ways = [
            (&clients[0].control, vip(v4), PORT),
            (&clients[1].control, vip(v4), PORT),
            (&world.outside.control, world.node(0, v4), NODE_PORT),
        ];
        for serving in [0, 1] {
            world.serve(&[serving]);
            for (control, address, port) in &ways {
                let mut probe = ask(*address, *port, Proto::Udp).from_port(43210);
                // The socket hooks can move a socket that is not connected only.
                probe.unconnected = true;
                let outcome = control.probe(probe).unwrap();
                let from = answer(&outcome, *address, &format!("{control:?}"));
                assert_eq!(from, world.backends[serving].key(), "{control:?}");
            }
        }
    }
}
