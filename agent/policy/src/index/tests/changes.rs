//! What changes of objects change.

use serde_json::{Value, json};

use super::*;
use crate::Dirty;

#[test]
fn ingress_port_names_split_groups_and_egress_names_split_classes() {
    let mut index = shop();
    let mut other = pod("db2", "db", "10.1.0.2");
    tell(
        &mut index,
        [apply_pod(other.clone()), endpoint(2, "db2", "10.1.0.2")],
    );
    let actual = maps(&mut index);
    assert_eq!(actual.slot(1).groups, actual.slot(2).groups);
    other["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(8080);
    tell(
        &mut index,
        [
            apply_pod(other),
            policy(
                "http",
                json!({
                    "policyTypes": ["Ingress", "Egress"],
                    "podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}],
                    "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": "http"}]}],
                }),
            ),
        ],
    );
    let actual = maps(&mut index);
    assert_ne!(actual.slot(1).groups as u32, actual.slot(2).groups as u32);
    assert_eq!(actual.slot(1).groups >> 32, actual.slot(2).groups >> 32);
    for (slot, open) in [(1, 80), (2, 8080)] {
        for port in [80, 8080] {
            let verdict = tcp(&actual, slot, Direction::Ingress, "192.0.2.1", port);
            assert_eq!(verdict.allowed(), port == open, "{slot} {port}");
            let peer = ["10.1.0.1", "10.1.0.2"][slot as usize - 1];
            let verdict = tcp(&actual, 1, Direction::Egress, peer, port);
            assert_eq!(verdict.allowed(), port == open, "{slot} {port}");
        }
    }
}

#[test]
fn namespaces_are_selected_by_their_labels_and_always_by_their_name() {
    let mut index = shop();
    tell(
        &mut index,
        [
            apply_pod(pod_in("ops", "probe", "probe", "10.2.0.5")),
            policy(
                "web-to-db",
                json!({"podSelector": {}, "ingress": [{"from": [
                    {"namespaceSelector": {"matchLabels": {"team": "ops"}}},
                ]}]}),
            ),
        ],
    );
    assert!(!lets_in(&mut index, "10.2.0.5"));
    let labelled = json!({"metadata": {"name": "ops", "labels": {"team": "ops"}}});
    let labelled = Event::ApplyNamespace(Box::new(serde_json::from_value(labelled).unwrap()));
    assert_eq!(index.apply(labelled.clone()), Dirty(true));
    assert_eq!(index.apply(labelled), Dirty(false));
    assert!(lets_in(&mut index, "10.2.0.5"));
    assert_eq!(
        index.apply(Event::DeleteNamespace("ops".to_owned())),
        Dirty(true)
    );
    assert!(!lets_in(&mut index, "10.2.0.5"));
    tell(
        &mut index,
        [policy(
            "web-to-db",
            json!({"podSelector": {}, "ingress": [{"from": [
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ops"}}},
            ]}]}),
        )],
    );
    assert!(lets_in(&mut index, "10.2.0.5"));
}

#[test]
fn where_nothing_is_isolated_nothing_is_kept_of_peers() {
    let mut index = shop();
    assert_ne!(index.compile().sizes().map(|(_, n)| n), [0, 1, 0, 0, 0]);
    tell(
        &mut index,
        [Event::DeletePolicy(ObjectName::new("shop", "web-to-db"))],
    );
    assert_eq!(index.compile().sizes().map(|(_, n)| n), [0, 1, 0, 0, 0]);
}

