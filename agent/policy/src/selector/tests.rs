use super::*;

use serde_json::{Value, json};

fn parse(value: Value) -> (Selector, Vec<Refusal>) {
    Selector::parse(&serde_json::from_value(value).unwrap())
}

fn good(value: Value) -> Selector {
    let (selector, refusals) = parse(value);
    assert_eq!(refusals, []);
    selector
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn expression(operator: &str, values: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]})
}

#[test]
fn an_absent_selector_selects_everything() {
    for empty in [
        json!({}),
        json!({"matchLabels": {}, "matchExpressions": []}),
    ] {
        assert!(good(empty.clone()).matches(&labels(&[])));
        assert!(good(empty).matches(&labels(&[("app", "web")])));
    }
}

#[test]
fn each_operator_decides_by_presence_and_value() {
    for (operator, values, listed, other, absent) in [
        ("In", &["web", "api"][..], true, false, false),
        ("NotIn", &["web", "api"][..], false, true, true),
        ("Exists", &[][..], true, true, false),
        ("DoesNotExist", &[][..], false, false, true),
    ] {
        let selector = good(expression(operator, values));
        for value in ["web", "api"].into_iter().take(values.len()) {
            assert_eq!(
                selector.matches(&labels(&[("app", value)])),
                listed,
                "{operator} {value}"
            );
        }
        assert_eq!(
            selector.matches(&labels(&[("app", "db")])),
            other,
            "{operator}"
        );
        assert_eq!(
            selector.matches(&labels(&[("tier", "web")])),
            absent,
            "{operator}"
        );
    }
}

#[test]
fn every_requirement_must_hold() {
    let selector = good(json!({
        "matchLabels": {"app": "web", "tier": ""},
        "matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]},
                             {"key": "old", "operator": "DoesNotExist"}],
    }));
    assert!(selector.matches(&labels(&[("app", "web"), ("tier", "")])));
    assert!(!selector.matches(&labels(&[("app", "web")])));
    assert!(!selector.matches(&labels(&[("app", "web"), ("tier", ""), ("old", "x")])));
}

#[test]
fn what_is_refused_is_named_and_the_rest_stands() {
    let long = "x".repeat(64);
    for (value, path) in [
        (expression("in", &["web"]), "matchExpressions[0].operator"),
        (expression("In", &[]), "matchExpressions[0].values"),
        (expression("NotIn", &[]), "matchExpressions[0].values"),
        (expression("Exists", &["web"]), "matchExpressions[0].values"),
        (
            expression("DoesNotExist", &["web"]),
            "matchExpressions[0].values",
        ),
        (
            expression("In", &["web", "-x"]),
            "matchExpressions[0].values",
        ),
        (expression("NotIn", &["x."]), "matchExpressions[0].values"),
        (
            json!({"matchExpressions": [{"key": "", "operator": "Exists"}]}),
            "matchExpressions[0].key",
        ),
        (json!({"matchLabels": {"app": long}}), "matchLabels"),
        (json!({"matchLabels": {"app": "a b"}}), "matchLabels"),
        (json!({"matchLabels": {"a b": "x"}}), "matchLabels"),
        (json!({"matchLabels": {"x/": "x"}}), "matchLabels"),
        (json!({"matchLabels": {"/x": "x"}}), "matchLabels"),
        (json!({"matchLabels": {"X.io/x": "x"}}), "matchLabels"),
        (json!({"matchLabels": {"-x.io/x": "x"}}), "matchLabels"),
        (json!({"matchLabels": {"x-.io/x": "x"}}), "matchLabels"),
        (json!({"matchLabels": {"x..io/x": "x"}}), "matchLabels"),
        (json!({"matchLabels": {"a/b/c": "x"}}), "matchLabels"),
        (
            json!({"matchLabels": {format!("{}/x", "x".repeat(254)): "x"}}),
            "matchLabels",
        ),
    ] {
        let (_, refusals) = parse(value.clone());
        assert_eq!(refusals.len(), 1, "{value}");
        assert_eq!(refusals[0].0, path, "{value}");
    }
    let (selector, refusals) = parse(json!({
        "matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "?"}],
    }));
    assert_eq!(refusals.len(), 1);
    assert!(selector.matches(&labels(&[("app", "web")])) && !selector.matches(&labels(&[])));
}

#[test]
fn long_and_qualified_names_are_accepted() {
    let edge = "x".repeat(63);
    let prefix = format!(
        "{}.{}.{}.{}",
        "a".repeat(63),
        "b".repeat(63),
        "c".repeat(63),
        "d".repeat(61)
    );
    good(json!({"matchLabels": {
        &edge: &edge, "app.kubernetes.io/part-of": "A.b_c-9", format!("{prefix}/x"): "",
    }}));
}

#[test]
fn order_and_repetition_do_not_make_another_selector() {
    let hash = |selector: &Selector| {
        let mut hasher = ContentHasher::new("test");
        selector.hash(&mut hasher);
        hasher.finish()
    };
    let a = good(json!({"matchLabels": {"a": "1"},
        "matchExpressions": [{"key": "b", "operator": "In", "values": ["2", "1", "2"]}]}));
    let b = good(json!({"matchExpressions": [
        {"key": "b", "operator": "In", "values": ["1", "2"]},
        {"key": "a", "operator": "In", "values": ["1"]},
        {"key": "a", "operator": "In", "values": ["1"]}]}));
    assert_eq!(hash(&a), hash(&b));
    for other in [
        expression("In", &["a"]),
        expression("In", &["b"]),
        expression("NotIn", &["a"]),
        expression("Exists", &[]),
        expression("DoesNotExist", &[]),
        json!({}),
        json!({"matchLabels": {"a": "1"}}),
        json!({"matchLabels": {"app": "1"}}),
    ]
    .map(|v| hash(&good(v)))
    .windows(2)
    .map(|w| (w[0], w[1]))
    {
        assert_ne!(other.0, other.1);
    }
}

#[test]
fn the_required_label_is_one_that_all_selected_have() {
    assert_eq!(good(json!({})).required_label(), None);
    assert_eq!(good(expression("In", &["a", "b"])).required_label(), None);
    assert_eq!(good(expression("NotIn", &["a"])).required_label(), None);
    assert_eq!(
        good(expression("In", &["a"])).required_label(),
        Some(("app", "a"))
    );
}
