//! Section 6 of the table: CHECK.

use serde_json::{Value, json};
use weir_net::{
    NetNs, Netlink,
    netlink::{LinkChange, Route},
};

use crate::support::{Call, Node, VERSIONS, files, pod};

/// A node with one pod attached, and the result.
fn attached() -> (Node, NetNs, Value) {
    let (node, pod) = (Node::new(), pod());
    let result = node.add("c1", &pod).ok();
    (node, pod, result)
}

#[test]
fn k1_without_prev_result_it_is_code_7_and_with_one_that_is_wrong_too() {
    let (node, pod, _) = attached();
    assert_eq!(
        node.run(&Call::about("CHECK", &node.config(), "c1", pod.path()))
            .code(),
        7
    );
    for garbage in [
        json!("x"),
        json!({"ips": "x"}),
        json!({"ips": [{"address": "x"}]}),
    ] {
        assert_eq!(node.check("c1", &pod, &garbage).code(), 7, "{garbage}");
    }
    // A result that names nothing of this attachment, or another address, does not hold.
    assert_eq!(
        node.check("c1", &pod, &json!({"cniVersion": "1.1.0"}))
            .code(),
        104
    );
    let mut other = attached().2;
    other["ips"][0]["address"] = "10.66.0.9/32".into();
    assert!(
        node.check("c1", &pod, &other)
            .text()
            .contains("address 10.66.0.9/32 is missing")
    );
}

#[test]
fn k1_k7_every_version_from_0_4_0_is_checked_by_its_own_result_and_older_ones_are_code_1() {
    for version in VERSIONS {
        let (node, pod) = (Node::new(), pod());
        let mut config = node.config_with(json!({"cniVersion": version}));
        config["prevResult"] = Value::Null;
        let result = node
            .run(&Call::about("ADD", &config, "c1", pod.path()))
            .ok();
        config["prevResult"] = result;
        let check = node.run(&Call::about("CHECK", &config, "c1", pod.path()));
        if version < "0.4.0" {
            assert_eq!(check.code(), 1, "{version}");
            assert_eq!(check.error()["cniVersion"], version);
        } else {
            check.silent();
        }
    }
}

#[test]
fn k2_what_later_plugins_add_is_no_fault() {
    let (node, pod, mut result) = attached();
    let netlink = Netlink::open_in(&pod).unwrap();
    netlink.create_link("extra0", "bridge").unwrap();
    let index = netlink.link("eth0").unwrap().index;
    netlink
        .add_address(index, "192.0.2.1/32".parse().unwrap())
        .unwrap();
    let gateway = "169.254.1.1".parse().unwrap();
    netlink
        .add_route(&Route::to("198.51.100.0/24".parse().unwrap()).via(index, gateway))
        .unwrap();
    let mut elsewhere = Route::to("198.51.101.0/24".parse().unwrap()).on_link(index);
    elsewhere.table = 77;
    netlink.add_route(&elsewhere).unwrap();
    netlink
        .set_link(
            index,
            LinkChange {
                mtu: Some(1300),
                ..LinkChange::default()
            },
        )
        .unwrap();
    let extra = json!({"name": "extra0", "mac": "", "sandbox": pod.path()});
    result["interfaces"].as_array_mut().unwrap().push(extra);
    let foreign = json!({"address": "203.0.113.1/32", "interface": 2});
    result["ips"].as_array_mut().unwrap().push(foreign);
    result["routes"]
        .as_array_mut()
        .unwrap()
        .push(json!({"dst": "203.0.113.0/24"}));
    node.check("c1", &pod, &result).silent();
    // A plugin that changes the interface says so in the result.
    let mac = "0a:00:00:00:00:77".parse().unwrap();
    netlink
        .set_link(
            index,
            LinkChange {
                mac: Some(mac),
                ..LinkChange::default()
            },
        )
        .unwrap();
    let text = node.check("c1", &pod, &result).text();
    assert!(text.contains("has MAC 0a:00:00:00:00:77"), "{text}");
}

/// The pod's netlink and the index of `eth0`.
fn inside(pod: &NetNs) -> (Netlink, u32) {
    let netlink = Netlink::open_in(pod).unwrap();
    let index = netlink.link("eth0").unwrap().index;
    (netlink, index)
}

fn no_address(pod: &NetNs, address: &str) {
    let (netlink, index) = inside(pod);
    assert!(
        netlink
            .delete_address(index, address.parse().unwrap())
            .unwrap()
    );
}

fn no_route(ns: &NetNs, to: &str) {
    let netlink = Netlink::open_in(ns).unwrap();
    let to = to.parse().unwrap();
    let routes = netlink.routes().unwrap();
    let route = routes
        .iter()
        .find(|r| r.destination == to && r.table == Route::MAIN)
        .unwrap();
    assert!(netlink.delete_route(route).unwrap());
}