#[test]
fn what_changes_nothing_is_not_dirty() {
    let mut index = shop();
    for event in [
        apply_pod(pod("db", "db", "10.1.0.1")),
        endpoint(1, "db", "10.1.0.1"),
        node("n1", "10.1.0.0/24"),
        Event::DeletePod(ObjectName::new("shop", "nobody")),
        Event::DeletePolicy(ObjectName::new("shop", "nothing")),
        Event::DeletePolicy(ObjectName::new("nowhere", "nothing")),
        Event::DeleteNode("n9".to_owned()),
        Event::DeleteNamespace("nowhere".to_owned()),
        Event::DeleteEndpoint(9),
    ] {
        assert_eq!(index.apply(event.clone()), Dirty(false), "{event:?}");
    }
    for event in [
        apply_pod(pod("db", "db", "10.1.0.3")),
        endpoint(1, "db", "10.1.0.3"),
        node("n1", "10.1.0.0/25"),
        web_to_db(),
        Event::DeletePod(ObjectName::new("shop", "web")),
        Event::DeletePolicy(ObjectName::new("shop", "web-to-db")),
        Event::DeleteNode("n1".to_owned()),
        Event::DeleteEndpoint(1),
    ] {
        assert_eq!(index.apply(event.clone()), Dirty(true), "{event:?}");
    }
}

/// What a compilation after these events finds changed: addresses, and how many prefixes, groups and
/// classes.
fn touched<const N: usize>(index: &mut Index, events: [Event; N]) -> (Vec<String>, [usize; 3]) {
    let _ = index.compile();
    index.settled();
    tell(index, events);
    let touched = &index.compile().touched;
    let peers = touched.peers.iter().map(|addr| addr.to_ip().to_string());
    let counts = [
        touched.cidrs.len(),
        touched.groups.len(),
        touched.classes.len(),
    ];
    (peers.collect(), counts)
}

#[test]
fn a_change_touches_what_it_is_about_and_nothing_else() {
    let mut index = shop();
    let more = (10..200).map(|i| pod(&format!("web-{i}"), "web", &format!("10.2.0.{i}")));
    for pod in more {
        let _ = index.apply(apply_pod(pod));
    }
    let none: [String; 0] = [];
    // A pod's address, its labels, its end.
    let moved = touched(&mut index, [apply_pod(pod("web", "web", "10.2.0.9"))]);
    assert_eq!(
        moved,
        (vec!["10.2.0.1".to_owned(), "10.2.0.9".to_owned()], [0; 3])
    );
    let labels = touched(&mut index, [apply_pod(pod("web", "other", "10.2.0.9"))]);
    assert_eq!(labels, (vec!["10.2.0.9".to_owned()], [0; 3]));
    let name = ObjectName::new("shop", "web");
    let gone = touched(&mut index, [Event::DeletePod(name)]);
    assert_eq!(gone, (none.to_vec(), [0; 3]), "it matched nothing any more");
    // A policy with rules for the same peers: one group, no class.
    let rule =
        json!({"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 1}]});
    let second = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [rule]});
    assert_eq!(
        touched(&mut index, [policy("second", second)]),
        (none.to_vec(), [0, 1, 0])
    );
    // One that selects no pod of this node.
    let rule = json!({"from": [{"podSelector": {"matchLabels": {"app": "new"}}}]});
    let elsewhere = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [rule]});
    assert_eq!(
        touched(&mut index, [policy("elsewhere", elsewhere)]),
        (none.to_vec(), [0; 3])
    );
    // Another namespace's labels, and a node without rules that name nodes or pods unknown.
    let labelled = json!({"metadata": {"name": "other", "labels": {"a": "b"}}});
    let labelled = Event::ApplyNamespace(Box::new(serde_json::from_value(labelled).unwrap()));
    assert_eq!(touched(&mut index, [labelled]), (none.to_vec(), [0; 3]));
    assert_eq!(
        touched(&mut index, [node("n3", "10.3.0.0/24")]),
        (none.to_vec(), [0; 3])
    );
}

