//! Services for clients outside the cluster: NodePorts, external addresses, traffic policies.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::json;
use weir_lab::{Backend, Listen, Outcome, OutsideClient, PodSpec, Proto};

use crate::services_world::{
    FAMILIES, NODE_PORT, PORT, PROTOS, TARGET, World, answer, ask, ask_in_vain, client, cluster_ip,
    eventually, node_port,
};

const EXTERNAL: [&str; 2] = ["198.51.100.20", "2001:db8:20::20"];

fn external(v4: bool) -> IpAddr {
    EXTERNAL[usize::from(!v4)].parse().unwrap()
}

fn ingress() -> serde_json::Value {
    json!(EXTERNAL.map(|ip| json!({"ip": ip, "ipMode": "VIP"})))
}

/// Sends what is for the external addresses to the first node.
fn route_external(world: &World, from: &OutsideClient) {
    for v4 in FAMILIES {
        from.route(external(v4), &world.lab.nodes[0]).unwrap();
    }
}

#[test]
fn a_node_port_reaches_a_backend_on_its_own_node_and_on_another() {
    let world = World::new(2, node_port(), &[0]);
    for v4 in FAMILIES {
        for proto in PROTOS {
            for node in [0, 1] {
                let address = world.node(node, v4);
                let what = format!("{proto:?} through {address}");
                let probe = ask(address, NODE_PORT, proto).bytes(1200);
                let from = answer(&world.outside.probe(probe).unwrap(), address, &what);
                assert_eq!(from, world.backends[0].key(), "{what}");
            }
        }
    }
}

#[test]
fn with_cluster_traffic_every_node_reaches_every_backend() {
    let world = World::new(3, node_port(), &[0, 1, 2]);
    let all: BTreeSet<String> = world.backends.iter().map(|pod| pod.key()).collect();
    for v4 in FAMILIES {
        for node in 0..3 {
            let address = world.node(node, v4);
            let reached: BTreeSet<String> = (0..60)
                .map(|_| {
                    let outcome = world
                        .outside
                        .probe(ask(address, NODE_PORT, Proto::Tcp))
                        .unwrap();
                    answer(&outcome, address, "a NodePort")
                })
                .collect();
            assert_eq!(reached, all, "through {address}");
        }
    }
}

#[test]
fn one_client_port_finds_the_same_backend_through_every_node() {
    let world = World::new(3, node_port(), &[0, 1, 2]);
    for v4 in FAMILIES {
        for port in 42000..42012 {
            let reached: BTreeSet<String> = (0..3)
                .map(|node| {
                    let address = world.node(node, v4);
                    let probe = ask(address, NODE_PORT, Proto::Udp).from_port(port);
                    answer(&world.outside.probe(probe).unwrap(), address, "a NodePort")
                })
                .collect();
            assert_eq!(reached.len(), 1, "from port {port}: {reached:?}");
        }
    }
}

#[test]
fn an_external_ip_that_is_routed_to_a_node_is_served() {
    let world = World::new(2, cluster_ip().with("externalIPs", json!(EXTERNAL)), &[1]);
    route_external(&world, &world.outside);
    for v4 in FAMILIES {
        for proto in PROTOS {
            let outcome = world.outside.probe(ask(external(v4), PORT, proto)).unwrap();
            let from = answer(&outcome, external(v4), &format!("{proto:?}"));
            assert_eq!(from, world.backends[1].key());
        }
    }
}

#[test]
fn a_load_balancer_address_is_served_unless_its_mode_is_proxy() {
    let world = World::new(2, node_port().load_balancer(ingress()), &[0]);
    route_external(&world, &world.outside);
    for v4 in FAMILIES {
        let outcome = world
            .outside
            .probe(ask(external(v4), PORT, Proto::Tcp))
            .unwrap();
        answer(&outcome, external(v4), "ipMode VIP");
    }
    let proxy = json!(EXTERNAL.map(|ip| json!({"ip": ip, "ipMode": "Proxy"})));
    node_port().load_balancer(proxy).apply(&world.lab).unwrap();
    for v4 in FAMILIES {
        eventually(|| {
            let outcome = world
                .outside
                .probe(ask_in_vain(external(v4), PORT, Proto::Tcp))
                .unwrap();
            match outcome {
                Outcome::Answer { .. } => Err(format!("ipMode Proxy: {outcome:?}")),
                _ => Ok(()),
            }
        });
        let node = world.node(0, v4);
        let outcome = world
            .outside
            .probe(ask(node, NODE_PORT, Proto::Tcp))
            .unwrap();
        answer(&outcome, node, "its NodePort");
    }
}

#[test]
fn a_host_port_is_served_on_the_pods_node_and_its_host_ip_alone() {
    let world = World::new(2, cluster_ip(), &[0]);
    let tcp = Listen {
        proto: Proto::Tcp,
        port: TARGET,
    };
    let mut spec = PodSpec::new("default", "hosted", 0).port(tcp, "");
    spec.object["spec"]["containers"][0]["ports"] = json!([
        {"name": "all", "containerPort": TARGET, "hostPort": 18080, "protocol": "TCP"},
        {"name": "one", "containerPort": TARGET, "hostPort": 18081, "protocol": "TCP",
         "hostIP": world.node(0, true).to_string()},
    ]);
    let pod = world.lab.add_pod(&spec).unwrap();
    for v4 in FAMILIES {
        let here = world.node(0, v4);
        eventually(
            || match world.outside.probe(ask(here, 18080, Proto::Tcp)).unwrap() {
                Outcome::Answer { from, .. } if from == pod.key() => Ok(()),
                other => Err(format!("{here}: {other:?}")),
            },
        );
        let there = world.node(1, v4);
        let outcome = world.outside.probe(ask(there, 18080, Proto::Tcp)).unwrap();
        assert_eq!(outcome, Outcome::Refused, "the pod is not on {there}");
    }
    let one = world.node(0, true);
    answer(
        &world.outside.probe(ask(one, 18081, Proto::Tcp)).unwrap(),
        one,
        "its hostIP",
    );
    let other = world
        .outside
        .probe(ask(world.node(0, false), 18081, Proto::Tcp))
        .unwrap();
    assert_eq!(other, Outcome::Refused, "another address than its hostIP");
}

