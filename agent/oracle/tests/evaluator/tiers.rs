//! ClusterNetworkPolicies: which tier and which policy is asked first, and what each action does.

use serde_json::{Value, json};
use weir_oracle::{Action, PolicyKind, QueryError, Tier};

use crate::policies::{FREE, ingress};
use crate::support::{ask, check, cluster_policy, of, pod, policy, shown, tiers};

/// A rule about everyone.
fn all(action: &str) -> Value {
    json!({"action": action, "from": [{"namespaces": {}}]})
}

fn admin(name: &str, rules: Value) -> Value {
    cluster_policy(name, "Admin", json!({"ingress": rules}))
}

fn baseline(name: &str, rules: Value) -> Value {
    cluster_policy(name, "Baseline", json!({"ingress": rules}))
}

/// What b/web → a/db gets at a/db.
#[track_caller]
fn judged(cluster_policies: &[Value], policies: &[Value], wanted: &str) {
    let c = tiers(cluster_policies, policies);
    check(&c, "b/web", "a/db", "80/tcp", FREE, wanted);
}

#[test]
fn accept_and_deny_of_the_admin_tier_are_final() {
    let closed = ingress(json!([]));
    let open = ingress(json!([{}]));
    judged(
        &[admin("x", json!([all("Accept")]))],
        &[closed],
        "allow rule x:spec.ingress[0]",
    );
    judged(
        &[admin("x", json!([all("Deny")]))],
        &[open],
        "deny rule x:spec.ingress[0]",
    );
    let later = baseline("y", json!([all("Deny")]));
    judged(
        &[admin("x", json!([all("Accept")])), later],
        &[],
        "allow rule x:spec.ingress[0]",
    );
}

#[test]
fn pass_of_the_admin_tier_goes_on_with_network_policies_and_skips_the_rest_of_the_tier() {
    let pass = admin("x", json!([all("Pass"), all("Deny")]));
    let later = cluster_policy(
        "y",
        "Admin",
        json!({"priority": 11, "ingress": [all("Deny")]}),
    );
    let both = [pass, later];
    judged(&both, &[], "allow pass x:spec.ingress[0]");
    judged(&both, &[ingress(json!([]))], "deny isolated p");
    judged(
        &both,
        &[ingress(json!([{}]))],
        "allow rule p:spec.ingress[0]",
    );
}

#[test]
fn network_policies_that_isolate_the_pod_are_final() {
    let denies = [baseline("x", json!([all("Deny")]))];
    judged(
        &denies,
        &[ingress(json!([{}]))],
        "allow rule p:spec.ingress[0]",
    );
    let accepts = [baseline("x", json!([all("Accept")]))];
    judged(&accepts, &[ingress(json!([]))], "deny isolated p");
    // One that does not isolate this pod, or not in this direction, decides nothing.
    let others = [
        policy("p", json!({"podSelector": {"matchLabels": {"app": "web"}}})),
        policy("q", json!({"policyTypes": ["Egress"]})),
    ];
    let c = tiers(&denies, &others);
    let ingress = ask(&c, "b/web", "a/db", "80/tcp").unwrap().ingress.decision;
    assert_eq!(shown(&ingress), "deny rule x:spec.ingress[0]");
}

#[test]
fn the_baseline_tier_decides_what_is_left_and_its_pass_allows() {
    judged(
        &[baseline("x", json!([all("Accept")]))],
        &[],
        "allow rule x:spec.ingress[0]",
    );
    judged(
        &[baseline("x", json!([all("Deny")]))],
        &[],
        "deny rule x:spec.ingress[0]",
    );
    let pass = baseline("x", json!([all("Pass"), all("Deny")]));
    judged(
        std::slice::from_ref(&pass),
        &[],
        "allow pass x:spec.ingress[0]",
    );
    // The last rule that passed it on is named.
    let admin_pass = admin("w", json!([all("Pass")]));
    judged(
        &[pass, admin_pass.clone()],
        &[],
        "allow pass x:spec.ingress[0]",
    );
    let deny = baseline("x", json!([all("Deny")]));
    judged(&[admin_pass, deny], &[], "deny rule x:spec.ingress[0]");
}

#[test]
fn policies_of_a_tier_are_asked_by_priority_then_by_name_and_rules_in_their_order() {
    let at = |name: &str, priority: u32, action: &str| {
        cluster_policy(
            name,
            "Admin",
            json!({"priority": priority, "ingress": [all(action)]}),
        )
    };
    judged(
        &[at("a", 2, "Deny"), at("z", 1, "Accept")],
        &[],
        "allow rule z:spec.ingress[0]",
    );
    judged(
        &[at("z", 1, "Accept"), at("a", 1, "Deny")],
        &[],
        "deny rule a:spec.ingress[0]",
    );
    judged(
        &[at("z", 0, "Accept"), at("a", 1000, "Deny")],
        &[],
        "allow rule z:spec.ingress[0]",
    );
    let rules = json!([
        {"action": "Deny", "from": [{"namespaces": {"matchLabels": {"team": "red"}}}]},
        {"action": "Accept", "from": [{"namespaces": {}}]},
        {"action": "Deny", "from": [{"namespaces": {}}]},
    ]);
    judged(&[admin("x", rules)], &[], "allow rule x:spec.ingress[1]");
}

