//! What the API server would refuse allows nothing, isolates all the same, and is named.

use crate::support::{ask, cluster, policy, shown};
use serde_json::{Value, json};
use weir_oracle::Evaluator;

/// The ingress decision of b/web → a/db, and the paths of what was refused.
fn judged(spec: Value) -> (String, Vec<String>) {
    let c = cluster(&[policy("p", spec)]);
    let messages = Evaluator::new(&c).messages();
    for message in &messages {
        assert_eq!(message.object, "NetworkPolicy a/p");
        assert!(!message.reason.is_empty());
    }
    let answer = ask(&c, "b/web", "a/db", "80/tcp").unwrap();
    let paths = messages.into_iter().map(|m| m.path).collect();
    (shown(&answer.ingress.decision), paths)
}

#[test]
fn a_rule_with_a_refused_peer_allows_nothing_and_the_others_still_count() {
    let selector = |operator: &str, values: Value| json!({"podSelector": {"matchExpressions": [{"key": "k", "operator": operator, "values": values}]}});
    let block = |cidr: &str, except: Value| json!({"ipBlock": {"cidr": cidr, "except": except}});
    let everyone = json!({"namespaceSelector": {}});
    for (rule, path) in [
        (json!({"from": [{}]}), "from[0]"),
        (json!({"from": [everyone, {}]}), "from[1]"),
        (
            json!({"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}),
            "from[0]",
        ),
        (
            json!({"from": [selector("Is", json!(["x"]))]}),
            "from[0].podSelector.matchExpressions[0].operator",
        ),
        (
            json!({"from": [everyone, selector("In", json!([]))]}),
            "from[1].podSelector.matchExpressions[0].values",
        ),
        (
            json!({"from": [selector("Exists", json!(["x"]))]}),
            "from[0].podSelector.matchExpressions[0].values",
        ),
        (
            json!({"from": [{"namespaceSelector": {"matchLabels": {"a b": "c"}}}]}),
            "from[0].namespaceSelector.matchLabels",
        ),
        (
            json!({"from": [everyone, block("10.0.0/8", json!([]))]}),
            "from[1].ipBlock.cidr",
        ),
        (
            json!({"from": [everyone, block("", json!(null))]}),
            "from[1].ipBlock.cidr",
        ),
        (
            json!({"from": [everyone, block("10.0.0.0/8", json!(["11.0.0.0/16"]))]}),
            "from[1].ipBlock.except[0]",
        ),
        (
            json!({"from": [everyone, block("10.0.0.0/8", json!(["10.0.0.0/8"]))]}),
            "from[1].ipBlock.except[0]",
        ),
        (
            json!({"from": [everyone, block("10.0.0.0/8", json!(["10.1.0.0/16", "fd00::/16"]))]}),
            "from[1].ipBlock.except[1]",
        ),
    ] {
        check_refused(&rule, path);
    }
}

/// Such a rule allows nothing, is named by that path, and does not spoil the next.
#[track_caller]
fn check_refused(rule: &Value, path: &str) {
    let (alone, paths) = judged(json!({"ingress": [rule]}));
    assert_eq!(alone, "deny isolated p", "{rule}");
    assert_eq!(paths, [format!("spec.ingress[0].{path}")], "{rule}");
    let (with_another, _) = judged(json!({"ingress": [rule, {}]}));
    assert_eq!(with_another, "allow rule p:spec.ingress[1]");
}

#[test]
fn a_rule_with_a_refused_port_allows_nothing_and_the_others_still_count() {
    for (rule, path) in [
        (json!({"ports": [{"protocol": "tcp"}]}), "ports[0].protocol"),
        (
            json!({"ports": [{"protocol": "ICMP"}]}),
            "ports[0].protocol",
        ),
        (json!({"ports": [{"port": 0}]}), "ports[0].port"),
        (
            json!({"ports": [{"port": 80}, {"port": 65536}]}),
            "ports[1].port",
        ),
        (json!({"ports": [{"port": -1}]}), "ports[0].port"),
        (json!({"ports": [{"port": "HTTP"}]}), "ports[0].port"),
        (json!({"ports": [{"port": "80"}]}), "ports[0].port"),
        (json!({"ports": [{"port": "a--b"}]}), "ports[0].port"),
        (
            json!({"ports": [{"port": "a-name-too-long-"}]}),
            "ports[0].port",
        ),
        (
            json!({"ports": [{"port": 80, "endPort": 79}]}),
            "ports[0].endPort",
        ),
        (
            json!({"ports": [{"port": 80, "endPort": 65536}]}),
            "ports[0].endPort",
        ),
        (
            json!({"ports": [{"port": "http", "endPort": 90}]}),
            "ports[0].endPort",
        ),
        (json!({"ports": [{"endPort": 90}]}), "ports[0].endPort"),
    ] {
        check_refused(&rule, path);
    }
}

#[test]
fn a_policy_with_a_refused_pod_selector_isolates_what_the_rest_selects_and_allows_nothing() {
    let bad = json!({"key": "app", "operator": "Equals", "values": ["web"]});
    let spec = json!({"podSelector": {"matchExpressions": [bad]}, "ingress": [{}]});
    let (decision, paths) = judged(spec);
    assert_eq!(decision, "deny isolated p");
    assert_eq!(paths, ["spec.podSelector.matchExpressions[0].operator"]);
    let spec = json!({"podSelector": {"matchLabels": {"app": "web"}, "matchExpressions": [bad]}, "ingress": [{}]});
    assert_eq!(judged(spec).0, "allow not-selected");
}

#[test]
fn a_policy_with_refused_types_isolates_both_directions_and_allows_nothing() {
    for (types, path) in [
        (json!(["ingress"]), "spec.policyTypes[0]"),
        (json!(["Egress", "Both"]), "spec.policyTypes[1]"),
        (json!(["Ingress", "Egress", "Ingress"]), "spec.policyTypes"),
    ] {
        let spec = json!({"policyTypes": types, "ingress": [{}], "egress": [{}]});
        let (decision, paths) = judged(spec.clone());
        assert_eq!(
            (decision.as_str(), paths),
            ("deny isolated p", vec![path.to_owned()])
        );
        let c = cluster(&[policy("p", spec)]);
        let answer = ask(&c, "a/db", "b/web", "80/tcp").unwrap();
        assert_eq!(shown(&answer.egress.decision), "deny isolated p");
    }
}

#[test]
fn valid_policies_have_no_messages() {
    let (_, paths) = judged(json!({
        "podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]},
        "policyTypes": ["Egress", "Ingress"],
        "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.7/8", "except": ["10.1.0.0/16"]}}],
                     "ports": [{"port": "http"}, {"port": 1, "endPort": 65535, "protocol": "SCTP"}]}],
        "egress": [{}],
    }));
    assert!(paths.is_empty(), "{paths:?}");
}

