//! Nodes whose reverse path filter is strict on every device, as some distributions set it.

use std::net::IpAddr;

use weir_lab::spawn::run_in;
use weir_lab::{Backend, Lab, Listen, Node, Outcome, PodSpec, Proto, netlink};

use crate::services_world::{
    FAMILIES, NODE_PORT, PORT, PROTOS, TARGET, answer, ask, client, eventually, node_port, server,
    vip,
};
use crate::wait::await_that;

/// Makes the filter strict for all devices, those that are still to come included.
fn make_strict(node: &Node) {
    run_in(&node.place().net_only(), || {
        ["all", "default", "eth0", "lo"]
            .iter()
            .try_for_each(|scope| netlink::sysctl(&key(scope), "1"))
    })
    .unwrap();
}

fn key(scope: &str) -> String {
    format!("net/ipv4/conf/{scope}/rp_filter")
}

fn filter(node: &Node, scope: &str) -> String {
    let path = format!("/proc/sys/{}", key(scope));
    let read = run_in(&node.place().net_only(), || {
        Ok(std::fs::read_to_string(&path)?)
    });
    read.unwrap().trim().to_owned()
}

/// A lab of two nodes with strict filters.
fn strict_lab(mode: &str) -> Lab {
    let lab = Lab::builder()
        .nodes(2)
        .unrouted()
        .agent_arg(mode)
        .without_agents()
        .start()
        .unwrap();
    lab.nodes.iter().for_each(make_strict);
    for node in &lab.nodes {
        node.start_agent().unwrap();
    }
    lab
}

#[track_caller]
fn reached(outcome: Outcome, what: &str) {
    assert!(
        matches!(outcome, Outcome::Answer { .. }),
        "{what}: {outcome:?}"
    );
}

fn everything_works(mode: &str) {
    let lab = strict_lab(mode);
    let listens = PROTOS.map(|proto| Listen {
        proto,
        port: TARGET + 1,
    });
    let hosts = [0, 1].map(|node| lab.add_host_server(node, &listens).unwrap());
    let world = ["203.0.113.10", "2001:db8:113::10"];
    let world: [IpAddr; 2] = world.map(|address| address.parse().unwrap());
    let _servers = world.map(|address| lab.add_outside(address, &listens).unwrap());
    let backends = [0, 1].map(|node| server(&lab, &format!("b{node}"), node));
    let outside = lab.add_client(0).unwrap();
    let spec = node_port();
    spec.apply(&lab).unwrap();
    for backend in &backends {
        spec.set_backends(&lab, &[Backend::ready(backend)]).unwrap();
        let covered = client(&lab, "covered", 0, true);
        let uncovered = client(&lab, "uncovered", 0, false);
        for v4 in FAMILIES {
            let family = usize::from(!v4);
            let own = if v4 { backend.v4() } else { backend.v6() };
            for proto in PROTOS {
                let what = format!("{mode} {proto:?} {}", backend.key());
                for pod in [&covered, &uncovered] {
                    reached(pod.probe(ask(own, TARGET, proto)).unwrap(), &what);
                    eventually(|| match pod.probe(ask(vip(v4), PORT, proto)).unwrap() {
                        Outcome::Answer { from, .. } if from == backend.key() => Ok(()),
                        other => Err(format!("{what}: {other:?}")),
                    });
                    let probe = ask(world[family], TARGET + 1, proto);
                    reached(pod.probe(probe).unwrap(), "the world");
                    for node in &lab.nodes {
                        let probe = ask(node.addresses[family], TARGET + 1, proto);
                        let what = format!("{what}, pod to {}", node.name);
                        reached(pod.probe(probe).unwrap(), &what);
                    }
                }
                for host in &hosts {
                    reached(host.probe(ask(own, TARGET, proto)).unwrap(), &what);
                    reached(host.probe(ask(vip(v4), PORT, proto)).unwrap(), &what);
                }
                for node in &lab.nodes {
                    let to = node.addresses[family];
                    let outcome = outside.probe(ask(to, NODE_PORT, proto)).unwrap();
                    answer(&outcome, to, &what);
                }
            }
        }
        lab.remove_pod(&covered).unwrap();
        lab.remove_pod(&uncovered).unwrap();
    }
    for node in &lab.nodes {
        assert_eq!(["all", "eth0"].map(|scope| filter(node, scope)), ["1", "1"]);
        let status = node.client().status().unwrap();
        let named = |note: &String| note.contains("sysctl -w net/ipv4/conf/eth0/rp_filter=2");
        assert!(status.notes.iter().any(named), "{:?}", status.notes);
        assert_eq!(status.degraded, [""; 0]);
        assert_eq!(node.log().matches("reverse path filter").count(), 1);
        let shown = node.weir(&["status", "--socket", &node.socket_inside()]);
        let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
        assert!(shown.contains("note      uplink eth0"), "{shown}");
    }
}

#[test]
fn strict_filters_on_nodes_harm_nothing_and_are_told_with_the_remedy_and_left() {
    everything_works("--mode=native");
}

#[test]
fn strict_filters_on_nodes_harm_no_overlay() {
    everything_works("--mode=vxlan");
}

#[test]
fn weirs_own_devices_have_loose_filters_and_a_note_goes_with_its_cause() {
    let lab = strict_lab("--mode=vxlan");
    let node = &lab.nodes[0];
    let listen = Listen {
        proto: Proto::Tcp,
        port: TARGET,
    };
    let pod = lab
        .add_pod(&PodSpec::new("default", "p", 0).port(listen, ""))
        .unwrap();
    let host_side = pod.result["interfaces"][0]["name"].as_str().unwrap();
    for device in [host_side, "weir-overlay", "lo"] {
        assert_eq!(filter(node, device), "2", "{device}");
    }
    run_in(&node.place().net_only(), || {
        netlink::sysctl(&key("eth0"), "2")?;
        // That is no message of the kernel's; a new address is.
        netlink::add_address("lo", "198.51.100.77/32".parse()?)
    })
    .unwrap();
    await_that("no note", || {
        node.client().status().unwrap().notes.is_empty()
    });
}
