//! NetworkPolicy for clients outside the cluster that come through node ports.

use serde_json::{Value, json};
use weir_lab::{Outcome, OutsideClient, Proto};

use crate::services_world::{
    FAMILIES, NODE_PORT, PROTOS, World, answer, ask, ask_in_vain, eventually, node_port,
};

/// Isolates the backends but for these addresses.
fn allow_only(world: &World, addresses: &[std::net::IpAddr]) {
    let block = |address: &std::net::IpAddr| -> Value {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        json!({"ipBlock": {"cidr": format!("{address}/{bits}")}})
    };
    let blocks: Vec<Value> = addresses.iter().map(block).collect();
    world.apply(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "policyTypes": ["Ingress"], "ingress": [{"from": blocks}],
        },
    }));
}

/// Waits until a client is denied at a node's NodePort, and sees that it is in each protocol.
#[track_caller]
fn is_denied(world: &World, client: &OutsideClient, node: usize, v4: bool) {
    let node = world.node(node, v4);
    eventually(|| {
        let probe = ask_in_vain(node, NODE_PORT, Proto::Tcp);
        match client.probe(probe).unwrap() {
            Outcome::Timeout { .. } => Ok(()),
            other => Err(format!("denied at {node}, but {other:?}")),
        }
    });
    for proto in PROTOS {
        let outcome = client.probe(ask_in_vain(node, NODE_PORT, proto)).unwrap();
        let denied = matches!(outcome, Outcome::Timeout { .. });
        assert!(denied, "{proto:?} at {node}: {outcome:?}");
    }
}

/// Waits until a client is answered at a node's NodePort, and sees that it is in each protocol.
#[track_caller]
fn is_allowed(world: &World, client: &OutsideClient, node: usize, v4: bool) {
    let node = world.node(node, v4);
    eventually(|| {
        let probe = ask_in_vain(node, NODE_PORT, Proto::Tcp);
        match client.probe(probe).unwrap() {
            Outcome::Answer { .. } => Ok(()),
            other => Err(format!("allowed at {node}, but {other:?}")),
        }
    });
    for proto in PROTOS {
        let outcome = client.probe(ask(node, NODE_PORT, proto)).unwrap();
        answer(&outcome, node, &format!("{proto:?}, allowed"));
    }
}

#[test]
fn a_policy_that_denies_a_client_outside_denies_it_through_a_node_port() {
    for traffic in ["Cluster", "Local"] {
        let spec = node_port().with("externalTrafficPolicy", json!(traffic));
        let world = World::new(2, spec, &[0]);
        let denied = world.another_outside();
        for v4 in FAMILIES {
            is_allowed(&world, &denied, 0, v4);
        }
        allow_only(&world, &world.outside.addresses);
        for v4 in FAMILIES {
            is_denied(&world, &denied, 0, v4);
            is_allowed(&world, &world.outside, 0, v4);
        }
    }
}

#[test]
fn a_policy_sees_the_contacted_node_where_the_backend_is_on_another() {
    let world = World::new(2, node_port(), &[1]);
    // The client's own address does not help: the backend's node never sees it.
    allow_only(&world, &world.outside.addresses);
    for v4 in FAMILIES {
        is_denied(&world, &world.outside, 0, v4);
        is_allowed(&world, &world.outside, 1, v4);
    }
    allow_only(&world, &world.lab.nodes[0].addresses);
    for v4 in FAMILIES {
        is_allowed(&world, &world.outside, 0, v4);
        is_denied(&world, &world.outside, 1, v4);
    }
}
