//! A NetworkPolicy that does not decode still isolates: leaving it out would open what it closes.
//!
//! Each part that decodes is kept; each that does not is replaced by something that every reader of
//! policies refuses in the same place, so that it allows nothing.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use serde::de::DeserializeOwned;

use crate::value::Value;

fn decode<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone().into()).ok()
}

/// What is left of a policy.
pub(crate) fn network_policy(value: &Value) -> NetworkPolicy {
    let metadata = value.get("metadata");
    let spec = value.get("spec").filter(|s| !s.is_null());
    NetworkPolicy {
        metadata: metadata.map(meta).unwrap_or_default(),
        spec: spec.map(|spec| NetworkPolicySpec {
            pod_selector: spec.get("podSelector").map(selector),
            policy_types: spec.get("policyTypes").map(types),
            ingress: spec.get("ingress").map(|rules| {
                each(rules, || NetworkPolicyIngressRule {
                    from: Some(vec![NetworkPolicyPeer::default()]),
                    ports: None,
                })
            }),
            egress: spec.get("egress").map(|rules| {
                each(rules, || NetworkPolicyEgressRule {
                    to: Some(vec![NetworkPolicyPeer::default()]),
                    ports: None,
                })
            }),
        }),
    }
}

fn meta(value: &Value) -> ObjectMeta {
    let text = |key| value.get(key).and_then(Value::as_str).map(str::to_owned);
    decode(value).unwrap_or_else(|| ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        ..ObjectMeta::default()
    })
}

/// A selector that does not decode gets a requirement that no reader accepts: the policy then
/// isolates and allows nothing.
fn selector(value: &Value) -> LabelSelector {
    decode(value).unwrap_or_else(|| LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: "undecodable".to_owned(),
            operator: "undecodable".to_owned(),
            values: None,
        }]),
        match_labels: None,
    })
}

fn types(value: &Value) -> Vec<String> {
    decode(value).unwrap_or_else(|| vec!["undecodable".to_owned()])
}

/// A rule that does not decode gets an empty peer, which is refused.
fn each<T: DeserializeOwned>(rules: &Value, refused: impl Fn() -> T) -> Vec<T> {
    match rules.as_array() {
        Some(rules) => rules
            .iter()
            .map(|rule| decode(rule).unwrap_or_else(&refused))
            .collect(),
        None if rules.is_null() => Vec::new(),
        None => vec![refused()],
    }
}
