//! Section 7 of the table: STATUS.

use std::time::Duration;

use serde_json::json;

use crate::support::{Call, Node, VERSIONS, agent::Mood, pod};

#[test]
fn s1_s2_status_succeeds_exactly_when_add_can_be_served() {
    let (mut node, pod) = (Node::new(), pod());
    node.status().silent();
    let expect = |node: &Node, code: u64, when: &str| {
        let outcome = node.status();
        assert_eq!(outcome.code(), code, "{when}");
        assert!(
            outcome.took < Duration::from_secs(1),
            "{when}: {:?}",
            outcome.took
        );
    };
    node.agent.mood(Mood::NotSynced);
    expect(&node, 50, "not synced");
    node.agent.mood(Mood::Degraded);
    expect(&node, 51, "the datapath is not in order");
    assert!(node.status().text().contains("because"));
    node.agent.mood(Mood::InForce);
    node.status().silent();
    node.agent.down();
    expect(&node, 50, "nobody listens");
    node.agent.gone();
    expect(&node, 50, "no socket");
    node.agent.up();
    node.status().silent();
    std::fs::remove_file(node.path("node.json")).unwrap();
    expect(&node, 50, "no node file");
    node.write_node_file(&["10.66.0.0/24"]);
    node.add("c1", &pod).ok();
    std::fs::write(node.path("ipam/store.json"), "{").unwrap();
    expect(&node, 50, "a broken store");
}

#[test]
fn s3_a_full_range_is_not_available() {
    let (node, pod) = (Node::new(), pod());
    node.write_node_file(&["10.66.0.8/32", "fd66::/64"]);
    node.status().silent();
    node.add("c1", &pod).ok();
    let outcome = node.status();
    assert_eq!(outcome.code(), 50);
    assert!(
        outcome.text().contains("1 of 1 in use in 10.66.0.8/32"),
        "{outcome:?}"
    );
    node.del("c1", &pod).silent();
    node.status().silent();
}

#[test]
fn s4_add_and_del_are_served_while_status_fails() {
    let (node, pod) = (Node::new(), pod());
    node.agent.mood(Mood::NotSynced);
    assert_eq!(node.status().code(), 50);
    node.add("c1", &pod).ok();
    node.del("c1", &pod).silent();
}

#[test]
fn s5_there_is_no_ipam_to_delegate_to_and_another_is_refused() {
    let node = Node::new();
    let config = node.config_with(json!({"ipam": {"type": "host-local"}}));
    for command in ["STATUS", "GC", "ADD", "DEL", "CHECK"] {
        assert_eq!(
            node.run(&Call::about(command, &config, "c1", "/x")).code(),
            2,
            "{command}"
        );
    }
}

#[test]
fn s6_a_hanging_agent_does_not_hold_status_up() {
    let node = Node::new();
    node.agent.mood(Mood::Hangs);
    let outcome = node.status();
    assert_eq!(outcome.code(), 50);
    assert!(outcome.took < Duration::from_secs(1), "{:?}", outcome.took);
}

#[test]
fn s7_status_and_gc_before_1_1_0_are_code_1() {
    let node = Node::new();
    for version in VERSIONS {
        let extra = json!({"cniVersion": version, "cni.dev/valid-attachments": []});
        let config = node.config_with(extra);
        for command in ["STATUS", "GC"] {
            let outcome = node.run(&Call::new(command, &config).env("CNI_PATH", "/x"));
            if version == "1.1.0" {
                outcome.silent();
            } else {
                assert_eq!(outcome.code(), 1, "{command} {version}");
            }
        }
    }
}
