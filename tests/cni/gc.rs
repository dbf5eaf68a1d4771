//! Section 7 of the table: GC.

use serde_json::{Value, json};
use weir_net::NetNs;

use crate::support::{Call, Node, agent::Mood, pod};

/// A node with three pods attached, `a`, `b` and `c`, and their results.
fn three() -> (Node, Vec<NetNs>, Vec<Value>) {
    let node = Node::new();
    let pods: Vec<NetNs> = (0..3).map(|_| pod()).collect();
    let results = ["a", "b", "c"]
        .iter()
        .zip(&pods)
        .map(|(id, pod)| node.add(id, pod).ok())
        .collect();
    (node, pods, results)
}

fn gc_with(node: &Node, extra: Value) -> crate::support::Outcome {
    node.run(&Call::new("GC", &node.config_with(extra)).env("CNI_PATH", "/x"))
}

#[test]
fn g1_g3_g4_what_is_not_listed_goes_and_what_is_listed_stays() {
    let (node, pods, results) = three();
    node.gc(&[("b", "eth0"), ("a", "eth1"), ("unknown", "eth0")])
        .silent();
    assert_eq!(node.used(), ["10.66.0.2", "fd66::2"]);
    node.check("b", &pods[1], &results[1]).silent();
    // The loopback and one host side.
    assert_eq!(node.netlink().links().unwrap().len(), 2);
    assert_eq!(
        node.agent.endpoints(),
        [("b".to_owned(), "eth0".to_owned())]
    );
    node.gc(&[]).silent();
    for pod in &pods {
        node.assert_clean(pod, "after GC");
    }
    node.gc(&[]).silent();
}

#[test]
fn g2_each_of_the_two_keys_will_do_and_an_attachment_in_either_is_valid() {
    let of = |id: &str| json!([{"containerID": id, "ifname": "eth0"}]);
    for (extra, left) in [
        (
            json!({"cni.dev/valid-attachments": of("a")}),
            vec!["10.66.0.1"],
        ),
        (json!({"cni.dev/attachments": of("a")}), vec!["10.66.0.1"]),
        (
            json!({"cni.dev/valid-attachments": of("a"), "cni.dev/attachments": of("c")}),
            vec!["10.66.0.1", "10.66.0.3"],
        ),
    ] {
        let (node, _pods, _) = three();
        gc_with(&node, extra.clone()).silent();
        let used: Vec<String> = node
            .used()
            .into_iter()
            .filter(|a| a.contains('.'))
            .collect();
        assert_eq!(used, left, "{extra}");
    }
}

#[test]
fn g3_another_networks_attachments_are_not_touched() {
    let (node, _pods, _) = three();
    let other = pod();
    let config = node.config_with(json!({"name": "other"}));
    let result = node
        .run(&Call::about("ADD", &config, "d", other.path()))
        .ok();
    node.gc(&[]).silent();
    assert_eq!(node.used(), ["10.66.0.4", "fd66::4"]);
    let config = node.config_with(json!({"name": "other", "prevResult": result}));
    node.run(&Call::about("CHECK", &config, "d", other.path()))
        .silent();
}

#[test]
fn g5_without_a_list_nothing_is_collected() {
    let (node, pods, results) = three();
    for extra in [json!({}), json!({"cni.dev/valid-attachments": null})] {
        gc_with(&node, extra).silent();
        for ((id, pod), result) in ["a", "b", "c"].iter().zip(&pods).zip(&results) {
            node.check(id, pod, result).silent();
        }
    }
}

#[test]
fn g1_gc_needs_no_agent_and_waits_for_a_stuck_one_only_once() {
    let (mut node, _pods, _) = three();
    node.agent.mood(Mood::Hangs);
    let outcome = node.gc(&[("a", "eth0")]);
    outcome.silent();
    assert!(outcome.took.as_secs() < 4, "{:?}", outcome.took);
    assert_eq!(node.used(), ["10.66.0.1", "fd66::1"]);
    node.agent.down();
    node.gc(&[]).silent();
    assert_eq!(node.used(), Vec::<String>::new());
    assert_eq!(node.netlink().links().unwrap().len(), 1);
}

#[test]
fn g1_an_endpoint_that_only_the_agent_knows_is_collected_too() {
    let (node, _pods, _) = three();
    std::fs::remove_file(node.path("ipam/store.json")).unwrap();
    node.gc(&[]).silent();
    assert_eq!(node.agent.endpoints(), []);
    assert_eq!(node.netlink().links().unwrap().len(), 1);
}

#[test]
fn g4_a_store_that_cannot_be_read_is_reported_and_the_rest_is_done() {
    let (node, _pods, _) = three();
    std::fs::write(node.path("ipam/store.json"), "{").unwrap();
    let outcome = node.gc(&[]);
    assert!(outcome.text().contains("store.json"), "{outcome:?}");
    assert_eq!(node.agent.endpoints(), []);
    assert_eq!(node.netlink().links().unwrap().len(), 1);
}

#[test]
fn g6_gc_at_the_same_time_as_adds_and_dels_loses_nothing_that_is_valid() {
    let node = Node::new();
    let pods: Vec<NetNs> = (0..12).map(|_| pod()).collect();
    let ids: Vec<String> = (0..12).map(|n| format!("c{n}")).collect();
    let valid: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "eth0")).collect();
    std::thread::scope(|scope| {
        for (id, pod) in ids.iter().zip(&pods) {
            let node = &node;
            scope.spawn(move || {
                node.add(id, pod).ok();
                node.del(id, pod).silent();
                node.add(id, pod).ok();
            });
        }
        for _ in 0..5 {
            node.gc(&valid).silent();
        }
    });
    assert_eq!(node.used().len(), 24);
    assert_eq!(node.agent.endpoints().len(), 12);
}