#[test]
fn of_two_policies_of_one_name_the_last_counts() {
    let two = [
        admin("x", json!([all("Deny")])),
        admin("x", json!([all("Accept")])),
    ];
    judged(&two, &[], "allow rule x:spec.ingress[0]");
}

#[test]
fn a_policy_judges_its_subject_only_and_a_direction_without_rules_not_at_all() {
    let subject = |subject: Value| {
        json!({"metadata": {"name": "x"}, "spec": {
            "tier": "Admin", "priority": 1, "subject": subject, "ingress": [all("Deny")], "egress": [],
        }})
    };
    let deny = "deny rule x:spec.ingress[0]";
    let name = |name: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    let app = |app: &str| json!({"matchLabels": {"app": app}});
    for (of, db, web) in [
        (json!({"namespaces": {}}), deny, deny),
        (json!({"namespaces": name("a")}), deny, FREE),
        (
            json!({"namespaces": {"matchLabels": {"team": "blue"}}}),
            FREE,
            deny,
        ),
        (
            json!({"pods": {"namespaceSelector": {}, "podSelector": {}}}),
            deny,
            deny,
        ),
        (
            json!({"pods": {"namespaceSelector": {}, "podSelector": app("web")}}),
            FREE,
            deny,
        ),
        (
            json!({"pods": {"namespaceSelector": name("b"), "podSelector": app("db")}}),
            FREE,
            FREE,
        ),
        // Without a namespaceSelector: all namespaces.
        (json!({"pods": {"podSelector": app("db")}}), deny, FREE),
    ] {
        let c = tiers(&[subject(of)], &[]);
        check(&c, "b/web", "a/db", "80/tcp", FREE, db);
        check(&c, "a/db", "b/web", "80/tcp", FREE, web);
    }
}

