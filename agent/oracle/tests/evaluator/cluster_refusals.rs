//! ClusterNetworkPolicies fail closed: a refused Accept rule matches nothing, every other that is
//! refused denies everything, and each refusal is named.

use serde_json::{Value, json};
use weir_oracle::Evaluator;

use crate::policies::FREE;
use crate::support::{ask, cluster_policy, shown, tiers};

fn everyone() -> Value {
    json!({"namespaces": {}})
}

/// The rule with each action, of that direction: an Accept must match nothing, the others must deny
/// everything, and `path` of the rule is named.
#[track_caller]
fn refused(direction: &str, rule: Value, path: &str) {
    let peers = if direction == "egress" { "to" } else { "from" };
    let accept = json!({"action": "Accept", peers: [everyone()]});
    for (action, alone) in [("Accept", false), ("Deny", true), ("Pass", true)] {
        let mut rule = rule.clone();
        rule["action"] = action.into();
        let x = cluster_policy("x", "Admin", json!({direction: [rule, accept]}));
        let c = tiers(&[x], &[]);
        let messages = Evaluator::new(&c).messages();
        let [message] = messages.as_slice() else {
            panic!("{rule}: {messages:?}")
        };
        assert_eq!(message.object, "ClusterNetworkPolicy x");
        assert_eq!(
            message.path,
            format!("spec.{direction}[0]{path}"),
            "{message}"
        );
        let cost = if alone {
            "the rule denies everything"
        } else {
            "the rule matches nothing"
        };
        assert!(message.reason.ends_with(&format!("; {cost}")), "{message}");
        let wanted = if alone {
            format!("deny rule x:spec.{direction}[0]")
        } else {
            format!("allow rule x:spec.{direction}[1]")
        };
        // Whatever the rule says of peers and ports.
        for port in ["80/tcp", "1/udp", "icmp"] {
            let decision = if direction == "ingress" {
                ask(&c, "b/web", "a/db", port).unwrap().ingress.decision
            } else {
                ask(&c, "a/db", "b/web", port).unwrap().egress.decision
            };
            assert_eq!(shown(&decision), wanted, "{rule} {port}");
        }
    }
}

#[test]
fn a_refused_peer_refuses_its_rule() {
    let bad = json!({"matchExpressions": [{"key": "a", "operator": "Is"}]});
    let none = json!({"matchLabels": {"no": "one"}});
    for (from, path) in [
        (Value::Null, ".from"),
        (json!([]), ".from"),
        (json!(vec![everyone(); 26]), ".from"),
        (json!([{}]), ".from[0]"),
        (
            json!([{"namespaces": none, "pods": {"podSelector": none}}]),
            ".from[0]",
        ),
        (
            json!([{"namespaces": none}, {"later": {}}]),
            ".from[1].later",
        ),
        (json!([{"namespaces": none, "later": {}}]), ".from[0].later"),
        (
            json!([{"namespaces": bad}]),
            ".from[0].namespaces.matchExpressions[0].operator",
        ),
        (
            json!([{"pods": {"podSelector": bad}}]),
            ".from[0].pods.podSelector.matchExpressions[0].operator",
        ),
        (
            json!([{"pods": {"podSelector": {}, "namespaceSelector": bad}}]),
            ".from[0].pods.namespaceSelector.matchExpressions[0].operator",
        ),
        (
            json!([{"pods": {"namespaceSelector": none}}]),
            ".from[0].pods.podSelector",
        ),
        (
            json!([{"pods": {"podSelector": none, "later": 1}}]),
            ".from[0].pods.later",
        ),
        // Ingress has no other peers.
        (json!([{"networks": ["10.0.0.0/8"]}]), ".from[0].networks"),
    ] {
        refused("ingress", json!({"from": from}), path);
    }
    refused(
        "ingress",
        json!({"from": [everyone()], "later": 1}),
        ".later",
    );
}

