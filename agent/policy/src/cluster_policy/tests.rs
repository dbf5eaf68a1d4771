use serde_json::{Value, json};

use super::*;

fn parse(spec: Value) -> ClusterPolicy {
    let object = json!({"metadata": {"name": "x"}, "spec": spec});
    ClusterPolicy::parse(&serde_json::from_value(object).unwrap())
}

fn with_rules(direction: &str, rules: Value) -> ClusterPolicy {
    let mut spec = json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}});
    spec[direction] = rules;
    parse(spec)
}

/// The one rule of a policy, if there is one, and where its problem is.
fn egress(rule: &Value) -> (Option<Rule>, Option<String>) {
    let mut policy = with_rules("egress", json!([rule]));
    assert!(policy.problems.len() <= 1, "{:?}", policy.problems);
    let path = policy.problems.pop().map(|problem| problem.path);
    (policy.rules[1].pop(), path)
}

fn everything() -> PeerKind {
    PeerKind::Pods {
        namespaces: Namespaces::Selected(Selector::default()),
        pods: Selector::default(),
    }
}

#[test]
fn a_valid_rule_is_taken_as_it_is() {
    let rule = json!({
        "name": "x".repeat(100), "action": "Pass",
        "to": [{"namespaces": {}}, {"nodes": {}}, {"networks": ["10.0.0.1/8", "fd00::/8"]}],
        "protocols": [
            {"tcp": {"destinationPort": {"number": 80}}},
            {"udp": {"destinationPort": {"range": {"start": 1, "end": 65535}}}},
        ],
    });
    let (found, problem) = egress(&rule);
    assert_eq!(problem, None);
    let found = found.unwrap();
    assert_eq!(found.action, Action::Pass);
    let kinds: Vec<_> = found
        .peers
        .unwrap()
        .iter()
        .map(|p| p.kind.clone())
        .collect();
    assert_eq!(kinds.len(), 4);
    assert_eq!(kinds[0], everything());
    assert!(matches!(kinds[1], PeerKind::Nodes(_)));
    assert_eq!(
        kinds[2],
        PeerKind::Block(crate::cidr::Block::whole("10.0.0.0/8").unwrap())
    );
    let ports = [
        crate::port::range(weir_abi::Proto::TCP, 80, 80),
        crate::port::range(weir_abi::Proto::UDP, 1, 65535),
    ];
    assert_eq!(found.ports.numeric.ranges(), ports);
}

#[test]
fn a_named_port_is_looked_up_for_all_three_protocols() {
    let rule = json!({"action": "Accept", "to": [{"namespaces": {}}],
                      "protocols": [{"destinationNamedPort": "dns"}]});
    let named = egress(&rule).0.unwrap().ports.named;
    let protos: Vec<u8> = named.iter().map(|name| name.proto.0).collect();
    assert_eq!(protos, [6, 17, 132]);
    assert!(named.iter().all(|name| name.name == "dns"));
}

/// What is wrong in a rule, as (field to set, value, path below the rule).
type Wrong = (&'static str, Value, &'static str);

fn wrong_peers() -> Vec<Wrong> {
    let pods = |value: Value| json!([{"pods": value}]);
    let many = |value: Value| json!(vec![value; 26]);
    vec![
        ("future", json!(1), ".future"),
        ("to", json!(null), ".to"),
        ("to", json!([]), ".to"),
        ("to", many(json!({"namespaces": {}})), ".to"),
        ("to", json!([{}]), ".to[0]"),
        (
            "to",
            json!([{"namespaces": {}}, {"services": {}}]),
            ".to[1].services",
        ),
        ("to", json!([{"namespaces": {}, "nodes": {}}]), ".to[0]"),
        (
            "to",
            json!([{"namespaces": {"matchLabels": {"-": "x"}}}]),
            ".to[0].namespaces.matchLabels",
        ),
        (
            "to",
            pods(json!({"namespaceSelector": {}})),
            ".to[0].pods.podSelector",
        ),
        (
            "to",
            pods(json!({"namespaceSelector": {}, "podSelector": {}, "x": 1})),
            ".to[0].pods.x",
        ),
        ("to", json!([{"networks": []}]), ".to[0].networks"),
        (
            "to",
            json!([{"networks": many(json!("10.0.0.0/8"))}]),
            ".to[0].networks",
        ),
        (
            "to",
            json!([{"networks": ["10.0.0.0/8", "10.0.0.0"]}]),
            ".to[0].networks[1]",
        ),
        (
            "to",
            json!([{"networks": ["0000:0000:0000:0000:0000:0000:0000:0000:0000/128"]}]),
            ".to[0].networks[0]",
        ),
    ]
}

