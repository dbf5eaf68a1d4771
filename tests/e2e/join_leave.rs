//! Nodes that join and leave: pods on the others do not notice.

use std::net::IpAddr;
use std::sync::Arc;

use weir_lab::{Exchange, Lab, Listen, Load, Pod, PodSpec, Requests};

use crate::overlay::device;
use crate::services_world::{FAMILIES, PROTOS, TARGET};
use crate::wait::await_that;

/// How often both other nodes come and go.
const ROUNDS: usize = 3;

fn pod(lab: &Lab, name: &str, node: usize) -> Arc<Pod> {
    let listen = PROTOS.map(|proto| Listen {
        proto,
        port: TARGET,
    });
    let spec = PodSpec::new("default", name, node);
    let spec = listen
        .into_iter()
        .fold(spec, |spec, port| spec.port(port, ""));
    lab.add_pod(&spec).unwrap()
}

fn address(pod: &Pod, v4: bool) -> IpAddr {
    if v4 { pod.v4() } else { pod.v6() }
}

/// How many routes the first node has by Weir.
fn routes(lab: &Lab) -> usize {
    let routes = weir_lab::spawn::run_in(&lab.nodes[0].place(), || {
        Ok(weir_net::Netlink::open()?.routes()?)
    });
    let ours = weir_agent::compile::route::PROTOCOL;
    let own = routes.unwrap();
    own.iter().filter(|route| route.protocol == ours).count()
}

fn nothing_is_lost(mode: &str) {
    let lab = Lab::builder().nodes(4).agent_arg(mode).start().unwrap();
    let pods = [0, 1].map(|node| pod(&lab, &format!("p{node}"), node));
    let (mut exchanges, mut loads) = (Vec::new(), Vec::new());
    for v4 in FAMILIES {
        for (from, to) in [(0, 1), (1, 0)] {
            let target = (address(&pods[to], v4), TARGET).into();
            for proto in PROTOS {
                let exchange = Exchange {
                    target,
                    proto,
                    every_ms: 5,
                };
                exchanges.push(pods[from].exchange(exchange).unwrap());
            }
            for requests in [Requests::Short, Requests::Datagrams] {
                let load = Load {
                    target,
                    requests,
                    every_ms: 10,
                    count: u64::MAX,
                    limit_ms: 300_000,
                };
                loads.push(pods[from].control.load(load).unwrap());
            }
        }
    }
    for _ in 0..ROUNDS {
        for other in [2, 3] {
            let node = &lab.nodes[other];
            let before = routes(&lab);
            node.stop_agent().unwrap();
            lab.cluster.delete("Node", None, &node.name).unwrap();
            await_that("the node has left", || routes(&lab) < before);
            let newcomer = lab.node_object(other);
            lab.cluster.apply(&newcomer).unwrap();
            node.start_agent().unwrap();
            await_that("the node has joined", || routes(&lab) == before);
            // It is a node like any other: its pods are reached.
            let name = format!("new{other}");
            let new = pod(&lab, &name, other);
            for v4 in FAMILIES {
                let probe = crate::services_world::ask(address(&new, v4), TARGET, PROTOS[0]);
                let outcome = pods[0].probe(probe).unwrap();
                assert!(
                    matches!(&outcome, weir_lab::Outcome::Answer { from, .. } if *from == new.key()),
                    "{outcome:?}"
                );
            }
            lab.remove_pod(&new).unwrap();
        }
    }
    for exchange in exchanges {
        let report = exchange.stop().unwrap();
        assert!(report.sent > 100, "{report:?}");
        assert_eq!(
            (report.received, &report.error),
            (report.sent, &None),
            "{mode}: {report:?}"
        );
    }
    for load in loads {
        let report = load.stop().unwrap();
        assert!(report.sent > 50, "{report:?}");
        assert_eq!(report.answered, report.sent, "{mode}: {report:?}");
    }
    assert_eq!(device(&lab, 0).is_some(), mode == "--mode=vxlan");
}

#[test]
fn pods_of_nodes_that_stay_lose_no_packet_while_others_join_and_leave() {
    nothing_is_lost("--mode=native");
}

#[test]
fn pods_of_nodes_that_stay_lose_no_packet_over_the_overlay_while_others_join_and_leave() {
    nothing_is_lost("--mode=vxlan");
}