fn no_neighbour(ns: &NetNs, link: &str, address: &str) {
    let netlink = Netlink::open_in(ns).unwrap();
    let index = netlink.link(link).unwrap().index;
    assert!(
        netlink
            .delete_neighbour(index, address.parse().unwrap())
            .unwrap()
    );
}

fn down(ns: &NetNs, link: &str) {
    let netlink = Netlink::open_in(ns).unwrap();
    let index = netlink.link(link).unwrap().index;
    netlink
        .set_link(
            index,
            LinkChange {
                up: Some(false),
                ..LinkChange::default()
            },
        )
        .unwrap();
}

/// What a saboteur does to the node, the pod and the host interface, and a word of the complaint.
type Sabotage = (&'static str, fn(&Node, &NetNs, &str), &'static str);

const SABOTAGE: [Sabotage; 14] = [
    (
        "v4 address",
        |_, pod, _| no_address(pod, "10.66.0.1/32"),
        "10.66.0.1/32 is missing",
    ),
    (
        "v6 address",
        |_, pod, _| no_address(pod, "fd66::1/128"),
        "fd66::1/128 is missing",
    ),
    (
        "v4 route",
        |_, pod, _| no_route(pod, "0.0.0.0/0"),
        "0.0.0.0/0 via 169.254.1.1 is missing",
    ),
    (
        "v6 route",
        |_, pod, _| no_route(pod, "::/0"),
        "::/0 via fe80::1 is missing",
    ),
    (
        "v4 gateway",
        |_, pod, _| no_neighbour(pod, "eth0", "169.254.1.1"),
        "gateway 169.254.1.1",
    ),
    (
        "v6 gateway",
        |_, pod, _| no_neighbour(pod, "eth0", "fe80::1"),
        "gateway fe80::1",
    ),
    (
        "pod link down",
        |_, pod, _| down(pod, "eth0"),
        "eth0 is down",
    ),
    (
        "pod link gone",
        |_, pod, _| assert!(inside(pod).0.delete_link("eth0").unwrap()),
        "eth0 is missing",
    ),
    (
        "host link down",
        |node, _, host| down(&node.ns, host),
        "is down",
    ),
    (
        "host route",
        |node, _, _| no_route(&node.ns, "10.66.0.1/32"),
        "host's route to 10.66.0.1",
    ),
    (
        "host v6 route",
        |node, _, _| no_route(&node.ns, "fd66::1/128"),
        "host's route to fd66::1",
    ),
    (
        "host neighbour",
        |node, _, host| no_neighbour(&node.ns, host, "fd66::1"),
        "neighbour entry of fd66::1",
    ),
    (
        "record",
        |node, _, _| std::fs::remove_file(node.path("ipam/store.json")).unwrap(),
        "not reserved",
    ),
    (
        "programs",
        |node, _, _| node.agent.attached(false),
        "programs are not attached",
    ),
];

#[test]
fn k3_k4_k5_k8_whatever_is_missing_is_named_and_not_repaired() {
    for (what, spoil, word) in SABOTAGE {
        let (node, pod, result) = attached();
        let host = result["interfaces"][0]["name"].as_str().unwrap();
        spoil(&node, &pod, host);
        let before = (node.traces(), files(node.dir.path()));
        let outcome = node.check("c1", &pod, &result);
        assert_eq!(outcome.code(), 104, "{what}: {outcome:?}");
        assert!(outcome.text().contains(word), "{what}: {outcome:?}");
        assert_eq!((node.traces(), files(node.dir.path())), before, "{what}");
    }
}

#[test]
fn k4_an_agent_that_forgot_the_endpoint_is_a_fault_and_one_that_is_down_is_code_11() {
    let (mut node, pod, result) = attached();
    node.agent.forget();
    assert_eq!(node.check("c1", &pod, &result).code(), 104);
    node.agent.down();
    assert_eq!(node.check("c1", &pod, &result).code(), 11);
    // What is wrong anyway comes first.
    no_address(&pod, "10.66.0.1/32");
    assert_eq!(node.check("c1", &pod, &result).code(), 104);
}

#[test]
fn k3_a_namespace_that_is_gone_is_code_8() {
    let (node, _pod, result) = attached();
    let config = node.config_with(json!({"prevResult": result}));
    assert_eq!(
        node.run(&Call::about("CHECK", &config, "c1", "/nonexistent"))
            .code(),
        8
    );
}

#[test]
fn k6_k8_check_holds_at_once_after_add_and_again_and_again_and_changes_nothing() {
    let (node, pod) = (Node::new(), pod());
    for _ in 0..20 {
        let result = node.add("c1", &pod).ok();
        let before = (node.traces(), files(&node.path("ipam")));
        for _ in 0..5 {
            node.check("c1", &pod, &result).silent();
        }
        assert_eq!((node.traces(), files(&node.path("ipam"))), before);
        node.del("c1", &pod).silent();
    }
}
