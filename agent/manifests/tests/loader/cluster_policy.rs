//! ClusterNetworkPolicies: what is read, what is refused and what is left of it.

use std::path::Path;

use serde_json::{Value, json};
use weir_crd::{ClusterNetworkPolicy, EgressPeer, IngressPeer, IngressRule};
use weir_manifests::{Object, Parsed, parse_text};

const HEAD: &str = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n";

fn parse(text: &str) -> Parsed {
    parse_text(Path::new("f.yaml"), text)
}

fn warnings(parsed: &Parsed) -> Vec<String> {
    parsed.warnings.iter().map(|n| n.text.clone()).collect()
}

/// The policy `p` of that `spec`, and the warnings.
fn policy(spec: Value) -> (ClusterNetworkPolicy, Vec<String>) {
    let object = json!({
        "apiVersion": ClusterNetworkPolicy::API_VERSION, "kind": ClusterNetworkPolicy::KIND,
        "metadata": {"name": "p"}, "spec": spec,
    });
    let mut parsed = parse(&object.to_string());
    let warnings = warnings(&parsed);
    match parsed.objects.remove(0).object {
        Object::ClusterNetworkPolicy(policy) => (policy, warnings),
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_is_read_without_a_namespace_alone_and_in_lists() {
    let item = "metadata: {name: a, namespace: x}\n  spec: {tier: Admin, priority: 1, subject: {namespaces: {}}}\n  status: {conditions: []}\n";
    for text in [
        format!("{HEAD}{}", item.replace("\n  ", "\n")),
        format!("kind: List\nitems:\n- {}{item}", HEAD.replace('\n', "\n  ")),
        format!(
            "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicyList\nitems:\n- {item}"
        ),
    ] {
        let parsed = parse(&text);
        assert_eq!(parsed.objects.len(), 1, "{text}: {parsed:?}");
        let object = &parsed.objects[0].object;
        assert_eq!(object.key().to_string(), "ClusterNetworkPolicy a");
        assert_eq!(object.to_json().unwrap()["spec"]["tier"], "Admin");
        assert!(parsed.warnings.is_empty(), "{:?}", parsed.warnings);
        assert!(parsed.passed_over.is_empty(), "{:?}", parsed.passed_over);
    }
}

#[test]
fn other_versions_and_the_kinds_it_replaces_are_a_warning_as_nothing_enforces_them() {
    for (version, kind) in [
        ("v1alpha1", "AdminNetworkPolicy"),
        ("v1alpha1", "BaselineAdminNetworkPolicy"),
        ("v1alpha1", "ClusterNetworkPolicy"),
        ("v1beta1", "ClusterNetworkPolicy"),
    ] {
        let version = format!("policy.networking.k8s.io/{version}");
        for text in [
            format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n"),
            format!(
                "apiVersion: {version}\nkind: {kind}List\nitems: [{{metadata: {{name: a}}}}]\n"
            ),
        ] {
            let parsed = parse(&text);
            assert!(parsed.objects.is_empty(), "{text}");
            let wanted = format!(
                "{kind} of {version} is not read, so it is not enforced: write it as \
                 ClusterNetworkPolicy of policy.networking.k8s.io/v1alpha2"
            );
            assert_eq!(warnings(&parsed), std::slice::from_ref(&wanted));
            // For `--strict`.
            assert_eq!(parsed.passed_over[0].text, wanted);
        }
    }
    let other = parse("apiVersion: crd.antrea.io/v1beta1\nkind: ClusterNetworkPolicy\n");
    assert!(other.objects.is_empty() && other.warnings.is_empty());
    assert_eq!(other.passed_over.len(), 1);
}

#[test]
fn unknown_fields_are_a_warning_wherever_they_stand() {
    let (policy, warnings) = policy(json!({
        "tier": "Admin", "priority": 1, "mode": "x",
        "subject": {"pods": {"namespaceSelector": {}, "podSelector": {}, "a": 1}, "b": 1},
        "ingress": [{"action": "Deny", "c": 1, "from": [{"namespaces": {"d": 1}, "e": 1}], "protocols": [
            {"tcp": {"destinationPort": {"number": 1, "f": 1}, "g": 1}, "h": 1},
            {"udp": {"destinationPort": {"range": {"start": 1, "end": 2, "i": 1}}}},
        ]}],
        "egress": [{"action": "Deny", "j": 1, "to": [{"services": {}, "nodes": null}]}],
    }));
    let mut paths: Vec<&str> = warnings
        .iter()
        .map(|w| {
            w.strip_prefix("ClusterNetworkPolicy p: unknown field spec.")
                .unwrap()
        })
        .collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "egress[0].j",
            "egress[0].to[0].services",
            "ingress[0].c",
            "ingress[0].from[0].e",
            "ingress[0].from[0].namespaces.d",
            "ingress[0].protocols[0].h",
            "ingress[0].protocols[0].tcp.destinationPort.f",
            "ingress[0].protocols[0].tcp.g",
            "ingress[0].protocols[1].udp.destinationPort.range.i",
            "mode",
            "subject.b",
            "subject.pods.a",
        ]
    );
    // They reach the readers.
    let egress = &policy.spec.egress.unwrap()[0];
    assert_eq!(egress.to.as_ref().unwrap()[0].other.len(), 1);
    assert_eq!(egress.other.len(), 1);
}

