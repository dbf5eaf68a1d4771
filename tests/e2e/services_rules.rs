//! Rules of Services and of the agent that say who serves whom: topology hints, addresses of NodePorts,
//! Services that are left alone, health checks, sockets left to the packet path.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use weir_abi::map;
use weir_api::service::ServiceInfo;
use weir_lab::netlink;
use weir_lab::node::UPLINK;
use weir_lab::spawn::{Place, run_in};
use weir_lab::{Backend, Exchange, Outcome, OutsideClient, Pod, Proto, ServiceSpec};
use weir_tests::maps;

use crate::services_world::{
    FAMILIES, NODE_PORT, PORT, PROTOS, TARGET, World, answer, ask, ask_in_vain, client, cluster_ip,
    eventually, node_port, vip,
};

/// Puts a node's Node object into a zone.
fn set_zone(world: &World, node: usize, zone: &str) {
    let name = &world.lab.nodes[node].name;
    let mut object = world.lab.cluster.get("Node", None, name).unwrap();
    object["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": zone});
    world.apply(&object);
}

/// Waits until a client has found exactly these pods through the ClusterIPs, in both families.
#[track_caller]
fn finds(client: &Pod, wanted: &[&Pod]) {
    let wanted: BTreeSet<String> = wanted.iter().map(|pod| pod.key()).collect();
    for v4 in FAMILIES {
        eventually(|| {
            let found: BTreeSet<String> = (0..40)
                .map(|_| {
                    let outcome = client.probe(ask(vip(v4), PORT, Proto::Tcp)).unwrap();
                    answer(&outcome, vip(v4), &client.key())
                })
                .collect();
            (found == wanted)
                .then_some(())
                .ok_or_else(|| format!("{}: {found:?}, not {wanted:?}", client.key()))
        });
    }
}

