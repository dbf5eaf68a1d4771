//! Datagrams that do not fit into one packet: their fragments go where the first goes, translated and
//! judged alike.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;
use weir_lab::control::Control;
use weir_lab::{Lab, Outcome, Pod, Probe, Proto};

use crate::services_world::{
    FAMILIES, NODE_PORT, PORT, TARGET, World, answer, ask, ask_in_vain, client, cluster_ip,
    eventually, node_port, server, vip,
};

/// Six fragments on a usual wire.
const LARGE: u32 = 8000;

fn large(address: IpAddr, port: u16) -> Probe {
    ask(address, port, Proto::Udp).bytes(LARGE)
}

/// Isolates all pods both ways, and lets clients speak UDP to servers.
fn isolate(lab: &Lab) {
    let to = |app: &str| json!([{"podSelector": {"matchLabels": {"app": app}}}]);
    let ports = json!([{"protocol": "UDP", "port": TARGET}]);
    lab.cluster
        .apply(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "default", "name": "udp"},
            "spec": {
                "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": to("client"), "ports": ports}],
                "egress": [{"to": to("web"), "ports": ports}],
            },
        }))
        .unwrap();
}

/// Waits until small datagrams pass one way and not the other.
fn in_force(client: &Pod, server: &Pod) {
    eventually(|| {
        let there = client.probe(ask_in_vain(server.v4(), TARGET, Proto::Udp));
        let tcp = client.probe(ask_in_vain(server.v4(), TARGET, Proto::Tcp));
        match (there.unwrap(), tcp.unwrap()) {
            (Outcome::Answer { .. }, Outcome::Timeout { .. }) => Ok(()),
            other => Err(format!("the policy is not in force: {other:?}")),
        }
    });
}

#[test]
fn large_datagrams_pass_between_isolated_pods_where_policy_allows_it_and_nowhere_else() {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let servers = [server(&lab, "near", 0), server(&lab, "far", 1)];
    let client = client(&lab, "client", 0, true);
    let ends = |pod: &Pod, v4: bool| if v4 { pod.v4() } else { pod.v6() };
    for v4 in FAMILIES {
        for server in &servers {
            let outcome = client.probe(large(ends(server, v4), TARGET)).unwrap();
            answer(&outcome, ends(server, v4), "without a policy");
        }
    }
    isolate(&lab);
    for server in &servers {
        in_force(&client, server);
        for v4 in FAMILIES {
            let to = ends(server, v4);
            let outcome = client.probe(large(to, TARGET)).unwrap();
            answer(&outcome, to, "allowed");
            let denied = ask_in_vain(to, TARGET + 1, Proto::Udp).bytes(LARGE);
            let outcome = client.probe(denied).unwrap();
            assert!(
                matches!(outcome, Outcome::Timeout { .. }),
                "another port: {outcome:?}"
            );
            let from_server = ask_in_vain(ends(&client, v4), TARGET, Proto::Udp).bytes(LARGE);
            let outcome = server.probe(from_server).unwrap();
            assert!(
                matches!(outcome, Outcome::Timeout { .. }),
                "the other way: {outcome:?}"
            );
        }
    }
    // A node always reaches its own pods.
    let host = lab.add_host_server(0, &[]).unwrap();
    for v4 in FAMILIES {
        let outcome = host.probe(large(ends(&servers[0], v4), TARGET)).unwrap();
        answer(&outcome, ends(&servers[0], v4), "from its node");
    }
}

#[test]
fn large_datagrams_to_a_cluster_ip_in_the_packet_path_reach_backends_on_both_nodes() {
    let world = World::with_args(&["--socket-lb=host-only"], 2, cluster_ip(), &[0]);
    let clients: [Arc<Pod>; 2] = [
        client(&world.lab, "open", 0, true),
        client(&world.lab, "uncovered", 0, false),
    ];
    for serving in [0, 1] {
        world.serve(&[serving]);
        for (client, v4) in clients.iter().flat_map(|c| FAMILIES.map(|v4| (c, v4))) {
            let what = format!("{} to {}", client.key(), vip(v4));
            let outcome = client.probe(large(vip(v4), PORT)).unwrap();
            assert_eq!(
                answer(&outcome, vip(v4), &what),
                world.backends[serving].key()
            );
        }
    }
    isolate(&world.lab);
    for serving in [0, 1] {
        world.serve(&[serving]);
        in_force(&clients[0], &world.backends[serving]);
        for v4 in FAMILIES {
            let outcome = clients[0].probe(large(vip(v4), PORT)).unwrap();
            answer(&outcome, vip(v4), "under policy");
        }
    }
}

#[test]
fn large_datagrams_from_outside_and_from_nodes_to_a_node_port_reach_local_and_remote_backends() {
    let world = World::new(2, node_port(), &[0]);
    let host: Arc<Control> = world.on_node(0);
    for serving in [0, 1] {
        world.serve(&[serving]);
        for (node, v4) in [0, 1].into_iter().flat_map(|n| FAMILIES.map(|v4| (n, v4))) {
            let address = world.node(node, v4);
            let name = world.backends[serving].key();
            let outcome = world.outside.probe(large(address, NODE_PORT)).unwrap();
            assert_eq!(answer(&outcome, address, "from outside"), name);
            let outcome = host.probe(large(address, NODE_PORT)).unwrap();
            assert_eq!(answer(&outcome, address, "from a node"), name);
        }
    }
}
