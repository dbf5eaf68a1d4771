//! ClusterNetworkPolicies as the API and the CLI show them.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use weir_api::policy::{PolicyCondition, PolicyInfo};
use weir_crd::ClusterNetworkPolicy;
use weir_policy::{ClusterPolicyStatus, Direction};

/// A policy, and those of the pods (with their namespaces, where known) that it judges.
pub fn info<'a>(
    policy: &ClusterNetworkPolicy,
    pods: impl Iterator<Item = (&'a Pod, Option<&'a Namespace>)>,
) -> PolicyInfo {
    let status = ClusterPolicyStatus::of(policy);
    let mut info = PolicyInfo {
        kind: ClusterNetworkPolicy::KIND.to_owned(),
        name: policy.metadata.name.clone().unwrap_or_default(),
        tier: Some(status.tier().to_owned()),
        priority: Some(status.priority()),
        conditions: conditions(&status),
        ..PolicyInfo::default()
    };
    for (pod, namespace) in pods {
        let metadata = &pod.metadata;
        let of = metadata.namespace.as_deref().unwrap_or("default");
        let name = format!("{of}/{}", metadata.name.as_deref().unwrap_or_default());
        if status.judges(Direction::Ingress, namespace, pod) {
            info.ingress.push(name.clone());
        }
        if status.judges(Direction::Egress, namespace, pod) {
            info.egress.push(name);
        }
    }
    info
}

fn conditions(status: &ClusterPolicyStatus) -> Vec<PolicyCondition> {
    let conditions = status.conditions().into_iter();
    conditions
        .map(|condition| PolicyCondition {
            kind: condition.kind.name().to_owned(),
            status: if condition.holds { "True" } else { "False" }.to_owned(),
            reason: condition.reason.to_owned(),
            message: condition.message,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_is_shown_with_its_conditions_and_the_pods_it_judges() {
        let policy = json!({"metadata": {"name": "lock"}, "spec": {
            "tier": "Admin", "priority": 5,
            "subject": {"namespaces": {"matchLabels": {"team": "red"}}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
        }});
        let policy: ClusterNetworkPolicy = serde_json::from_value(policy).unwrap();
        let namespace = |name: &str, team: &str| -> Namespace {
            let object = json!({"metadata": {"name": name, "labels": {"team": team}}});
            serde_json::from_value(object).unwrap()
        };
        let pod = |namespace: &str| -> Pod {
            let object = json!({"metadata": {"name": "p", "namespace": namespace}});
            serde_json::from_value(object).unwrap()
        };
        let pods = [
            (pod("a"), Some(namespace("a", "red"))),
            (pod("b"), Some(namespace("b", "blue"))),
            (pod("c"), None),
        ];
        let info = info(&policy, pods.iter().map(|(p, n)| (p, n.as_ref())));
        assert_eq!(
            serde_json::to_value(&info).unwrap(),
            json!({
                "kind": "ClusterNetworkPolicy", "name": "lock", "tier": "Admin", "priority": 5,
                "conditions": [
                    {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
                    {"type": "PartiallySupported", "status": "False", "reason": "Enforced", "message": ""},
                ],
                "ingress": ["a/p"], "egress": [],
            })
        );
    }
}