#[test]
fn topology_hints_keep_clients_to_the_backends_for_their_node_or_zone() {
    let world = World::new(3, cluster_ip(), &[0, 1, 2]);
    let [one, two, three] = [0, 1, 2].map(|i| &*world.backends[i]);
    for (node, zone) in ["a", "a", "b"].iter().enumerate() {
        set_zone(&world, node, zone);
    }
    let clients = [(0, true), (0, false), (2, true), (2, false)]
        .map(|(node, covered)| client(&world.lab, &format!("c{node}-{covered}"), node, covered));
    let set = |backends: &[Backend<'_>]| world.spec.set_backends(&world.lab, backends).unwrap();
    let all = [one, two, three];
    set(&[
        Backend::ready(one).for_zones(&["a"]),
        Backend::ready(two).for_zones(&["a"]),
        Backend::ready(three).for_zones(&["b"]),
    ]);
    for client in &clients {
        let wanted: &[&Pod] = if client.node == 0 {
            &[one, two]
        } else {
            &[three]
        };
        finds(client, wanted);
    }
    set(&all.map(|pod| Backend::ready(pod).for_nodes(&[&world.lab.nodes[pod.node].name])));
    for client in &clients {
        finds(client, &[all[client.node]]);
    }
    // One that has no hint: nobody's count.
    set(&[
        Backend::ready(one).for_nodes(&["n1"]),
        Backend::ready(two).for_nodes(&["n2"]),
        Backend::ready(three),
    ]);
    for client in &clients {
        finds(client, &all);
    }
}

#[test]
fn node_ports_are_served_at_the_addresses_that_the_key_names_and_at_no_other() {
    let more: [IpAddr; 2] = ["172.18.0.150", "fd00:18::350"].map(|a| a.parse().unwrap());
    for (key, at_all) in [
        ("--nodeport-addresses=primary", false),
        ("--nodeport-addresses=172.18.0.0/25,fd00:18::/120", false),
        ("--nodeport-addresses=172.18.0.0/24,fd00:18::/64", true),
    ] {
        let world = World::with_args(&[key], 1, node_port(), &[0]);
        run_in(&world.lab.nodes[0].place().net_only(), || {
            netlink::add_address(UPLINK, format!("{}/24", more[0]).parse()?)?;
            netlink::add_address(UPLINK, format!("{}/64", more[1]).parse()?)
        })
        .unwrap();
        let pods = [true, false].map(|c| client(&world.lab, &format!("client-{c}"), 0, c));
        let controls = [&world.outside.control, &pods[0].control, &pods[1].control];
        for (control, v4) in controls.iter().flat_map(|c| FAMILIES.map(|v4| (c, v4))) {
            let node = world.node(0, v4);
            let outcome = control.probe(ask(node, NODE_PORT, Proto::Tcp)).unwrap();
            answer(&outcome, node, key);
            let other = more[usize::from(!v4)];
            eventually(|| {
                let outcome = control.probe(ask(other, NODE_PORT, Proto::Tcp)).unwrap();
                match outcome {
                    Outcome::Answer { .. } if at_all => Ok(()),
                    Outcome::Refused if !at_all => Ok(()),
                    _ => Err(format!("{key}, {control:?} to {other}: {outcome:?}")),
                }
            });
        }
    }
}

#[test]
fn a_service_that_is_skipped_or_another_proxys_is_left_alone() {
    let world = World::with_args(&["--skip-services=default/skipped"], 1, node_port(), &[0]);
    let backend = Backend::ready(&world.backends[0]);
    let mut specs = [
        ("skipped", ["10.96.7.31", "fd00:10:96::731"]),
        ("foreign", ["10.96.7.32", "fd00:10:96::732"]),
    ]
    .map(|(name, vips)| {
        (
            vips,
            ServiceSpec::new(name, vips).port(Proto::Tcp, PORT, TARGET, 0),
        )
    });
    specs[1].1.object["metadata"]["labels"] =
        json!({"service.kubernetes.io/service-proxy-name": "x"});
    for (_, spec) in &specs {
        spec.apply(&world.lab).unwrap();
        spec.set_backends(&world.lab, std::slice::from_ref(&backend))
            .unwrap();
    }
    let status = || world.lab.nodes[0].client().status().unwrap();
    eventually(|| match status().counts.services {
        3 => Ok(()),
        other => Err(format!("{other} Services")),
    });
    let list: Vec<ServiceInfo> = world.lab.nodes[0].client().get("/v1/services").unwrap();
    let served = list.iter().filter(|s| !s.frontends.is_empty());
    let served: Vec<&str> = served.map(|s| s.name.as_str()).collect();
    assert_eq!(served, ["web"]);
    for covered in [true, false] {
        let client = client(&world.lab, &format!("client-{covered}"), 0, covered);
        for vip in specs.iter().flat_map(|(vips, _)| vips) {
            let vip = vip.parse().unwrap();
            let outcome = client.probe(ask_in_vain(vip, PORT, Proto::Tcp)).unwrap();
            assert!(
                matches!(outcome, Outcome::Timeout { .. } | Outcome::Unreachable),
                "{} to {vip}: {outcome:?}",
                client.key()
            );
        }
    }
}

/// Status code and headers that a client outside is answered with.
fn http(client: &OutsideClient, at: SocketAddr) -> anyhow::Result<(u16, String)> {
    run_in(&Place::of_process(client.control.pid())?.net_only(), || {
        let limit = Duration::from_secs(4);
        let mut stream = TcpStream::connect_timeout(&at, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        let code = page.split(' ').nth(1).unwrap_or_default().parse()?;
        Ok((code, page.to_ascii_lowercase()))
    })
}

#[test]
fn a_load_balancer_is_told_by_http_which_nodes_have_a_ready_endpoint() {
    const CHECK: u16 = 32123;
    let ingress = json!([{"ip": "198.51.100.20"}, {"ip": "2001:db8:20::20"}]);
    let spec = node_port()
        .with("externalTrafficPolicy", json!("Local"))
        .with("healthCheckNodePort", json!(CHECK))
        .load_balancer(ingress);
    let world = World::new(2, spec, &[0]);
    for serving in [0, 1] {
        world.serve(&[serving]);
        for (node, v4) in [0, 1].iter().flat_map(|&n| FAMILIES.map(|v4| (n, v4))) {
            let at = SocketAddr::new(world.node(node, v4), CHECK);
            let (code, local) = if node == serving { (200, 1) } else { (503, 0) };
            eventually(|| {
                let (got, page) = http(&world.outside, at).map_err(|e| format!("{at}: {e:#}"))?;
                let weight = format!("x-load-balancing-endpoint-weight: {local}\r\n");
                (got == code && page.contains(&weight))
                    .then_some(())
                    .ok_or(format!("{at}: {code} expected: {page}"))
            });
        }
    }
}

/// How many connections the socket hooks of a node remember.
fn socket_connections(world: &World, node: usize) -> usize {
    let pins = world.lab.nodes[node].path("/sys/fs/bpf/weir");
    let layout = std::fs::read_dir(&pins).unwrap().find_map(|entry| {
        let maps = entry.unwrap().path().join("maps");
        maps.is_dir().then_some(maps)
    });
    let snapshot = maps::pinned(&layout.unwrap()).unwrap();
    snapshot[map::SOCK_CONNS].len()
}

#[test]
fn sockets_of_pods_are_left_to_the_packet_path_where_the_key_says_so() {
    for (key, in_pods) in [("--socket-lb=all", 1), ("--socket-lb=host-only", 0)] {
        let world = World::with_args(&[key], 1, node_port(), &[0]);
        let pod = client(&world.lab, "client", 0, true);
        let host = world.on_node(0);
        for v4 in FAMILIES {
            for (control, wanted) in [(&pod.control, in_pods), (&host, 1)] {
                eventually(|| match socket_connections(&world, 0) {
                    0 => Ok(()),
                    other => Err(format!("{other} connections are left")),
                });
                for proto in PROTOS {
                    let outcome = control.probe(ask(vip(v4), PORT, proto)).unwrap();
                    answer(&outcome, vip(v4), &format!("{key} {proto:?}"));
                }
                let target = SocketAddr::new(vip(v4), PORT);
                let exchange = Exchange {
                    target,
                    proto: Proto::Tcp,
                    every_ms: 5,
                };
                let running = control.exchange(exchange).unwrap();
                eventually(|| match socket_connections(&world, 0) {
                    found if found == wanted => Ok(()),
                    other => Err(format!("{key} {control:?}: {other} connections")),
                });
                let report = running.stop().unwrap();
                assert_eq!(report.error, None, "{key} {control:?}");
            }
        }
    }
}
