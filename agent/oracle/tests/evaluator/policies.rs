//! What each field of a NetworkPolicy does, over both families.

use crate::support::{check, cluster, policy};
use serde_json::{Value, json};

pub const FREE: &str = "allow not-selected";

/// One ingress policy `p` on `a/db` with these rules.
pub fn ingress(rules: Value) -> Value {
    policy(
        "p",
        json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": rules}),
    )
}

/// One egress policy `p` on `a/web` with these rules.
pub fn egress(rules: Value) -> Value {
    policy(
        "p",
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": rules}),
    )
}

#[test]
fn without_policies_all_is_allowed() {
    let c = cluster(&[]);
    check(&c, "a/web", "a/db", "80/tcp", FREE, FREE);
    check(&c, "a/web", "b/web", "icmp", FREE, FREE);
}

#[test]
fn a_policy_without_rules_isolates_and_only_the_pods_it_selects() {
    for rules in [json!([]), Value::Null] {
        let c = cluster(&[ingress(rules)]);
        check(&c, "a/web", "a/db", "80/tcp", FREE, "deny isolated p");
        check(&c, "a/db", "a/web", "80/tcp", FREE, FREE);
    }
}

#[test]
fn an_empty_rule_allows_everything_icmp_too() {
    for rule in [
        json!({}),
        json!({"from": [], "ports": []}),
        json!({"from": null, "ports": null}),
    ] {
        let c = cluster(&[ingress(json!([rule]))]);
        for port in ["80/tcp", "1/udp", "65535/sctp", "icmp"] {
            check(
                &c,
                "b/web",
                "a/db",
                port,
                FREE,
                "allow rule p:spec.ingress[0]",
            );
        }
        check(
            &c,
            "203.0.113.1",
            "a/db",
            "80/tcp",
            "allow not-subject",
            "allow rule p:spec.ingress[0]",
        );
    }
}

#[test]
fn an_empty_or_missing_pod_selector_selects_every_pod_of_the_namespace() {
    for spec in [json!({"podSelector": {}}), json!({}), Value::Null] {
        let c = cluster(&[policy("p", spec)]);
        check(&c, "b/web", "a/db", "80/tcp", FREE, "deny isolated p");
        check(&c, "b/web", "a/web", "80/tcp", FREE, "deny isolated p");
        check(&c, "a/web", "b/web", "80/tcp", FREE, FREE);
    }
}

#[test]
fn policy_types_are_inferred_as_the_api_server_does() {
    let deny = "deny isolated p";
    let out = "allow rule p:spec.egress[0]";
    for (spec, egress, ingress) in [
        (json!({}), FREE, deny),
        (json!({"egress": []}), FREE, deny),
        (json!({"egress": [{}]}), out, deny),
        (json!({"policyTypes": []}), FREE, deny),
        (json!({"policyTypes": [], "egress": [{}]}), out, deny),
        (json!({"policyTypes": ["Egress"]}), deny, FREE),
        (
            json!({"policyTypes": ["Egress"], "ingress": [{}]}),
            deny,
            FREE,
        ),
        (
            json!({"policyTypes": ["Ingress"], "egress": [{}]}),
            FREE,
            deny,
        ),
        (json!({"policyTypes": ["Ingress", "Egress"]}), deny, deny),
    ] {
        let c = cluster(&[policy("p", spec)]);
        check(&c, "a/web", "b/web", "80/tcp", egress, FREE);
        check(&c, "b/web", "a/web", "80/tcp", FREE, ingress);
    }
}

#[test]
fn a_pod_selector_alone_means_the_policys_namespace() {
    let rule = json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]);
    let c = cluster(&[ingress(rule)]);
    check(
        &c,
        "a/web",
        "a/db",
        "80/tcp",
        FREE,
        "allow rule p:spec.ingress[0]",
    );
    check(&c, "b/web", "a/db", "80/tcp", FREE, "deny isolated p");
    check(
        &c,
        "203.0.113.1",
        "a/db",
        "80/tcp",
        "allow not-subject",
        "deny isolated p",
    );
    check(
        &c,
        "fd77::1",
        "a/db",
        "80/tcp",
        "allow not-subject",
        "deny isolated p",
    );
}

#[test]
fn a_namespace_selector_alone_means_all_its_pods() {
    let blue = json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]}]);
    let c = cluster(&[ingress(blue)]);
    check(
        &c,
        "b/web",
        "a/db",
        "80/tcp",
        FREE,
        "allow rule p:spec.ingress[0]",
    );
    check(&c, "a/web", "a/db", "80/tcp", FREE, "deny isolated p");
    let all = cluster(&[ingress(json!([{"from": [{"namespaceSelector": {}}]}]))]);
    check(
        &all,
        "b/web",
        "a/db",
        "80/tcp",
        FREE,
        "allow rule p:spec.ingress[0]",
    );
    check(
        &all,
        "192.168.0.2",
        "a/db",
        "80/tcp",
        "allow not-subject",
        "deny isolated p",
    );
}

#[test]
fn both_selectors_in_one_peer_must_hold() {
    let peer = json!({
        "namespaceSelector": {"matchLabels": {"team": "blue"}},
        "podSelector": {"matchLabels": {"app": "db"}},
    });
    let c = cluster(&[ingress(json!([{"from": [peer]}]))]);
    check(&c, "b/web", "a/db", "80/tcp", FREE, "deny isolated p");
    check(&c, "a/db", "a/web", "80/tcp", FREE, FREE);
    let two = json!([{"from": [
        {"namespaceSelector": {"matchLabels": {"team": "blue"}}},
        {"podSelector": {"matchLabels": {"app": "db"}}},
    ]}]);
    check(
        &cluster(&[ingress(two)]),
        "b/web",
        "a/db",
        "80/tcp",
        FREE,
        "allow rule p:spec.ingress[0]",
    );
}

