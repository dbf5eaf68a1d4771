//! A NetworkPolicy that does not decode still isolates. A rule that does not decode gets an empty
//! peer, which is refused: it allows nothing.

use super::{decode, each, meta, selector};
use crate::value::Value;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicySpec,
};

/// What is left of a policy.
pub(crate) fn salvage(value: &Value) -> NetworkPolicy {
    let metadata = value.get("metadata");
    let spec = value.get("spec").filter(|s| !s.is_null());
    NetworkPolicy {
        metadata: metadata.map(meta).unwrap_or_default(),
        spec: spec.map(|spec| NetworkPolicySpec {
            pod_selector: spec.get("podSelector").map(selector),
            policy_types: spec.get("policyTypes").map(types),
            ingress: spec.get("ingress").map(|rules| {
                each(rules, |_| NetworkPolicyIngressRule {
                    from: Some(vec![NetworkPolicyPeer::default()]),
                    ports: None,
                })
            }),
            egress: spec.get("egress").map(|rules| {
                each(rules, |_| NetworkPolicyEgressRule {
                    to: Some(vec![NetworkPolicyPeer::default()]),
                    ports: None,
                })
            }),
        }),
    }
}

fn types(value: &Value) -> Vec<String> {
    decode(value).unwrap_or_else(|| vec!["undecodable".to_owned()])
}
