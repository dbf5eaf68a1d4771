//! What is refused of a ClusterNetworkPolicy as a whole, and where its rules then stand.

use serde_json::{Value, json};
use weir_oracle::{Evaluator, Message};

use crate::policies::FREE;
use crate::support::{ask, cluster_policy, merge, shown, tiers};

fn everyone() -> Value {
    json!({"namespaces": {}})
}

/// The decision for b/web → a/db of a policy with this spec, and what is refused.
fn judged(change: Value) -> (String, Vec<Message>) {
    let c = tiers(&[cluster_policy("x", "Admin", change)], &[]);
    let decision = ask(&c, "b/web", "a/db", "80/tcp").unwrap().ingress.decision;
    (shown(&decision), Evaluator::new(&c).messages())
}

fn paths(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|m| m.path.as_str()).collect()
}

#[test]
fn an_action_that_is_none_of_the_three_denies_everything() {
    let none = json!([{"namespaces": {"matchLabels": {"no": "one"}}}]);
    for action in [Value::Null, json!("accept"), json!("Allow"), json!("")] {
        let (decision, messages) = judged(json!({"ingress": [{"action": action, "from": none}]}));
        assert_eq!(decision, "deny rule x:spec.ingress[0]", "{action}");
        assert_eq!(paths(&messages), ["spec.ingress[0].action"]);
    }
}

#[test]
fn a_refused_rule_stands_at_its_place() {
    let (decision, _) = judged(json!({"ingress": [
        {"action": "Accept", "from": [everyone()]}, {"action": "Deny", "from": []},
    ]}));
    assert_eq!(decision, "allow rule x:spec.ingress[0]");
    // Also with what its policy isolates, and never as the Pass that was written.
    let x = cluster_policy(
        "x",
        "Admin",
        json!({"ingress": [{"action": "Pass", "from": []}]}),
    );
    let c = tiers(&[x], &[crate::policies::ingress(json!([{}]))]);
    let rule = ask(&c, "b/web", "a/db", "80/tcp")
        .unwrap()
        .ingress
        .decision
        .rule
        .unwrap();
    assert_eq!(serde_json::to_value(rule).unwrap()["action"], "Deny");
}

#[test]
fn rules_after_the_25th_are_refused() {
    let none = json!([{"namespaces": {"matchLabels": {"no": "one"}}}]);
    let mut rules = vec![json!({"action": "Pass", "from": none}); 25];
    assert_eq!(judged(json!({"ingress": rules})), (FREE.to_owned(), vec![]));
    rules.push(json!({"action": "Accept", "from": [everyone()]}));
    let (decision, messages) = judged(json!({"ingress": rules}));
    assert_eq!(
        (decision.as_str(), paths(&messages)),
        (FREE, vec!["spec.ingress[25]"])
    );
    rules.push(json!({"action": "Pass", "from": none}));
    let (decision, messages) = judged(json!({"ingress": rules}));
    assert_eq!(decision, "deny rule x:spec.ingress[26]");
    assert_eq!(paths(&messages), ["spec.ingress[25]", "spec.ingress[26]"]);
}

#[test]
fn a_refused_tier_priority_or_subject_refuses_all_rules() {
    let accept = json!({"action": "Accept", "from": [everyone()]});
    let pass = json!({"action": "Pass", "from": [{"namespaces": {"matchLabels": {"no": "one"}}}]});
    let bad = json!({"matchExpressions": [{"key": "a", "operator": "Is"}]});
    for (change, path) in [
        (json!({"tier": null}), "spec.tier"),
        (json!({"tier": "admin"}), "spec.tier"),
        (json!({"priority": null}), "spec.priority"),
        (json!({"priority": -1}), "spec.priority"),
        (json!({"priority": 1001}), "spec.priority"),
        (json!({"subject": null}), "spec.subject"),
        (json!({"subject": {"pods": null}}), "spec.subject"),
        (json!({"subject": {"namespaces": {}}}), "spec.subject"),
        (json!({"subject": {"later": 1}}), "spec.subject.later"),
        (
            json!({"subject": {"pods": {"later": 1}}}),
            "spec.subject.pods.later",
        ),
        (
            json!({"subject": {"pods": {"podSelector": null}}}),
            "spec.subject.pods.podSelector",
        ),
        (
            json!({"subject": {"pods": {"podSelector": bad}}}),
            "spec.subject.pods.podSelector.matchExpressions[0].operator",
        ),
        (
            json!({"subject": {"pods": null, "namespaces": bad}}),
            "spec.subject.namespaces.matchExpressions[0].operator",
        ),
    ] {
        let with = |rules: Value| {
            let mut change = change.clone();
            merge(&mut change, json!({"ingress": rules}));
            judged(change)
        };
        let (decision, messages) = with(json!([accept]));
        assert_eq!(
            (decision.as_str(), paths(&messages)),
            (FREE, vec![path]),
            "{change}"
        );
        assert!(messages[0].reason.contains("; all its rules are refused: "));
        let (decision, _) = with(json!([accept, pass]));
        assert_eq!(decision, "deny rule x:spec.ingress[1]", "{change}");
    }
}