#[test]
fn null_is_the_same_as_not_there_also_for_fields_that_are_not_known() {
    let (policy, warnings) = policy(json!({
        "tier": "Admin", "priority": 1, "subject": {"namespaces": {}, "later": null},
        "ingress": [{"action": "Deny", "from": [{"namespaces": {}, "later": null}], "later": null}],
        "egress": null,
    }));
    assert!(warnings.is_empty(), "{warnings:?}");
    let rule = &policy.spec.ingress.unwrap()[0];
    assert!(rule.other.is_empty() && rule.from.as_ref().unwrap()[0].other.is_empty());
    assert!(policy.spec.subject.unwrap().other.is_empty());
    assert_eq!(policy.spec.egress, None);
}

#[test]
fn a_rule_that_does_not_decode_is_one_that_readers_refuse_and_keeps_its_action() {
    let (kept, warnings) = policy(json!({
        "tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
        "ingress": [
            {"name": "n", "action": "Accept", "from": 3},
            {"action": 7, "from": [{"namespaces": {}}]},
            {"action": "Pass", "from": [{"namespaces": {}}]},
            "x",
        ],
        "egress": {"action": "Accept"},
    }));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("ClusterNetworkPolicy p: the API server refuses it: ")
            && warnings[0].ends_with("; what does not decode fails closed"),
        "{warnings:?}"
    );
    let refused = |name: Option<&str>, action: Option<&str>| IngressRule {
        name: name.map(str::to_owned),
        action: action.map(str::to_owned),
        from: Some(vec![IngressPeer::default()]),
        ..IngressRule::default()
    };
    let ingress = kept.spec.ingress.unwrap();
    assert_eq!(ingress[0], refused(Some("n"), Some("Accept")));
    assert_eq!(ingress[1], refused(None, None));
    assert_eq!(ingress[2].action.as_deref(), Some("Pass"));
    assert!(ingress[2].from.as_ref().unwrap()[0].namespaces.is_some());
    assert_eq!(ingress[3], refused(None, None));
    let egress = kept.spec.egress.unwrap();
    assert_eq!(egress.len(), 1);
    assert_eq!(egress[0].to, Some(vec![EgressPeer::default()]));
    assert_eq!(egress[0].action.as_deref(), Some("Accept"));
    assert_eq!(kept.metadata.name.as_deref(), Some("p"));
}

#[test]
fn a_tier_priority_or_subject_that_does_not_decode_is_one_that_readers_refuse() {
    let (kept, _) = policy(json!({
        "tier": 3, "priority": "1",
        "subject": {"pods": {"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": 3}, "x": 1},
    }));
    assert_eq!(kept.spec.tier.as_deref(), Some("undecodable"));
    assert_eq!(kept.spec.priority, None);
    let subject = kept.spec.subject.unwrap();
    let pods = subject.pods.unwrap();
    assert_eq!(
        pods.namespace_selector.unwrap().match_labels.unwrap()["a"],
        "b"
    );
    let expressions = pods.pod_selector.unwrap().match_expressions.unwrap();
    assert_eq!(expressions[0].operator, "undecodable");
    assert_eq!(subject.other.len(), 1);

    let (kept, _) = policy(json!({"tier": "Baseline", "priority": 7, "subject": "x"}));
    assert_eq!(kept.spec.tier.as_deref(), Some("Baseline"));
    assert_eq!(kept.spec.priority, Some(7));
    assert_eq!(kept.spec.subject, Some(weir_crd::Subject::default()));
}