#[test]
fn problems_of_policies_and_nodes_are_listed_sorted_while_they_last() {
    let mut index = shop();
    assert_eq!(index.node(), "n1");
    tell(
        &mut index,
        [
            node("n2", "10.2.0.0"),
            policy("z", json!({"policyTypes": ["Both"]})),
            policy("a", json!({"ingress": [{"ports": [{"port": 0}]}]})),
        ],
    );
    let objects: Vec<_> = index
        .problems()
        .into_iter()
        .map(|p| (p.object, p.path))
        .collect();
    assert_eq!(
        objects,
        [
            ("NetworkPolicy shop/a", "spec.ingress[0].ports[0].port"),
            ("NetworkPolicy shop/z", "spec.policyTypes[0]"),
            ("Node n2", "spec.podCIDRs[0]"),
        ]
        .map(|(object, path)| (object.to_owned(), path.to_owned()))
    );
    tell(
        &mut index,
        [
            node("n2", "10.2.0.0/24"),
            policy("z", json!({})),
            Event::DeletePolicy(ObjectName::new("shop", "a")),
        ],
    );
    assert_eq!(index.problems(), []);
}

/// A rule by which it makes a difference to be a pod that nobody knows.
fn deny_pods() -> Event {
    let rule = json!({"action": "Deny", "from": [{"namespaces": {"matchLabels": {"no": "body"}}}]});
    let spec =
        json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": [rule]});
    let object = json!({"metadata": {"name": "deny-pods"}, "spec": spec});
    Event::ApplyClusterPolicy(Box::new(serde_json::from_value(object).unwrap()))
}

#[test]
fn pods_that_nobody_knows_have_a_class_of_their_own_where_a_rule_denies_pods_by_selector() {
    let mut index = shop();
    let all = policy("all", json!({"podSelector": {}, "ingress": [{}]}));
    tell(&mut index, [all]);
    assert_eq!(class(&mut index, "10.2.0.77"), ClassId::WORLD);
    assert!(lets_in(&mut index, "10.2.0.77"));
    tell(&mut index, [deny_pods()]);
    assert_ne!(class(&mut index, "10.2.0.77"), ClassId::WORLD);
    // It may be one of those that the rule selects; a known pod is not, nor is who is outside.
    assert!(!lets_in(&mut index, "10.2.0.77"));
    assert!(lets_in(&mut index, "10.2.0.1") && lets_in(&mut index, "192.0.2.1"));
    tell(
        &mut index,
        [Event::DeleteClusterPolicy("deny-pods".to_owned())],
    );
    assert_eq!(class(&mut index, "10.2.0.77"), ClassId::WORLD);
}

#[test]
fn a_nodes_single_pod_cidr_counts_only_where_it_lists_none() {
    for (spec, inside) in [
        (json!({"podCIDR": "10.7.0.0/24"}), true),
        (json!({"podCIDR": "10.7.0.0/24", "podCIDRs": []}), true),
        (
            json!({"podCIDR": "10.7.0.0/24", "podCIDRs": ["10.8.0.0/24"]}),
            false,
        ),
        (json!({"podCIDRs": ["fd00:7::/64", "10.7.0.0/24"]}), true),
    ] {
        let mut index = shop();
        let _ = index.apply(deny_pods());
        let object = json!({"metadata": {"name": "n7"}, "spec": spec.clone()});
        let object = serde_json::from_value(object).unwrap();
        let _ = index.apply(Event::ApplyNode(Box::new(object)));
        let cluster = class(&mut index, "10.7.0.77") != ClassId::WORLD;
        assert_eq!(cluster, inside, "{spec}");
    }
}

#[test]
fn an_endpoints_removal_drops_what_only_it_needed_and_an_unknown_ones_drops_no_change() {
    let mut index = shop();
    let _ = index.compile();
    // Before the next compilation, a rule for other peers, then the removal of a slot never used.
    tell(
        &mut index,
        [
            policy(
                "web-to-db",
                json!({"podSelector": {}, "ingress": [{"from": [
                    {"podSelector": {"matchLabels": {"app": "other"}}},
                ]}]}),
            ),
            apply_pod(pod("other", "other", "10.2.0.2")),
            Event::DeleteEndpoint(9),
        ],
    );
    assert!(lets_in(&mut index, "10.2.0.2") && !lets_in(&mut index, "10.2.0.1"));
    tell(&mut index, [Event::DeleteEndpoint(1)]);
    assert_eq!(index.compile().sizes().map(|(_, n)| n), [0, 1, 0, 0, 0]);
}