#[test]
fn what_is_valid_of_a_refused_subject_is_its_subject_and_all_pods_if_nothing_is() {
    let deny = json!({"ingress": [{"action": "Deny", "from": [everyone()]}]});
    let is_subject = |subject: Value, pod: &str| {
        let mut x = cluster_policy("x", "Admin", deny.clone());
        x["spec"]["subject"] = subject;
        let c = tiers(&[x], &[]);
        let from = if pod == "b/web" { "a/db" } else { "b/web" };
        let decision = ask(&c, from, pod, "80/tcp").unwrap().ingress.decision;
        shown(&decision).starts_with("deny")
    };
    let bad = json!({"key": "a", "operator": "Is"});
    let app = |app: &str| json!({"matchLabels": {"app": app}, "matchExpressions": [bad]});
    let blue = json!({"matchLabels": {"team": "blue"}});
    for (subject, db, web) in [
        (Value::Null, true, true),
        (json!({}), true, true),
        (json!({"later": 1}), true, true),
        (
            json!({"namespaces": {"matchExpressions": [bad]}}),
            true,
            true,
        ),
        (json!({"namespaces": blue, "later": 1}), false, true),
        (json!({"pods": {"podSelector": app("db")}}), true, false),
        (json!({"pods": {"namespaceSelector": blue}}), false, true),
        // No telling which is meant.
        (
            json!({"namespaces": blue, "pods": {"podSelector": {"matchLabels": {"app": "x"}}}}),
            true,
            true,
        ),
    ] {
        assert_eq!(is_subject(subject.clone(), "a/db"), db, "{subject}");
        assert_eq!(is_subject(subject.clone(), "b/web"), web, "{subject}");
    }
}

#[test]
fn a_refused_tier_counts_as_admin_and_a_refused_priority_as_the_nearest() {
    let rule = |action: &str| json!([{"action": action, "from": [everyone()]}]);
    let of = |name: &str, change: Value| cluster_policy(name, "Admin", change);
    let first = |one: Value, two: Value| {
        let c = tiers(&[one, two], &[]);
        ask(&c, "b/web", "a/db", "80/tcp")
            .unwrap()
            .ingress
            .decision
            .rule
            .unwrap()
    };
    let accept = |priority: i64| {
        of(
            "m",
            json!({"priority": priority, "ingress": rule("Accept")}),
        )
    };
    let deny = |name: &str, change: Value| {
        let mut all = json!({"ingress": rule("Deny")});
        merge(&mut all, change);
        of(name, all)
    };
    let tier = first(accept(11), deny("x", json!({"tier": "Base"})));
    assert_eq!(
        (tier.name.as_str(), tier.tier),
        ("x", Some(weir_oracle::Tier::Admin))
    );
    for (priority, other, wanted) in [
        (json!(null), 0, "m"),
        (json!(null), 1, "x"),
        (json!(-5), 0, "m"),
        (json!(-5), 1, "x"),
        (json!(5000), 1000, "m"),
        (json!(5000), 999, "m"),
    ] {
        let x = deny("x", json!({"priority": priority}));
        assert_eq!(first(accept(other), x).name, wanted, "{priority} {other}");
    }
    let before = deny("a", json!({"priority": 5000}));
    assert_eq!(first(accept(1000), before).name, "a");
}

#[test]
fn a_name_that_is_too_long_is_named_and_its_rule_stands() {
    let rule = |n: usize| json!({"ingress": [{"name": "ä".repeat(n), "action": "Deny", "from": [everyone()]}]});
    assert!(judged(rule(100)).1.is_empty());
    let (decision, messages) = judged(rule(101));
    assert_eq!(decision, "deny rule x:spec.ingress[0]");
    assert_eq!(
        messages[0].to_string(),
        "ClusterNetworkPolicy x: spec.ingress[0].name: has more than 100 characters; the rule stands"
    );
}