fn wrong_protocols() -> Vec<Wrong> {
    let tcp = |port: Value| json!([{"tcp": {"destinationPort": port}}]);
    let many = |value: Value| json!(vec![value; 26]);
    vec![
        ("protocols", json!([]), ".protocols"),
        (
            "protocols",
            many(json!({"destinationNamedPort": "a"})),
            ".protocols",
        ),
        ("protocols", json!([{}]), ".protocols[0]"),
        (
            "protocols",
            json!([{"destinationNamedPort": ""}]),
            ".protocols[0]",
        ),
        ("protocols", json!([{"icmp": {}}]), ".protocols[0].icmp"),
        ("protocols", json!([{"tcp": {}}]), ".protocols[0].tcp"),
        (
            "protocols",
            json!([{"tcp": {"x": 1}}]),
            ".protocols[0].tcp.x",
        ),
        (
            "protocols",
            json!([{"tcp": {"destinationPort": {"number": 1}}, "destinationNamedPort": "a"}]),
            ".protocols[0]",
        ),
        (
            "protocols",
            tcp(json!({})),
            ".protocols[0].tcp.destinationPort",
        ),
        (
            "protocols",
            tcp(json!({"x": 1})),
            ".protocols[0].tcp.destinationPort.x",
        ),
        (
            "protocols",
            tcp(json!({"number": 0})),
            ".protocols[0].tcp.destinationPort.number",
        ),
        (
            "protocols",
            tcp(json!({"number": 65536})),
            ".protocols[0].tcp.destinationPort.number",
        ),
        (
            "protocols",
            tcp(json!({"number": 1, "range": {"start": 1, "end": 2}})),
            ".protocols[0].tcp.destinationPort",
        ),
        (
            "protocols",
            tcp(json!({"range": {"start": 2, "end": 2}})),
            ".protocols[0].tcp.destinationPort.range",
        ),
        (
            "protocols",
            tcp(json!({"range": {"start": 2}})),
            ".protocols[0].tcp.destinationPort.range",
        ),
        (
            "protocols",
            tcp(json!({"range": {"start": 0, "end": 2}})),
            ".protocols[0].tcp.destinationPort.range.start",
        ),
    ]
}

#[test]
fn a_rule_with_a_part_that_is_refused_fails_closed() {
    for (field, value, below) in wrong_peers().into_iter().chain(wrong_protocols()) {
        for action in ["Accept", "Deny", "Pass"] {
            let mut rule = json!({"action": action, "to": [{"namespaces": {}}]});
            rule[field] = value.clone();
            let (found, problem) = egress(&rule);
            let path = format!("spec.egress[0]{below}");
            assert_eq!(problem.as_deref(), Some(path.as_str()), "{rule}");
            check_failed_closed(action, found, &rule);
        }
    }
}

#[track_caller]
fn check_failed_closed(action: &str, found: Option<Rule>, rule: &Value) {
    match (action, found) {
        ("Accept", None) => {}
        ("Deny" | "Pass", Some(found)) => {
            assert_eq!(found.action, Action::Deny, "{rule}");
            assert!(found.peers.is_none(), "{rule}");
            assert_eq!(found.ports, RulePorts::everything(), "{rule}");
        }
        (_, found) => panic!("{rule}: {found:?}"),
    }
}

#[test]
fn pods_without_namespace_selector_are_those_of_all_namespaces() {
    let rule = json!({"action": "Deny", "to": [{"pods": {"podSelector": {}}}]});
    let (found, problem) = egress(&rule);
    assert_eq!(problem, None);
    assert_eq!(found.unwrap().peers.unwrap()[0].kind, everything());
    let subject = json!({"pods": {"podSelector": {"matchLabels": {"c": "d"}}}});
    let policy = parse(json!({"tier": "Admin", "priority": 1, "subject": subject}));
    assert!(policy.problems.is_empty());
    let labels = Labels::from([("c".to_owned(), "d".to_owned())]);
    assert!(policy.selects(&Labels::new(), &labels));
    assert!(!policy.selects(&Labels::new(), &Labels::new()));
}

#[test]
fn named_ports_stand_beside_peers_that_have_them_only() {
    let peers = [
        json!({"nodes": {}}),
        json!({"networks": ["10.0.0.0/8"]}),
        json!({"domainNames": ["a.b"]}),
    ];
    for peer in peers {
        let rule = json!({"action": "Accept", "to": [{"namespaces": {}}, peer],
                          "protocols": [{"destinationNamedPort": "dns"}]});
        let (found, problem) = egress(&rule);
        let path = "spec.egress[0].protocols[0].destinationNamedPort";
        assert_eq!(problem.as_deref(), Some(path));
        assert!(found.is_none());
    }
}

#[test]
fn an_action_that_is_not_known_denies_everything() {
    for action in [json!("Log"), json!("accept"), json!(null)] {
        let rule = json!({"action": action, "to": [{"namespaces": {}}]});
        let (found, problem) = egress(&rule);
        assert_eq!(problem.as_deref(), Some("spec.egress[0].action"));
        check_failed_closed("Deny", found, &rule);
    }
}

