//! One file: kinds, lists, what is passed over and what is refused.

use std::path::Path;

use weir_manifests::{Note, Object, Parsed, parse_text};

fn parse(text: &str) -> Parsed {
    parse_text(Path::new("f.yaml"), text)
}

fn keys(parsed: &Parsed) -> Vec<String> {
    parsed
        .objects
        .iter()
        .map(|l| l.object.key().to_string())
        .collect()
}

fn texts(notes: &[Note]) -> Vec<String> {
    notes.iter().map(ToString::to_string).collect()
}

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n";

#[test]
fn objects_get_the_default_namespace_and_cluster_wide_ones_none() {
    let parsed = parse(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n1, namespace: x}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: b}\n",
    );
    assert_eq!(keys(&parsed), ["Pod default/a", "Node n1", "Service b/s"]);
    assert_eq!(parsed.objects[2].line, 9);
    assert!(
        parsed.errors.is_empty() && parsed.warnings.is_empty() && parsed.passed_over.is_empty()
    );
}

#[test]
fn lists_are_unpacked_typed_ones_too() {
    let parsed = parse(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n\
         - {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod, metadata: {name: b}}]}\n\
         ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems:\n- metadata: {name: p}\n",
    );
    assert_eq!(
        keys(&parsed),
        ["Pod default/a", "Pod default/b", "NetworkPolicy default/p"]
    );
    assert!(parsed.warnings.is_empty(), "{:?}", parsed.warnings);
}

#[test]
fn other_kinds_other_groups_and_other_documents_are_passed_over() {
    let parsed = parse(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: s}\n\
         ---\nreplicaCount: 3\n---\n- a list\n---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: q}\n",
    );
    assert!(parsed.objects.is_empty() && parsed.errors.is_empty() && parsed.warnings.is_empty());
    assert_eq!(parsed.passed_over.len(), 5);
    assert_eq!(
        texts(&parsed.passed_over)[0],
        "f.yaml:1: kind ConfigMap (v1) is not needed"
    );
}

#[test]
fn old_api_groups_are_read_as_the_present_ones_with_a_warning() {
    let parsed = parse(
        "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}, ingress: [{}]}\n\
         ---\napiVersion: apps/v1beta2\nkind: Deployment\nmetadata: {name: d}\nspec: {selector: {}, template: {}}\n\
         ---\nkind: Pod\nmetadata: {name: x}\n",
    );
    assert_eq!(
        keys(&parsed),
        [
            "NetworkPolicy default/p",
            "Deployment default/d",
            "Pod default/x"
        ]
    );
    assert_eq!(parsed.warnings.len(), 3, "{:?}", parsed.warnings);
}

#[test]
fn broken_documents_are_named_and_the_rest_counts() {
    let parsed = parse(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\nkind: [\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\n",
    );
    assert_eq!(keys(&parsed), ["Pod default/a", "Pod default/b"]);
    assert_eq!(parsed.errors.len(), 1);
    assert!(
        texts(&parsed.errors)[0].starts_with("f.yaml:"),
        "{:?}",
        parsed.errors
    );
    assert!((4..=6).contains(&parsed.errors[0].line));
}

#[test]
fn what_the_api_server_refuses_is_a_warning_and_left_out() {
    let parsed = parse(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: ns}\nspec: {containers: 7}\n",
    );
    assert!(parsed.objects.is_empty() && parsed.errors.is_empty());
    assert!(texts(&parsed.warnings)[0].contains("Pod ns/a: the API server refuses it"));
}

fn policy(spec: &str) -> (k8s_openapi::api::networking::v1::NetworkPolicy, Vec<String>) {
    let mut parsed = parse(&format!("{POLICY}spec: {spec}\n"));
    let warnings = texts(&parsed.warnings);
    match parsed.objects.remove(0).object {
        Object::NetworkPolicy(policy) => (policy, warnings),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_policy_that_does_not_decode_keeps_what_does_and_closes_the_rest() {
    let (good, warnings) = policy("{podSelector: {}, ingress: [{}]}");
    assert!(warnings.is_empty());
    assert_eq!(good.spec.unwrap().ingress.unwrap().len(), 1);

    let (rule, warnings) =
        policy("{podSelector: {matchLabels: {a: b}}, ingress: [{from: 3}, {}], egress: x}");
    assert!(
        warnings[0].contains("what does not decode allows nothing"),
        "{warnings:?}"
    );
    let spec = rule.spec.unwrap();
    assert_eq!(spec.pod_selector.unwrap().match_labels.unwrap().len(), 1);
    let ingress = spec.ingress.unwrap();
    // An empty peer, which every evaluator refuses.
    assert_eq!(ingress[0].from.as_ref().unwrap().len(), 1);
    assert_eq!(ingress[0].from.as_ref().unwrap()[0], Default::default());
    assert_eq!(ingress[1].from, None);
    assert_eq!(spec.egress.unwrap()[0].to.as_ref().unwrap().len(), 1);

    let (selector, _) = policy("{podSelector: {matchLabels: {a: 1}}, ingress: [{}]}");
    let expressions = selector
        .spec
        .unwrap()
        .pod_selector
        .unwrap()
        .match_expressions
        .unwrap();
    assert!(!["In", "NotIn", "Exists", "DoesNotExist"].contains(&expressions[0].operator.as_str()));

    let (types, _) = policy("{podSelector: {}, policyTypes: Ingress}");
    assert_ne!(types.spec.unwrap().policy_types.unwrap(), ["Ingress"]);
}

#[test]
fn an_unknown_field_of_a_policy_is_a_warning_and_of_another_kind_is_passed_over() {
    let (_, warnings) =
        policy("{podSelector: {}, ingress: [{form: [{podSelector: {}}], ports: null}]}");
    assert_eq!(
        warnings,
        ["f.yaml:1: NetworkPolicy default/p: unknown field spec.ingress[0].form"]
    );
    let parsed = parse(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, imag: x}]}\n",
    );
    assert!(parsed.warnings.is_empty());
    assert!(texts(&parsed.passed_over)[0].contains("spec.containers[0].imag"));
}

#[test]
fn ports_may_be_numbers_or_text() {
    let (policy, warnings) =
        policy("{podSelector: {}, ingress: [{ports: [{port: 80}, {port: http}, {port: \"80\"}]}]}");
    assert!(warnings.is_empty());
    let ports = policy
        .spec
        .unwrap()
        .ingress
        .unwrap()
        .remove(0)
        .ports
        .unwrap();
    let shown: Vec<String> = ports.iter().map(|p| format!("{:?}", p.port)).collect();
    assert_eq!(
        shown,
        [
            "Some(Int(80))",
            "Some(String(\"http\"))",
            "Some(String(\"80\"))"
        ]
    );
}

#[test]
fn a_nameless_object_gets_a_name_and_a_warning() {
    let parsed = parse(
        "\n\napiVersion: v1\nkind: Pod\nmetadata: {generateName: job-}\n---\napiVersion: v1\nkind: Pod\n",
    );
    assert_eq!(parsed.objects.len(), 2);
    assert!(keys(&parsed)[0].starts_with("Pod default/job-"));
    assert!(keys(&parsed)[1].starts_with("Pod default/unnamed-"));
    assert_eq!(parsed.warnings.len(), 2);
}
