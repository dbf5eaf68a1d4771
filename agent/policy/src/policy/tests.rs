use super::*;

use serde_json::{Value, json};

fn policy(spec: Value) -> Policy {
    let object = json!({"metadata": {"namespace": "shop", "name": "allow-db"}, "spec": spec});
    Policy::parse(&serde_json::from_value(object).unwrap())
}

fn paths(policy: &Policy) -> Vec<String> {
    policy.problems.iter().map(|p| p.path.clone()).collect()
}

/// How many usable rules there are, by direction; none where it does not isolate.
fn rules(policy: &Policy) -> [Option<usize>; 2] {
    [0, 1].map(|i| policy.rules[i].as_ref().map(Vec::len))
}

#[test]
fn policy_types_are_inferred_from_egress_rules() {
    for (spec, expect) in [
        (json!({}), [Some(0), None]),
        (json!({"policyTypes": []}), [Some(0), None]),
        (json!({"egress": []}), [Some(0), None]),
        (json!({"egress": [{}]}), [Some(0), Some(1)]),
        (
            json!({"policyTypes": ["Ingress"], "egress": [{}]}),
            [Some(0), None],
        ),
        (
            json!({"policyTypes": ["Egress"], "ingress": [{}]}),
            [None, Some(0)],
        ),
        (
            json!({"policyTypes": ["Egress", "Ingress"], "ingress": [{}, {}]}),
            [Some(2), Some(0)],
        ),
        (
            json!({"policyTypes": ["Egress", "Egress"]}),
            [None, Some(0)],
        ),
    ] {
        let policy = policy(spec.clone());
        assert_eq!(rules(&policy), expect, "{spec}");
        assert_eq!(policy.problems, []);
    }
}

#[test]
fn a_refused_rule_is_ignored_and_named_and_the_others_keep_their_paths() {
    let policy = policy(json!({"ingress": [
        {"ports": [{"port": 1}, {"port": 443, "endPort": 80}]},
        {"from": [{"podSelector": {}}]},
    ]}));
    assert_eq!(
        policy.problems[0].to_string(),
        "NetworkPolicy shop/allow-db: spec.ingress[0].ports[1].endPort 80 is below port 443; \
         rule ignored, all other rules stand"
    );
    assert_eq!(rules(&policy), [Some(1), None]);
    let left = &policy.rules[0].as_ref().unwrap()[0];
    assert!(left.name.text.contains("spec.ingress[1]"));
}

#[test]
fn every_wrong_peer_is_named_by_its_path() {
    for (peer, path) in [
        (json!({}), ""),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}),
            "",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "namespaceSelector": {}}),
            "",
        ),
        (json!({"ipBlock": {"cidr": "x"}}), ".ipBlock.cidr"),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["x"]}}),
            ".ipBlock.except[0]",
        ),
        (
            json!({"podSelector": {"matchLabels": {"-": "x"}}}),
            ".podSelector.matchLabels",
        ),
        (
            json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
            ".namespaceSelector.matchExpressions[0].values",
        ),
    ] {
        let policy = policy(json!({"egress": [{"to": [{"podSelector": {}}, peer.clone()]}]}));
        assert_eq!(
            paths(&policy),
            [format!("spec.egress[0].to[1]{path}")],
            "{peer}"
        );
        assert_eq!(rules(&policy), [Some(0), Some(0)], "{peer}");
    }
}

#[test]
fn a_policy_refused_as_such_isolates_and_allows_nothing() {
    let bad_types =
        policy(json!({"policyTypes": ["Ingress", "Both"], "ingress": [{}], "egress": [{}]}));
    assert_eq!(rules(&bad_types), [Some(0), Some(0)]);
    assert_eq!(paths(&bad_types), ["spec.policyTypes[1]"]);
    let too_many = policy(json!({"policyTypes": ["Ingress", "Ingress", "Ingress"]}));
    assert_eq!(rules(&too_many), [Some(0), Some(0)]);
    assert_eq!(paths(&too_many), ["spec.policyTypes"]);
    let bad_selector = policy(json!({
        "podSelector": {"matchLabels": {"app": "db"}, "matchExpressions": [{"key": "a", "operator": "?"}]},
        "ingress": [{}],
    }));
    assert_eq!(rules(&bad_selector), [Some(0), None]);
    assert_eq!(
        paths(&bad_selector),
        ["spec.podSelector.matchExpressions[0].operator"]
    );
    let db = Labels::from([("app".to_owned(), "db".to_owned())]);
    assert!(bad_selector.selector.matches(&db));
    assert!(!bad_selector.selector.matches(&Labels::new()));
}

#[test]
fn peers_are_the_same_wherever_they_are_written_alike() {
    let key = |peer: Value, namespace: &str| {
        let object = json!({"metadata": {"namespace": namespace, "name": "x"},
                            "spec": {"ingress": [{"from": [peer]}]}});
        let policy = Policy::parse(&serde_json::from_value(object).unwrap());
        policy.rules[0].as_ref().unwrap()[0].peers.as_ref().unwrap()[0].key
    };
    let web = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    let web_too = json!({"podSelector": {"matchExpressions":
        [{"key": "app", "operator": "In", "values": ["web"]}]}});
    assert_eq!(key(web.clone(), "a"), key(web_too, "a"));
    let all = [
        key(web.clone(), "a"),
        key(web, "b"),
        key(json!({"podSelector": {}}), "a"),
        key(json!({"namespaceSelector": {}}), "a"),
        key(
            json!({"namespaceSelector": {"matchLabels": {"app": "web"}}}),
            "a",
        ),
        key(
            json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}),
            "a",
        ),
        key(json!({"ipBlock": {"cidr": "10.0.0.0/8"}}), "a"),
    ];
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a != b), "{i}");
    }
    assert_eq!(
        key(json!({"namespaceSelector": {}}), "a"),
        key(json!({"namespaceSelector": {}, "podSelector": {}}), "b")
    );
}

#[test]
fn an_object_without_namespace_is_in_default() {
    for metadata in [json!({"name": "x"}), json!({"name": "x", "namespace": ""})] {
        let object = json!({"metadata": metadata});
        let policy = Policy::parse(&serde_json::from_value(object).unwrap());
        assert_eq!(policy.name, ObjectName::new("default", "x"));
    }
}