#[test]
fn with_local_traffic_the_backend_sees_the_clients_own_address_and_other_nodes_are_silent() {
    let world = World::new(
        2,
        node_port().with("externalTrafficPolicy", json!("Local")),
        &[0],
    );
    for v4 in FAMILIES {
        for proto in PROTOS {
            let here = world.node(0, v4);
            let outcome = world.outside.probe(ask(here, NODE_PORT, proto)).unwrap();
            let Outcome::Answer { local, .. } = outcome else {
                panic!("{proto:?} through {here}: {outcome:?}");
            };
            let seen = world.backends[0].seen().unwrap();
            let own = seen
                .iter()
                .any(|seen| seen.proto == proto && seen.from == local);
            assert!(own, "{proto:?}: the backend has not seen {local}: {seen:?}");
            let there = world.node(1, v4);
            let outcome = world
                .outside
                .probe(ask_in_vain(there, NODE_PORT, proto))
                .unwrap();
            assert!(
                matches!(outcome, Outcome::Timeout { .. }),
                "{proto:?} {there}: {outcome:?}"
            );
        }
    }
}

#[test]
fn with_local_traffic_pods_and_nodes_reach_backends_elsewhere_as_well() {
    let world = World::new(
        2,
        node_port().with("externalTrafficPolicy", json!("Local")),
        &[0],
    );
    let pods = [true, false].map(|c| client(&world.lab, if c { "c1" } else { "c2" }, 1, c));
    let host = world.on_node(1);
    for v4 in FAMILIES {
        let own = world.node(1, v4);
        for control in [&pods[0].control, &pods[1].control, &host] {
            let outcome = control.probe(ask(own, NODE_PORT, Proto::Tcp)).unwrap();
            let from = answer(&outcome, own, &format!("{control:?}"));
            assert_eq!(from, world.backends[0].key());
        }
    }
}

#[test]
fn a_client_outside_of_the_source_ranges_is_not_served_and_one_inside_is() {
    let spec = |ranges: serde_json::Value| {
        node_port()
            .with("loadBalancerSourceRanges", ranges)
            .load_balancer(ingress())
    };
    let world = World::new(
        2,
        spec(json!(["172.18.0.200/32", "fd00:18::200/128"])),
        &[1],
    );
    let other = world.another_outside();
    let pod = client(&world.lab, "client", 0, true);
    for from in [&world.outside, &other] {
        route_external(&world, from);
    }
    for v4 in FAMILIES {
        for proto in PROTOS {
            let inside = world.outside.probe(ask(external(v4), PORT, proto)).unwrap();
            answer(&inside, external(v4), "in the ranges");
            let outcome = other.probe(ask_in_vain(external(v4), PORT, proto)).unwrap();
            assert!(
                matches!(outcome, Outcome::Timeout { .. }),
                "{proto:?}: {outcome:?}"
            );
        }
        let outcome = pod.probe(ask(external(v4), PORT, Proto::Tcp)).unwrap();
        assert_eq!(outcome, Outcome::Refused, "a pod that is in no range");
        let node = world.node(0, v4);
        let by_node = other.probe(ask(node, NODE_PORT, Proto::Tcp)).unwrap();
        answer(&by_node, node, "the ranges are not for NodePorts");
    }
}

#[test]
fn a_node_port_without_endpoints_refuses_clients_outside_at_once() {
    for policy in ["Cluster", "Local"] {
        let spec = node_port().with("externalTrafficPolicy", json!(policy));
        let world = World::new(2, spec, &[]);
        for v4 in FAMILIES {
            for proto in PROTOS {
                let probe = ask(world.node(0, v4), NODE_PORT, proto);
                let outcome = world.outside.probe(probe).unwrap();
                assert_eq!(outcome, Outcome::Refused, "{policy} {proto:?} v4: {v4}");
            }
        }
    }
}

#[test]
fn a_node_port_takes_terminating_endpoints_only_while_none_is_ready() {
    let world = World::new(2, node_port(), &[0, 1]);
    let [one, two] = [&*world.backends[0], &*world.backends[1]];
    let reached = |v4| -> BTreeSet<String> {
        let address = world.node(0, v4);
        (0..24)
            .map(|_| {
                let outcome = world
                    .outside
                    .probe(ask(address, NODE_PORT, Proto::Tcp))
                    .unwrap();
                answer(&outcome, address, "a NodePort")
            })
            .collect()
    };
    let only = |pod: &weir_lab::Pod| BTreeSet::from([pod.key()]);
    world
        .spec
        .set_backends(&world.lab, &[Backend::draining(one), Backend::ready(two)])
        .unwrap();
    world.await_active(&[two]);
    assert!(FAMILIES.iter().all(|&v4| reached(v4) == only(two)));
    world
        .spec
        .set_backends(
            &world.lab,
            &[Backend::draining(one), Backend::not_ready(two)],
        )
        .unwrap();
    world.await_active(&[one]);
    assert!(FAMILIES.iter().all(|&v4| reached(v4) == only(one)));
}
