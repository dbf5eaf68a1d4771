//! What is told of a ClusterNetworkPolicy: its conditions, and whom it judges.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use weir_crd::ClusterNetworkPolicy;

use crate::actual::Direction;
use crate::census::{PodInfo, namespace_labels};
use crate::cluster_policy::ClusterPolicy;

/// What a condition is about; its `type` in `status.conditions`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ConditionType {
    /// True: nothing of the policy is refused.
    Accepted,
    /// True: it is enforced but for what the message names.
    PartiallySupported,
}

impl ConditionType {
    /// As `type` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::PartiallySupported => "PartiallySupported",
        }
    }
}

/// An entry of `status.conditions`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// What it is about.
    pub kind: ConditionType,
    /// Whether it holds.
    pub holds: bool,
    /// One word for programs.
    pub reason: &'static str,
    /// For people; what is refused, or what is not enforced.
    pub message: String,
}

/// A ClusterNetworkPolicy as it is used, for those who show it.
#[derive(Clone, Debug)]
pub struct ClusterPolicyStatus(ClusterPolicy);

impl ClusterPolicyStatus {
    /// Of an object.
    pub fn of(object: &ClusterNetworkPolicy) -> Self {
        Self(ClusterPolicy::parse(object))
    }

    /// `Admin` or `Baseline`; what a refused tier counts as.
    pub fn tier(&self) -> &'static str {
        self.0.tier.name()
    }

    /// What a refused priority counts as.
    pub fn priority(&self) -> u16 {
        self.0.priority
    }

    /// `Accepted`, then `PartiallySupported`.
    pub fn conditions(&self) -> [Condition; 2] {
        let problems = &self.0.problems;
        let refused: Vec<String> = problems
            .iter()
            .map(|problem| format!("{}: {}", problem.path, problem.reason))
            .collect();
        let fields = &self.0.not_enforced;
        [
            Condition {
                kind: ConditionType::Accepted,
                holds: refused.is_empty(),
                reason: if refused.is_empty() {
                    "Accepted"
                } else {
                    "Refused"
                },
                message: refused.join("\n"),
            },
            Condition {
                kind: ConditionType::PartiallySupported,
                holds: !fields.is_empty(),
                reason: if fields.is_empty() {
                    "Enforced"
                } else {
                    "DomainNames"
                },
                message: match fields.is_empty() {
                    true => String::new(),
                    false => format!(
                        "{}: domainNames are not enforced yet and match nothing",
                        fields.join(", ")
                    ),
                },
            },
        ]
    }

    /// Whether it has rules for that direction of this pod, whose namespace is the one given.
    pub fn judges(&self, direction: Direction, namespace: Option<&Namespace>, pod: &Pod) -> bool {
        let name = pod.metadata.namespace.clone();
        let name = name.unwrap_or_else(|| "default".to_owned());
        let labels = namespace.and_then(|n| n.metadata.labels.as_ref());
        let of_namespace = namespace_labels(&name, labels);
        let pod = PodInfo::read(name, pod);
        !self.0.rules[direction.index()].is_empty()
            && !pod.host_network
            && self.0.selects(&of_namespace, &pod.labels)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> ClusterPolicyStatus {
        let object = json!({"metadata": {"name": "x"}, "spec": spec});
        ClusterPolicyStatus::of(&serde_json::from_value(object).unwrap())
    }

    fn spec(egress: Value) -> Value {
        json!({"tier": "Baseline", "priority": 7, "subject": {"namespaces": {}}, "egress": egress})
    }

    /// (type, holds, reason, message) of both.
    fn conditions(spec: Value) -> Vec<(&'static str, bool, &'static str, String)> {
        let conditions = of(spec).conditions();
        conditions
            .into_iter()
            .map(|c| (c.kind.name(), c.holds, c.reason, c.message))
            .collect()
    }

    #[test]
    fn a_valid_policy_is_accepted_and_wholly_supported() {
        let rule = json!([{"action": "Deny", "to": [{"nodes": {}}]}]);
        let status = of(spec(rule.clone()));
        assert_eq!((status.tier(), status.priority()), ("Baseline", 7));
        assert_eq!(
            conditions(spec(rule)),
            [
                ("Accepted", true, "Accepted", String::new()),
                ("PartiallySupported", false, "Enforced", String::new()),
            ]
        );
    }

    #[test]
    fn a_policy_with_a_refused_part_is_not_accepted_and_the_message_names_all() {
        let mut spec = spec(json!([{"action": "Deny", "to": []}]));
        spec["priority"] = json!(1001);
        let accepted = conditions(spec).remove(0);
        assert_eq!(
            (accepted.0, accepted.1, accepted.2),
            ("Accepted", false, "Refused")
        );
        let lines: Vec<&str> = accepted.3.lines().collect();
        assert!(lines[0].starts_with("spec.priority: "), "{lines:?}");
        assert!(lines[1].starts_with("spec.egress[0].to: "), "{lines:?}");
    }

    #[test]
    fn domain_names_make_it_partially_supported() {
        let accept = json!({"action": "Accept", "to": [{"nodes": {}}, {"domainNames": ["a.b"]}]});
        let both = conditions(spec(json!([accept])));
        assert!(both[0].1, "{both:?}");
        assert_eq!(
            both[1],
            (
                "PartiallySupported",
                true,
                "DomainNames",
                "spec.egress[0].to[1].domainNames: domainNames are not enforced yet and match nothing"
                    .to_owned()
            )
        );
    }

    #[test]
    fn it_judges_pods_of_its_subject_in_directions_that_it_has_rules_for() {
        let rules = json!([{"action": "Deny", "to": [{"nodes": {}}]}]);
        let mut red = spec(rules);
        red["subject"] = json!({"pods": {
            "namespaceSelector": {"matchLabels": {"team": "red"}},
            "podSelector": {"matchLabels": {"app": "web"}},
        }});
        let judges = |direction, team: &str, app: &str, host: bool| {
            let namespace = json!({"metadata": {"name": "n", "labels": {"team": team}}});
            let namespace = serde_json::from_value(namespace).unwrap();
            let pod = json!({
                "metadata": {"name": "p", "namespace": "n", "labels": {"app": app}},
                "spec": {"containers": [], "hostNetwork": host},
            });
            let pod = serde_json::from_value(pod).unwrap();
            of(red.clone()).judges(direction, Some(&namespace), &pod)
        };
        assert!(judges(Direction::Egress, "red", "web", false));
        assert!(!judges(Direction::Ingress, "red", "web", false));
        assert!(!judges(Direction::Egress, "blue", "web", false));
        assert!(!judges(Direction::Egress, "red", "db", false));
        assert!(!judges(Direction::Egress, "red", "web", true));
        // Every namespace has its name as a label, also one that is not known.
        let mut named = red.clone();
        named["subject"] =
            json!({"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "n"}}});
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}});
        let pod = serde_json::from_value(pod).unwrap();
        assert!(of(named).judges(Direction::Egress, None, &pod));
    }
}