#[test]
fn every_namespace_carries_its_name_as_a_label() {
    // Namespace a has no object at all.
    for name in ["a", "b"] {
        let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
        let c = cluster(&[ingress(
            json!([{"from": [{"namespaceSelector": selector}]}]),
        )]);
        let (from, other) = if name == "a" {
            ("a/web", "b/web")
        } else {
            ("b/web", "a/web")
        };
        check(
            &c,
            from,
            "a/db",
            "80/tcp",
            FREE,
            "allow rule p:spec.ingress[0]",
        );
        check(&c, other, "a/db", "80/tcp", FREE, "deny isolated p");
    }
}

#[test]
fn an_ip_block_means_the_addresses_it_says_less_its_excepts() {
    let block = |cidr: &str, except: &[&str]| {
        cluster(&[ingress(
            json!([{"from": [{"ipBlock": {"cidr": cidr, "except": except}}]}]),
        )])
    };
    let (yes, no) = ("allow rule p:spec.ingress[0]", "deny isolated p");
    let outside = "allow not-subject";
    for (cidr, except, from, wanted) in [
        ("203.0.113.0/24", &[][..], "203.0.113.9", yes),
        ("203.0.113.0/24", &[][..], "203.0.114.9", no),
        ("203.0.113.0/24", &["203.0.113.8/29"][..], "203.0.113.9", no),
        (
            "203.0.113.0/24",
            &["203.0.113.8/29"][..],
            "203.0.113.16",
            yes,
        ),
        (
            "2001:db8::/32",
            &["2001:db8:1::/48"][..],
            "2001:db8:2::1",
            yes,
        ),
        (
            "2001:db8::/32",
            &["2001:db8:1::/48"][..],
            "2001:db8:1::1",
            no,
        ),
        ("::/0", &[][..], "203.0.113.9", no),
        ("0.0.0.0/0", &[][..], "2001:db8::1", no),
        // Addresses of nodes count as well.
        ("192.168.0.2/32", &[][..], "192.168.0.2", yes),
    ] {
        check(
            &block(cidr, except),
            from,
            "a/db",
            "80/tcp",
            outside,
            wanted,
        );
    }
    // And those of pods.
    check(
        &block("10.2.0.0/16", &[]),
        "10.2.0.1",
        "a/db",
        "80/tcp",
        FREE,
        yes,
    );
    check(
        &block("fd02::/16", &[]),
        "fd02::1",
        "a/db",
        "80/tcp",
        FREE,
        yes,
    );
    check(
        &block("fd02::/16", &["fd02::1/128"]),
        "fd02::1",
        "a/db",
        "80/tcp",
        FREE,
        no,
    );
}

#[test]
fn a_rule_needs_a_peer_and_a_port_of_its_own() {
    let c = cluster(&[ingress(json!([
        {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 80}]},
        {"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}], "ports": [{"port": 81}]},
    ]))]);
    check(
        &c,
        "a/web",
        "a/db",
        "80/tcp",
        FREE,
        "allow rule p:spec.ingress[0]",
    );
    check(&c, "a/web", "a/db", "81/tcp", FREE, "deny isolated p");
    check(
        &c,
        "b/web",
        "a/db",
        "81/tcp",
        FREE,
        "allow rule p:spec.ingress[1]",
    );
    check(&c, "b/web", "a/db", "80/tcp", FREE, "deny isolated p");
}

#[test]
fn policies_add_up_and_the_first_by_name_and_index_is_named() {
    let all = |name: &str, rules: Value| policy(name, json!({"podSelector": {}, "ingress": rules}));
    let one = |port: u16| json!({"ports": [{"port": port}]});
    let c = cluster(&[
        all("z", json!([one(80), one(82)])),
        all("m", json!([one(81), {}, one(80)])),
        all("b", json!([])),
    ]);
    check(
        &c,
        "b/web",
        "a/db",
        "80/tcp",
        FREE,
        "allow rule m:spec.ingress[1]",
    );
    check(
        &c,
        "b/web",
        "a/db",
        "81/tcp",
        FREE,
        "allow rule m:spec.ingress[0]",
    );
    let c = cluster(&[all("z", json!([one(82)])), all("b", json!([]))]);
    check(
        &c,
        "b/web",
        "a/db",
        "82/tcp",
        FREE,
        "allow rule z:spec.ingress[0]",
    );
    check(&c, "b/web", "a/db", "80/tcp", FREE, "deny isolated b+z");
}

#[test]
fn egress_is_judged_at_the_source_and_ingress_at_the_destination() {
    let c = cluster(&[egress(
        json!([{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]),
    )]);
    check(
        &c,
        "a/web",
        "a/db",
        "80/tcp",
        "allow rule p:spec.egress[0]",
        FREE,
    );
    check(&c, "a/web", "b/web", "80/tcp", "deny isolated p", FREE);
    check(&c, "b/web", "a/web", "80/tcp", FREE, FREE);
    check(
        &c,
        "a/web",
        "203.0.113.1",
        "80/tcp",
        "deny isolated p",
        "allow not-subject",
    );
}