#[test]
fn each_step_says_what_did_not_match() {
    let c = cluster(&[policy(
        "p",
        json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "x"}}}], "ports": [{"port": 81}]},
            {"ports": [{"port": "nix"}, {"port": "http"}]},
            {"from": [{"ipBlock": {"cidr": "10.2.0.0/16", "except": ["10.2.0.0/24"]}}]},
            {"from": [{"namespaceSelector": {"matchLabels": {"team": "red"}}}]},
            {"from": [{"ipBlock": {"cidr": "fd00::/8"}}]},
            {"from": [{}]},
        ]}),
    )]);
    let answer = ask(&c, "b/web", "a/db", "80/tcp").unwrap();
    let steps = &answer.ingress.steps;
    assert_eq!(steps.len(), 1);
    assert_eq!(
        (steps[0].name.as_str(), steps[0].selector.as_str()),
        ("p", "app=db")
    );
    let whys: Vec<&str> = steps[0].rules.iter().map(|r| r.why.as_str()).collect();
    assert_eq!(
        whys,
        [
            "peer: from[0] selects in namespace a only; port: 80/TCP is not in 81/TCP",
            "port: 80/TCP is not in \"nix\"/TCP (not on pod a/db), \"http\"/TCP (8080 on pod a/db)",
            "peer: from[0] ipBlock 10.2.0.0/16 excepts 10.2.0.0/24, 10.2.0.1 is in it",
            "peer: from[0] namespace b is not team=red",
            "peer: from[0] ipBlock fd00::/8 does not hold 10.2.0.1",
            "refused: spec.ingress[0].from[0]: needs one of podSelector, namespaceSelector, ipBlock"
                .replace("ingress[0]", "ingress[5]")
                .as_str(),
        ]
    );
}
