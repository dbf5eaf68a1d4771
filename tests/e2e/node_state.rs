//! What the agent keeps right on its node: routes, addresses, the node file, filters without tcx.

use std::process::Command;

use weir_agent::dataplane::attach::{Attached, Attacher, Hook, Role, Side};
use weir_agent::dataplane::pins::Pins;
use weir_lab::node::Node;
use weir_lab::spawn::run_in;
use weir_lab::{Lab, cluster};
use weir_net::Netlink;
use weir_net::netlink::{Route, RouteKind};

use crate::wait::await_that;

/// `rtm_protocol` of the agent's routes.
const PROTOCOL: u8 = 87;

fn routes(node: &Node) -> Vec<Route> {
    run_in(&node.place(), || {
        let mut routes = Netlink::open()?.routes()?;
        routes.retain(|r| r.protocol == PROTOCOL && r.kind == RouteKind::Unicast);
        Ok(routes)
    })
    .unwrap()
}

#[test]
fn routes_follow_the_nodes_that_come_and_go_and_are_mended() {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let [node, other] = &lab.nodes[..] else {
        panic!("two nodes")
    };
    let expected = |routes: &[Route]| {
        routes.len() == 2
            && other.pod_cidrs.iter().all(|cidr| {
                routes.iter().any(|r| {
                    r.destination == *cidr && other.addresses.iter().any(|a| r.gateway == Some(*a))
                })
            })
    };
    await_that("a route per family", || expected(&routes(node)));
    lab.cluster.delete("Node", None, &other.name).unwrap();
    await_that("no routes to a node that is gone", || {
        routes(node).is_empty()
    });
    lab.cluster
        .apply(&cluster::node_object(
            &other.name,
            &other.pod_cidrs.map(|c| c.to_string()),
            &other.addresses.map(|a| a.to_string()),
        ))
        .unwrap();
    await_that("a route per family again", || expected(&routes(node)));
    let victim = routes(node).remove(0);
    let deleted = run_in(
        &node.place(),
        || Ok(Netlink::open()?.delete_route(&victim)?),
    );
    assert!(deleted.unwrap());
    await_that("a route that somebody removed is back", || {
        expected(&routes(node))
    });
}

#[test]
fn routes_of_others_are_left_alone_and_stale_ones_of_ours_go_after_a_restart() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    node.stop_agent().unwrap();
    let foreign = run_in(&node.place(), || {
        let netlink = Netlink::open()?;
        let index = netlink.link("lo")?.index;
        let mut foreign = Route::to("198.51.100.0/24".parse()?).on_link(index);
        netlink.add_route(&foreign)?;
        foreign.protocol = PROTOCOL;
        foreign.destination = "203.0.113.0/24".parse()?;
        netlink.add_route(&foreign)?;
        Ok("198.51.100.0/24".parse()?)
    })
    .unwrap();
    node.start_agent().unwrap();
    await_that("our stale route is gone", || routes(node).is_empty());
    let still = run_in(&node.place(), || {
        Ok(Netlink::open()?
            .routes()?
            .iter()
            .any(|r| r.destination == foreign))
    });
    assert!(still.unwrap());
}

#[test]
fn the_node_file_has_the_pod_cidrs_and_the_uplinks_mtu() {
    let lab = Lab::builder().nodes(1).mtu(1400).start().unwrap();
    let node = &lab.nodes[0];
    let file = node.path(&format!("{}/node.json", node.state_dir()));
    let file: weir_api::node_file::NodeFile =
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(file.mtu, 1400);
    assert_eq!(file.pod_cidrs, node.pod_cidrs);
}

/// The filters of a device's ingress as tc shows them.
fn filters(device: &str) -> String {
    let output = Command::new("tc")
        .args(["filter", "show", "dev", device, "ingress"])
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
fn without_tcx_a_filter_stands_at_a_fixed_place_and_is_replaced_there() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    run_in(&node.place(), || {
        let netlink = Netlink::open()?;
        netlink.create_link("filtered", "bridge")?;
        let ifindex = netlink.link("filtered")?.index;
        let ifname = "filtered".to_owned();
        let hook = Hook {
            ifindex,
            ifname,
            role: Role::Endpoint,
            side: Side::In,
        };
        let attacher = Attacher::new(&Pins::new("/sys/fs/bpf/weir".as_ref()), false);
        for _ in 0..2 {
            assert_eq!(attacher.ensure(&hook)?, Attached::Changed);
            let shown = filters("filtered");
            assert_eq!(shown.matches("handle 0x1 from_pod").count(), 1, "{shown}");
            assert!(
                shown.contains("pref 1 ") && shown.contains("direct-action"),
                "{shown}"
            );
        }
        attacher.detach_hook(&hook)?;
        assert!(!filters("filtered").contains("from_pod"));
        Ok(())
    })
    .unwrap();
}