#[test]
fn rules_after_the_25th_are_refused_one_by_one() {
    let rule = |action: &str| json!({"action": action, "from": [{"namespaces": {}}]});
    let mut rules = vec![rule("Accept"); 25];
    rules.extend([rule("Accept"), rule("Pass")]);
    let policy = with_rules("ingress", json!(rules));
    let paths: Vec<_> = policy.problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(paths, ["spec.ingress[25]", "spec.ingress[26]"]);
    let actions: Vec<_> = policy.rules[0].iter().map(|rule| rule.action).collect();
    assert_eq!(actions.len(), 26);
    assert!(actions[..25].iter().all(|action| *action == Action::Accept));
    assert_eq!(actions[25], Action::Deny);
}

#[test]
fn domain_names_match_nothing_yet_and_are_for_accept_only() {
    let rule =
        |action: &str, names: Value| json!({"action": action, "to": [{"domainNames": names}]});
    let policy = with_rules(
        "egress",
        json!([rule("Accept", json!(["*.example.com", "a-b.c_d.e."]))]),
    );
    assert_eq!(policy.not_enforced, ["spec.egress[0].to[0].domainNames"]);
    assert!(policy.problems.is_empty());
    assert_eq!(policy.rules[1][0].peers.as_ref().unwrap().len(), 0);
    let (found, problem) = egress(&rule("Deny", json!(["example.com"])));
    assert_eq!(problem.as_deref(), Some("spec.egress[0].to[0].domainNames"));
    check_failed_closed("Deny", found, &json!("domain names"));
    for name in [
        "com", "", "*", "*.", "a..b", "a.b-", "-a.b", "a b.c", "a.*.b", "ä.b",
    ] {
        let (_, problem) = egress(&rule("Accept", json!(["a.b", name])));
        assert_eq!(
            problem.as_deref(),
            Some("spec.egress[0].to[0].domainNames[1]"),
            "{name}"
        );
    }
}

#[test]
fn a_name_that_is_too_long_is_a_problem_but_the_rule_stands() {
    let rule = json!({"name": "x".repeat(101), "action": "Accept", "to": [{"namespaces": {}}]});
    let (found, problem) = egress(&rule);
    assert_eq!(problem.as_deref(), Some("spec.egress[0].name"));
    assert_eq!(found.unwrap().action, Action::Accept);
}

#[test]
fn a_policy_of_which_tier_priority_or_subject_is_refused_fails_closed() {
    let good = json!({
        "tier": "Baseline", "priority": 0, "subject": {"namespaces": {}},
        "ingress": [
            {"action": "Accept", "from": [{"namespaces": {}}]},
            {"action": "Pass", "from": [{"namespaces": {}}]},
        ],
    });
    let policy = parse(good.clone());
    assert_eq!(
        (policy.tier, policy.priority, policy.problems.len()),
        (Tier::Baseline, 0, 0)
    );
    let pods = |value: Value| json!({"pods": value});
    for (field, value, path, tier, priority) in [
        ("tier", json!(null), "spec.tier", Tier::Admin, 0),
        ("tier", json!("NetworkPolicy"), "spec.tier", Tier::Admin, 0),
        ("priority", json!(null), "spec.priority", Tier::Baseline, 0),
        ("priority", json!(-1), "spec.priority", Tier::Baseline, 0),
        (
            "priority",
            json!(1001),
            "spec.priority",
            Tier::Baseline,
            1000,
        ),
        ("subject", json!(null), "spec.subject", Tier::Baseline, 0),
        ("subject", json!({}), "spec.subject", Tier::Baseline, 0),
        (
            "subject",
            json!({"namespaces": {}, "x": 1}),
            "spec.subject.x",
            Tier::Baseline,
            0,
        ),
        (
            "subject",
            pods(json!({"namespaceSelector": {}})),
            "spec.subject.pods.podSelector",
            Tier::Baseline,
            0,
        ),
    ] {
        let mut spec = good.clone();
        spec[field] = value;
        let policy = parse(spec);
        let paths: Vec<_> = policy.problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, [path]);
        assert_eq!((policy.tier, policy.priority), (tier, priority), "{path}");
        let [rule] = &policy.rules[0][..] else {
            panic!("{path}: {:?}", policy.rules)
        };
        check_failed_closed("Pass", Some(rule.clone()), &json!(path));
        assert!(policy.selects(&Labels::new(), &Labels::new()));
    }
}

#[test]
fn a_subject_selects_what_the_valid_part_of_its_selectors_does() {
    let subject = json!({"pods": {
        "namespaceSelector": {"matchLabels": {"a": "b"}},
        "podSelector": {"matchLabels": {"c": "d", "-": ""}},
    }});
    let policy = parse(json!({"tier": "Admin", "priority": 1, "subject": subject}));
    assert_eq!(policy.problems.len(), 1);
    let labels = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
    assert!(policy.selects(&labels("a", "b"), &labels("c", "d")));
    assert!(!policy.selects(&labels("a", "b"), &labels("c", "x")));
    assert!(!policy.selects(&labels("a", "x"), &labels("c", "d")));
}
