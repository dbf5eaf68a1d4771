//! Hints of endpoints: which of them are for this node.

use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use weir_abi::Proto;

use super::select::shown;
use super::*;
use crate::state::{Change, Kind, ObjectKey};

fn node(name: &str, zone: Option<&str>) -> Node {
    let labels = zone.map(|zone| json!({"topology.kubernetes.io/zone": zone}));
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap()
}

/// A slice with endpoints (address, state, zones, nodes that it is for).
fn hinted(endpoints: &[(&str, char, &[&str], &[&str])]) -> EndpointSlice {
    let named = |names: &[&str]| names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>();
    let list = endpoints.iter().map(|(address, state, zones, nodes)| {
        let mut endpoint = endpoint(address, *state);
        endpoint["hints"] = json!({"forZones": named(zones), "forNodes": named(nodes)});
        endpoint
    });
    let list: Vec<Value> = list.collect();
    slice_with(
        "a-1",
        "a",
        json!([{"name": "web", "port": 8080}]),
        json!(list),
    )
}

fn shows(index: &ServiceIndex) -> String {
    shown(&programmed(index), "10.96.0.1", 80, Proto::TCP)
}

/// What node n1 in zone z1 is led to.
fn led_to(endpoints: &[(&str, char, &[&str], &[&str])]) -> String {
    let mut index = index(&[service("a", &["10.96.0.1"])], &[hinted(endpoints)]);
    index.apply_node(&node("n1", Some("z1")));
    shows(&index)
}

const ONE: &str = "10.1.0.1:8080";
const BOTH: &str = "10.1.0.1:8080 10.1.0.2:8080";

#[test]
fn endpoints_for_the_nodes_zone_are_used_if_every_ready_one_has_a_hint_and_one_is_for_it() {
    let ready = |zones: [&'static [&'static str]; 2]| {
        led_to(&[
            ("10.1.0.1", 'r', zones[0], &[]),
            ("10.1.0.2", 'r', zones[1], &[]),
        ])
    };
    assert_eq!(ready([&["z1"], &["z2"]]), ONE);
    assert_eq!(ready([&["z2", "z1"], &["z2"]]), ONE);
    assert_eq!(ready([&["z1"], &["z1"]]), BOTH);
    assert_eq!(ready([&["z1"], &[]]), BOTH, "one has no hint");
    assert_eq!(ready([&["z2"], &["z3"]]), BOTH, "none is for this zone");
}

#[test]
fn endpoints_for_the_node_go_before_those_for_its_zone() {
    let ready = |nodes: [&'static [&'static str]; 2]| {
        led_to(&[
            ("10.1.0.1", 'r', &["z1"], nodes[0]),
            ("10.1.0.2", 'r', &["z1"], nodes[1]),
        ])
    };
    assert_eq!(ready([&["n1"], &["n2"]]), ONE);
    assert_eq!(
        ready([&["n1"], &[]]),
        BOTH,
        "one has no hint for nodes: zones count"
    );
    assert_eq!(
        ready([&["n3"], &["n2"]]),
        BOTH,
        "none is for this node: zones count"
    );
}

#[test]
fn hints_of_endpoints_that_are_not_ready_say_nothing() {
    let endpoints: [(&str, char, &[&str], &[&str]); 3] = [
        ("10.1.0.1", 'r', &["z1"], &[]),
        ("10.1.0.2", 'r', &["z2"], &[]),
        ("10.1.0.3", 't', &[], &[]),
    ];
    assert_eq!(led_to(&endpoints), ONE);
    assert_eq!(
        led_to(&endpoints[1..]),
        "10.1.0.2:8080",
        "no ready one is for this zone"
    );
}

#[test]
fn terminating_endpoints_are_used_from_all_zones() {
    let endpoints: [(&str, char, &[&str], &[&str]); 2] = [
        ("10.1.0.1", 't', &["z1"], &[]),
        ("10.1.0.2", 't', &["z2"], &[]),
    ];
    assert_eq!(led_to(&endpoints), BOTH);
}

#[test]
fn traffic_policy_local_does_not_look_at_hints() {
    let spec = json!({
        "clusterIPs": ["10.96.0.1"],
        "internalTrafficPolicy": "Local",
        "ports": [{"name": "web", "port": 80}],
    });
    let slice = hinted(&[
        ("10.1.0.1", 'r', &["z1"], &[]),
        ("10.1.0.2", 'r', &["z2"], &[]),
    ]);
    let mut index = index(&[service_with("a", spec)], &[slice]);
    index.apply_node(&node("n1", Some("z1")));
    assert_eq!(shows(&index), BOTH, "both are on this node");
}

#[test]
fn a_node_without_a_zone_uses_all_and_a_change_of_its_zone_changes_what_it_uses() {
    let slice = hinted(&[
        ("10.1.0.1", 'r', &["z1"], &[]),
        ("10.1.0.2", 'r', &["z2"], &[]),
    ]);
    let mut index = index(&[service("a", &["10.96.0.1"])], &[slice]);
    assert_eq!(shows(&index), BOTH);
    assert!(!index.apply_node(&node("n2", Some("z1"))), "another node's");
    for (zone, led_to, changes) in [
        (Some("z1"), ONE, true),
        (Some("z1"), ONE, false),
        (Some("z2"), "10.1.0.2:8080", true),
        (None, BOTH, true),
        (Some("z1"), ONE, true),
    ] {
        assert_eq!(index.apply_node(&node("n1", zone)), changes, "{zone:?}");
        assert_eq!(shows(&index), led_to, "{zone:?}");
    }
    let key = ObjectKey {
        kind: Kind::Node,
        namespace: String::new(),
        name: "n1".into(),
    };
    assert!(index.apply(&Change::Delete(key)));
    assert_eq!(shows(&index), BOTH);
}