#[test]
fn tiers_judge_neither_nodes_nor_host_network_pods_nor_a_pods_own_traffic_nor_its_nodes() {
    let everyone = json!({"namespaces": {}});
    let deny = cluster_policy(
        "x",
        "Admin",
        json!({
            "subject": {"pods": null, "namespaces": {}},
            "ingress": [{"action": "Deny", "from": [everyone]}],
            "egress": [{"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]}],
        }),
    );
    let c = tiers(&[deny], &[]);
    let out = "allow not-subject";
    check(&c, "a/web", "a/web", "80/tcp", "allow self", "allow self");
    check(&c, "node:n1", "a/db", "80/tcp", out, "allow own-node");
    check(&c, "a/host", "a/db", "80/tcp", out, "allow own-node");
    check(&c, "node:n2", "a/db", "80/tcp", out, FREE);
    check(
        &c,
        "a/db",
        "a/host",
        "80/tcp",
        "deny rule x:spec.egress[0]",
        out,
    );
    check(
        &c,
        "a/db",
        "203.0.113.1",
        "80/tcp",
        "deny rule x:spec.egress[0]",
        out,
    );
}

#[test]
fn each_end_is_judged_for_itself() {
    let x = cluster_policy(
        "x",
        "Admin",
        json!({
            "subject": {"pods": {"podSelector": {"matchLabels": {"app": "web"}}}},
            "egress": [{"action": "Accept", "to": [{"namespaces": {}}]}],
        }),
    );
    let y = admin("y", json!([all("Deny")]));
    let c = tiers(&[x, y], &[]);
    let (out, deny) = ("allow rule x:spec.egress[0]", "deny rule y:spec.ingress[0]");
    check(&c, "b/web", "a/db", "80/tcp", out, deny);
    let mut reply = crate::support::query("a/db", "b/web", "80/tcp");
    reply.reply = true;
    let answer = weir_oracle::evaluate(&c, &reply).unwrap();
    assert_eq!(shown(&answer.egress.decision), deny);
    assert_eq!(shown(&answer.ingress.decision), "allow reply");
}

#[test]
fn a_rule_is_named_with_tier_action_and_name() {
    let rule = json!([{"name": "no-one", "action": "Deny", "from": [{"namespaces": {}}]}]);
    let c = tiers(&[baseline("x", rule)], &[]);
    let decision = ask(&c, "b/web", "a/db", "80/tcp").unwrap().ingress.decision;
    assert_eq!(
        serde_json::to_string(&decision).unwrap(),
        r#"{"verdict":"deny","reason":"rule","rule":{"kind":"ClusterNetworkPolicy","name":"x","tier":"Baseline","action":"Deny","path":"spec.ingress[0]","rule":"no-one"}}"#
    );
    assert_eq!(
        decision.rule.unwrap().to_string(),
        "Baseline ClusterNetworkPolicy x spec.ingress[0] \"no-one\""
    );
    let c = tiers(&[admin("x", json!([all("Pass")]))], &[]);
    let decision = ask(&c, "b/web", "a/db", "80/tcp").unwrap().ingress.decision;
    assert_eq!(
        serde_json::to_string(&decision).unwrap(),
        r#"{"verdict":"allow","reason":"pass","rule":{"kind":"ClusterNetworkPolicy","name":"x","tier":"Admin","action":"Pass","path":"spec.ingress[0]"}}"#
    );
    let c = tiers(&[], &[ingress(json!([{}]))]);
    let decision = ask(&c, "b/web", "a/db", "80/tcp").unwrap().ingress.decision;
    assert_eq!(
        serde_json::to_string(&decision).unwrap(),
        r#"{"verdict":"allow","reason":"rule","rule":{"kind":"NetworkPolicy","namespace":"a","name":"p","path":"spec.ingress[0]"}}"#
    );
}

#[test]
fn the_steps_are_those_asked_in_their_order() {
    let other = cluster_policy(
        "other",
        "Admin",
        json!({"egress": [
            {"action": "Deny", "to": [{"namespaces": {}}]},
        ]}),
    );
    let miss =
        json!({"action": "Deny", "from": [{"namespaces": {"matchLabels": {"team": "red"}}}]});
    let c = tiers(
        &[
            baseline("low", json!([all("Accept")])),
            admin("high", json!([miss, all("Pass"), all("Deny")])),
            other,
        ],
        &[policy(
            "p",
            json!({"podSelector": {"matchLabels": {"app": "web"}}}),
        )],
    );
    let report = ask(&c, "b/web", "a/db", "80/tcp").unwrap().ingress;
    assert_eq!(
        (report.other_policies, report.other_cluster_policies),
        (1, 1)
    );
    let [high, low] = report.steps.as_slice() else {
        panic!("{:?}", report.steps)
    };
    let tier = |tier| PolicyKind::ClusterNetworkPolicy { tier, priority: 10 };
    assert_eq!(
        (&high.kind, high.name.as_str()),
        (&tier(Tier::Admin), "high")
    );
    assert_eq!(
        (&low.kind, low.name.as_str()),
        (&tier(Tier::Baseline), "low")
    );
    assert_eq!(high.selector, "pods app=db in namespaces {}");
    let rules: Vec<_> = high
        .rules
        .iter()
        .map(|r| (r.action, r.why.as_str()))
        .collect();
    assert_eq!(
        rules,
        [
            (
                Some(Action::Deny),
                "peer: from[0] namespace b is not team=red"
            ),
            (Some(Action::Pass), "from[0] namespaces {}, any protocol"),
        ]
    );
}

#[test]
fn a_tier_rule_that_hangs_on_a_missing_address_is_an_error_only_if_it_would_change_the_verdict() {
    let networks = json!([{"networks": ["10.0.0.0/8"]}]);
    let rule = |action: &str| json!({"action": action, "to": networks});
    let everyone = |action: &str| json!({"action": action, "to": [{"namespaces": {}}]});
    let allow = |rules: Value, ours: &[Value]| {
        let x = cluster_policy("x", "Admin", json!({"egress": rules}));
        let mut c = tiers(&[x], ours);
        c.pods.push(of(pod("new", "new", &[], json!({}))));
        ask(&c, "a/db", "a/new", "80/tcp").map(|a| shown(&a.egress.decision))
    };
    let given = |rules: Value, wanted: &str| assert_eq!(allow(rules, &[]).unwrap(), wanted);
    given(json!([rule("Accept")]), FREE);
    given(
        json!([rule("Accept"), everyone("Accept")]),
        "allow rule x:spec.egress[1]",
    );
    given(
        json!([rule("Deny"), everyone("Deny")]),
        "deny rule x:spec.egress[1]",
    );
    given(
        json!([rule("Pass"), everyone("Pass")]),
        "allow pass x:spec.egress[1]",
    );
    given(
        json!([everyone("Deny"), rule("Accept")]),
        "deny rule x:spec.egress[0]",
    );
    let closed = policy("p", json!({"policyTypes": ["Egress"]}));
    let hangs = |rules: Value, ours: &[Value]| {
        let error = allow(rules, ours).unwrap_err();
        assert!(
            matches!(&error, QueryError::NeedsAddress { rule, party }
                if rule == "Admin ClusterNetworkPolicy x spec.egress[0]" && party == "pod a/new"),
            "{error}"
        );
    };
    hangs(json!([rule("Deny")]), &[]);
    hangs(json!([rule("Accept"), everyone("Deny")]), &[]);
    hangs(json!([rule("Pass"), everyone("Deny")]), &[]);
    hangs(json!([rule("Accept")]), std::slice::from_ref(&closed));
    hangs(json!([rule("Pass"), everyone("Accept")]), &[closed]);
}
