//! Services and the nodes' own processes: backends in the host's network, processes that no socket hook
//! covers, and rules of a kube-proxy that still stand.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;

use serde_json::json;
use weir_lab::control::Control;
use weir_lab::{Listen, Outcome, Proto};

use crate::services_world::{
    FAMILIES, NODE_PORT, PORT, PROTOS, TARGET, VIPS, World, answer, ask, client, eventually,
    node_port, vip,
};

/// Who asks, and where.
type Way<'a> = (&'a Arc<Control>, IpAddr, u16);

/// Waits until a way leads to `wanted` by TCP, and sees that it does by each protocol.
#[track_caller]
fn leads_to((control, address, port): Way<'_>, wanted: &str) {
    eventually(|| {
        let probe = ask(address, port, Proto::Tcp).timeout_ms(1500);
        match control.probe(probe).unwrap() {
            Outcome::Answer { from, .. } if from == wanted => Ok(()),
            other => Err(format!("{control:?} to {address}, not {wanted}: {other:?}")),
        }
    });
    for proto in PROTOS {
        let outcome = control
            .probe(ask(address, port, proto).bytes(1200))
            .unwrap();
        let what = format!("{control:?} {proto:?} to {address}");
        assert_eq!(answer(&outcome, address, &what), wanted, "{what}");
    }
}

/// Has a node's own processes serve `web`.
fn serve_by_node(world: &World, node: usize) {
    let name = &world.lab.nodes[node].name;
    for (v4, family) in [(true, "IPv4"), (false, "IPv6")] {
        world.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": "default", "name": format!("web-{}", family.to_ascii_lowercase()),
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": family,
            "ports": PROTOS.map(|proto| json!({
                "name": format!("{}-{PORT}", proto.name().to_ascii_lowercase()),
                "protocol": proto.name(), "port": TARGET,
            })),
            "endpoints": [{
                "addresses": [world.node(node, v4).to_string()], "nodeName": name,
                "conditions": {"ready": true, "serving": true, "terminating": false},
            }],
        }));
    }
}

/// Pods on the first node that the socket hooks cover and that they do not.
fn pods(world: &World) -> [Arc<Control>; 2] {
    [true, false].map(|covered| {
        let pod = client(&world.lab, &format!("client-{covered}"), 0, covered);
        Arc::clone(&pod.control)
    })
}

#[test]
fn a_backend_in_the_hosts_network_serves_everybody() {
    let world = World::new(2, node_port(), &[]);
    let ports = PROTOS.map(|proto| Listen {
        proto,
        port: TARGET,
    });
    let hosts = [0, 1].map(|node| world.lab.add_host_server(node, &ports).unwrap());
    let pods = pods(&world);
    for serving in [0, 1] {
        serve_by_node(&world, serving);
        let wanted = format!("node/n{}", serving + 1);
        for v4 in FAMILIES {
            for control in pods.iter().chain(&hosts) {
                leads_to((control, vip(v4), PORT), &wanted);
            }
            for node in [0, 1] {
                let address = world.node(node, v4);
                for control in pods.iter().chain(&hosts).chain([&world.outside.control]) {
                    leads_to((control, address, NODE_PORT), &wanted);
                }
            }
        }
    }
}

#[test]
fn a_process_of_the_node_that_no_socket_hook_covers_reaches_services() {
    let world = World::new(2, node_port(), &[]);
    let place = world.lab.nodes[0].place();
    let place = place
        .in_cgroup(&world.lab.cgroup().join("uncovered"))
        .unwrap();
    let process = Arc::new(Control::start("node/uncovered", place).unwrap());
    process.listen(&[]).unwrap();
    for serving in [0, 1] {
        world.serve(&[serving]);
        let wanted = world.backends[serving].key();
        for v4 in FAMILIES {
            leads_to((&process, vip(v4), PORT), &wanted);
            leads_to((&process, world.node(1, v4), NODE_PORT), &wanted);
        }
    }
    world.serve(&[]);
    for (v4, proto) in FAMILIES.iter().flat_map(|&v4| PROTOS.map(|p| (v4, p))) {
        let outcome = process.probe(ask(vip(v4), PORT, proto)).unwrap();
        assert_eq!(outcome, Outcome::Refused, "{proto:?} to {}", vip(v4));
    }
}

/// What a kube-proxy has left: rules for `web` that lead to pods which are long gone, and that refuse it.
fn stale_rules() -> String {
    let mut services = String::new();
    let mut refusals = String::new();
    let gone = ["10.244.9.9", "[fd00:10:244:9::9]"];
    for ((vip, gone), family) in VIPS.iter().zip(gone).zip(["ip", "ip6"]) {
        for proto in ["tcp", "udp"] {
            let to = format!("dnat {family} to {gone}:{TARGET}");
            writeln!(services, "{family} daddr {vip} {proto} dport {PORT} {to}").unwrap();
            let of = if family == "ip" { "ipv4" } else { "ipv6" };
            let local = format!("meta nfproto {of} fib daddr type local");
            writeln!(services, "{local} {proto} dport {NODE_PORT} {to}").unwrap();
            writeln!(refusals, "{family} daddr {vip} {proto} dport {PORT} reject").unwrap();
        }
    }
    let filters = ["forward", "input", "output"].map(|hook| {
        // What the iptables mode has in KUBE-FORWARD.
        let invalid = if hook == "forward" {
            "ct state invalid drop"
        } else {
            ""
        };
        format!(
            "chain filter-{hook} {{ type filter hook {hook} priority -110;
                {invalid}
                {refusals} }}"
        )
    });
    let filters = filters.join("\n");
    format!(
        "table inet kube-proxy {{
            chain services {{ {services} }}
            chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}
            chain nat-output {{ type nat hook output priority -100; jump services; }}
            chain nat-postrouting {{ type nat hook postrouting priority 100;
                meta mark and 0x4000 != 0 masquerade fully-random; }}
            {filters}
        }}"
    )
}

#[test]
fn rules_of_a_kube_proxy_that_still_stand_do_no_harm() {
    let world = World::new(2, node_port(), &[0, 1]);
    for node in &world.lab.nodes {
        let mut nft = Command::new("nft");
        nft.args(["-f", "-"]);
        let output = node.run(nft, stale_rules().as_bytes()).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "nft on {}: {said}", node.name);
    }
    let pods = pods(&world);
    let host = world.on_node(0);
    for serving in [0, 1] {
        world.serve(&[serving]);
        let wanted = world.backends[serving].key();
        for v4 in FAMILIES {
            for control in pods.iter().chain([&host]) {
                leads_to((control, vip(v4), PORT), &wanted);
            }
            for node in [0, 1] {
                let address = world.node(node, v4);
                for control in pods.iter().chain([&host, &world.outside.control]) {
                    leads_to((control, address, NODE_PORT), &wanted);
                }
            }
        }
    }
}