#[test]
fn a_refused_destination_refuses_its_rule() {
    let long = "0000:0000:0000:0000:0000:0000:255.255.255.255/128";
    let names = |names: Value| json!({"to": [{"domainNames": names}]});
    for (rule, path) in [
        (json!({"to": []}), ".to"),
        (json!({"to": [{}]}), ".to[0]"),
        (
            json!({"to": [{"nodes": {}, "networks": ["10.0.0.0/8"]}]}),
            ".to[0]",
        ),
        (
            json!({"to": [{"nodes": {"matchLabels": {"a b": "c"}}}]}),
            ".to[0].nodes.matchLabels",
        ),
        (json!({"to": [{"networks": []}]}), ".to[0].networks"),
        (
            json!({"to": [{"networks": vec!["10.0.0.0/8"; 26]}]}),
            ".to[0].networks",
        ),
        (
            json!({"to": [{"networks": ["10.0.0.0/8", "10.0.0.0"]}]}),
            ".to[0].networks[1]",
        ),
        (json!({"to": [{"networks": [long]}]}), ".to[0].networks[0]"),
        (json!({"to": [{"services": {}}]}), ".to[0].services"),
        (names(json!([])), ".to[0].domainNames"),
        (names(json!(vec!["a.b"; 26])), ".to[0].domainNames"),
        (names(json!(["a.b", "-"])), ".to[0].domainNames[1]"),
        (
            json!({"to": [everyone(), {"networks": ["10.0.0.0/8"]}], "protocols": [{"destinationNamedPort": "http"}]}),
            ".protocols",
        ),
        (
            json!({"to": [{"nodes": {}}], "protocols": [{"tcp": {"destinationPort": {"number": 1}}}, {"destinationNamedPort": "http"}]}),
            ".protocols",
        ),
    ] {
        refused("egress", rule, path);
    }
}

#[test]
fn domain_names_are_refused_in_rules_that_do_not_accept() {
    let judged = |action: &str, protocols: Value| {
        let rule =
            json!([{"action": action, "to": [{"domainNames": ["a.b"]}], "protocols": protocols}]);
        let c = tiers(
            &[cluster_policy("x", "Admin", json!({"egress": rule}))],
            &[],
        );
        let decision = ask(&c, "a/db", "b/web", "80/tcp").unwrap().egress.decision;
        let paths: Vec<String> = Evaluator::new(&c)
            .messages()
            .into_iter()
            .map(|m| m.path)
            .collect();
        (shown(&decision), paths)
    };
    let refused = (
        "deny rule x:spec.egress[0]".to_owned(),
        vec!["spec.egress[0].to[0].domainNames".to_owned()],
    );
    assert_eq!(judged("Deny", Value::Null), refused);
    assert_eq!(judged("Pass", Value::Null), refused);
    assert_eq!(judged("Accept", Value::Null), (FREE.to_owned(), vec![]));
    let named = json!([{"destinationNamedPort": "http"}]);
    let beside = vec!["spec.egress[0].protocols".to_owned()];
    assert_eq!(judged("Accept", named), (FREE.to_owned(), beside));
}

#[test]
fn a_refused_protocol_refuses_its_rule() {
    let port = |port: Value| json!([{"tcp": {"destinationPort": port}}]);
    for (protocols, path) in [
        (json!([]), ""),
        (json!(vec![json!({"destinationNamedPort": "a"}); 26]), ""),
        (json!([{}]), "[0]"),
        (json!([{"destinationNamedPort": ""}]), "[0]"),
        (json!([{"tcp": {}, "udp": {}}]), "[0]"),
        (
            json!([{"tcp": {"destinationPort": {"number": 1}}, "destinationNamedPort": "a"}]),
            "[0]",
        ),
        (
            json!([{"destinationNamedPort": "a"}, {"icmp": {}}]),
            "[1].icmp",
        ),
        (json!([{"tcp": {}}]), "[0].tcp.destinationPort"),
        (json!([{"udp": {}}]), "[0].udp.destinationPort"),
        (json!([{"sctp": {"sourcePort": 1}}]), "[0].sctp.sourcePort"),
        (port(json!({})), "[0].tcp.destinationPort"),
        (
            port(json!({"number": 1, "range": {"start": 1, "end": 2}})),
            "[0].tcp.destinationPort",
        ),
        (
            port(json!({"number": 1, "later": 1})),
            "[0].tcp.destinationPort.later",
        ),
        (port(json!({"number": 0})), "[0].tcp.destinationPort.number"),
        (
            port(json!({"number": 65536})),
            "[0].tcp.destinationPort.number",
        ),
        (
            port(json!({"number": -1})),
            "[0].tcp.destinationPort.number",
        ),
        (
            port(json!({"range": {"start": 1}})),
            "[0].tcp.destinationPort.range.end",
        ),
        (
            port(json!({"range": {"end": 1}})),
            "[0].tcp.destinationPort.range.start",
        ),
        (
            port(json!({"range": {"start": 5, "end": 5}})),
            "[0].tcp.destinationPort.range",
        ),
        (
            port(json!({"range": {"start": 6, "end": 5}})),
            "[0].tcp.destinationPort.range",
        ),
        (
            port(json!({"range": {"start": 1, "end": 65536}})),
            "[0].tcp.destinationPort.range.end",
        ),
        (
            port(json!({"range": {"start": 1, "end": 2, "step": 1}})),
            "[0].tcp.destinationPort.range.step",
        ),
    ] {
        let none = json!([{"namespaces": {"matchLabels": {"no": "one"}}}]);
        let rule = json!({"from": none, "protocols": protocols});
        refused("ingress", rule, &format!(".protocols{path}"));
    }
}