#[test]
fn a_pod_that_comes_to_be_selected_is_judged_by_the_peers_of_its_new_rules() {
    let mut index = shop();
    tell(&mut index, [apply_pod(pod("db", "plain", "10.1.0.1"))]);
    assert!(lets_in(&mut index, "192.0.2.1"));
    tell(&mut index, [apply_pod(pod("db", "db", "10.1.0.1"))]);
    assert!(lets_in(&mut index, "10.2.0.1") && !lets_in(&mut index, "192.0.2.1"));
}

#[test]
fn an_endpoint_remembers_its_pod_when_it_changes_but_not_another_pod() {
    let mut index = shop();
    tell(
        &mut index,
        [
            Event::DeletePod(ObjectName::new("shop", "db")),
            endpoint(1, "db", "10.1.0.4"),
        ],
    );
    assert!(lets_in(&mut index, "10.2.0.1") && !lets_in(&mut index, "192.0.2.1"));
    tell(&mut index, [endpoint(1, "unknown", "10.1.0.4")]);
    assert_eq!(maps(&mut index).slot(1).groups, 0);
}

#[test]
fn a_pods_ports_alone_and_its_network_alone_change_how_it_is_judged() {
    let mut index = shop();
    let http = json!({"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]});
    tell(&mut index, [policy("web-to-db", http)]);
    assert!(lets_in(&mut index, "192.0.2.1"));
    let mut db = pod("db", "db", "10.1.0.1");
    db["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(8080);
    tell(&mut index, [apply_pod(db.clone())]);
    assert!(!lets_in(&mut index, "192.0.2.1"));
    db["spec"]["hostNetwork"] = json!(true);
    tell(&mut index, [apply_pod(db)]);
    assert!(lets_in(&mut index, "192.0.2.1"));
}

#[test]
fn a_selector_that_comes_later_finds_a_pod_whose_address_only_the_endpoint_has() {
    let mut index = shop();
    let mut early = pod("early", "early", "10.1.0.7");
    early["status"] = json!({});
    tell(
        &mut index,
        [apply_pod(early.clone()), endpoint(2, "early", "10.1.0.7")],
    );
    assert!(!lets_in(&mut index, "10.1.0.7"));
    let rule = |ports: Value| {
        let from = json!([{"podSelector": {"matchLabels": {"app": "early"}}}]);
        json!({"podSelector": {}, "ingress": [{"from": from, "ports": ports}]})
    };
    tell(
        &mut index,
        [policy("web-to-db", rule(json!([{"port": 80}])))],
    );
    assert!(lets_in(&mut index, "10.1.0.7"));
    // Its labels, and a named port that is asked of it.
    early["metadata"]["labels"]["app"] = json!("other");
    tell(&mut index, [apply_pod(early.clone())]);
    assert!(!lets_in(&mut index, "10.1.0.7"));
    early["metadata"]["labels"]["app"] = json!("early");
    tell(&mut index, [apply_pod(early)]);
    let to = json!([{"podSelector": {"matchLabels": {"app": "early"}}}]);
    let out = |port: Value| {
        let rules = json!([{"to": to, "ports": [{"port": port}]}]);
        policy(
            "out",
            json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": rules}),
        )
    };
    let reaches =
        |index: &mut Index| tcp(&maps(index), 1, Direction::Egress, "10.1.0.7", 80).allowed();
    tell(&mut index, [out(json!(81))]);
    assert!(!reaches(&mut index));
    tell(&mut index, [out(json!("http"))]);
    assert!(reaches(&mut index));
}
