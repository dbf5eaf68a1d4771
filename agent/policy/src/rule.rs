//! Names of rules, as they stand in `RULES`.

use serde_json::{Value, json};
use weir_abi::policy::RuleInfo;
use weir_crd::ClusterNetworkPolicy;

use crate::actual::Direction;
use crate::event::ObjectName;
use crate::hash::{ContentHasher, Key};
use crate::tier::{Action, Tier};

const KIND: &str = "NetworkPolicy";
const CLUSTER_KIND: &str = ClusterNetworkPolicy::KIND;

/// A rule of a ClusterNetworkPolicy.
pub(crate) struct ClusterRule<'a> {
    pub policy: &'a str,
    pub tier: Tier,
    pub direction: Direction,
    pub path: &'a str,
    pub action: Action,
    /// The rule's own name.
    pub name: Option<&'a str>,
}

/// What a verdict is attributed to: a rule, or the policies that isolate a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RuleName {
    /// The whole name's hash, also of what does not fit into the text.
    pub key: Key,
    /// JSON, at most [`RuleInfo::TEXT`] bytes.
    pub text: String,
}

impl RuleName {
    /// The rule at `path` of a policy.
    pub fn rule(policy: &ObjectName, direction: Direction, path: &str) -> Self {
        let mut hasher = ContentHasher::new("rule");
        hasher.text(KIND).text(&policy.namespace).text(&policy.name);
        hasher.text(direction.name()).text(path);
        let text = (0..).map(|cut| {
            json!({
                "kind": KIND,
                "namespace": shortened(&policy.namespace, cut),
                "name": shortened(&policy.name, cut),
                "direction": direction.name(),
                "path": path,
            })
        });
        Self {
            key: hasher.finish(),
            text: first_that_fits(text),
        }
    }

    /// A rule of a ClusterNetworkPolicy.
    pub fn cluster_rule(rule: &ClusterRule<'_>) -> Self {
        let own = rule.name.unwrap_or_default();
        let mut hasher = ContentHasher::new("cluster rule");
        hasher.text(rule.policy).text(rule.tier.name());
        hasher.text(rule.direction.name()).text(rule.path);
        hasher.text(rule.action.name()).text(own);
        let text = (0..).map(|cut| {
            let mut value = json!({
                "kind": CLUSTER_KIND,
                "name": shortened(rule.policy, cut),
                "tier": rule.tier.name(),
                "action": rule.action.name(),
                "direction": rule.direction.name(),
                "path": rule.path,
            });
            if !own.is_empty() {
                value["rule"] = shortened(own, cut).into();
            }
            value
        });
        Self {
            key: hasher.finish(),
            text: first_that_fits(text),
        }
    }

    /// The default of pods that `policies` isolate, in the order given. Where not all of them fit,
    /// `more` counts the rest.
    pub fn isolated_by(policies: &[&ObjectName], direction: Direction) -> Self {
        let mut hasher = ContentHasher::new("isolated");
        hasher.text(direction.name());
        for policy in policies {
            hasher.text(KIND).text(&policy.namespace).text(&policy.name);
        }
        let listed: Vec<Value> = policies
            .iter()
            .map(|p| {
                json!({
                    "kind": KIND,
                    "namespace": p.namespace,
                    "name": p.name,
                    "path": "spec.podSelector",
                })
            })
            .collect();
        let text = (0..=listed.len()).rev().map(|count| {
            let mut value = json!({
                "isolatedBy": listed[..count],
                "direction": direction.name(),
            });
            if count < listed.len() {
                value["more"] = (listed.len() - count).into();
            }
            value
        });
        Self {
            key: hasher.finish(),
            text: first_that_fits(text),
        }
    }
}

fn first_that_fits(mut values: impl Iterator<Item = Value>) -> String {
    let fits = |value: Value| Some(value.to_string()).filter(|text| text.len() <= RuleInfo::TEXT);
    values.find_map(fits).unwrap_or_default()
}

/// All of `text`, or less of it at each further `cut`: the API server lets no such name pass.
fn shortened(text: &str, cut: usize) -> String {
    if cut == 0 {
        return text.to_owned();
    }
    text.chars().take(256 >> cut.min(8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<ObjectName> {
        let name = |i| ObjectName::new("shop", format!("policy-{i}"));
        (0..count).map(name).collect()
    }

    fn isolated(policies: &[ObjectName], direction: Direction) -> RuleName {
        RuleName::isolated_by(&policies.iter().collect::<Vec<_>>(), direction)
    }

    fn json(name: &RuleName) -> Value {
        assert!(name.text.len() <= RuleInfo::TEXT);
        serde_json::from_str(&name.text).unwrap()
    }

    #[test]
    fn a_rule_is_named_by_policy_direction_and_path() {
        let policy = ObjectName::new("shop", "allow-db");
        let name = RuleName::rule(&policy, Direction::Ingress, "spec.ingress[0]");
        assert_eq!(
            json(&name),
            json!({"kind": "NetworkPolicy", "namespace": "shop", "name": "allow-db",
                   "direction": "ingress", "path": "spec.ingress[0]"})
        );
        let others = [
            RuleName::rule(&policy, Direction::Ingress, "spec.ingress[1]"),
            RuleName::rule(&policy, Direction::Egress, "spec.ingress[0]"),
            RuleName::rule(
                &ObjectName::new("shop", "b"),
                Direction::Ingress,
                "spec.ingress[0]",
            ),
            RuleName::rule(
                &ObjectName::new("b", "allow-db"),
                Direction::Ingress,
                "spec.ingress[0]",
            ),
        ];
        assert!(others.iter().all(|other| other.key != name.key));
    }

    #[test]
    fn a_default_lists_all_isolating_policies() {
        let name = isolated(&names(2), Direction::Egress);
        let listed = |i| {
            json!({"kind": "NetworkPolicy", "namespace": "shop",
                                "name": format!("policy-{i}"), "path": "spec.podSelector"})
        };
        assert_eq!(
            json(&name),
            json!({"isolatedBy": [listed(0), listed(1)], "direction": "egress"})
        );
        assert_ne!(name.key, isolated(&names(2), Direction::Ingress).key);
        assert_ne!(name.key, isolated(&names(1), Direction::Egress).key);
    }

    #[test]
    fn a_long_list_is_cut_and_counted_but_keeps_a_key_of_its_own() {
        let (a, b) = (
            isolated(&names(100), Direction::Ingress),
            isolated(&names(101), Direction::Ingress),
        );
        let (json_a, json_b) = (json(&a), json(&b));
        let shown = json_a["isolatedBy"].as_array().unwrap().len();
        assert!(shown > 8);
        assert_eq!(json_a["more"], 100 - shown);
        assert_eq!(json_b["more"], 101 - shown);
        assert_ne!(a.key, b.key);
        let mut other = names(100);
        other[99].name = "another".to_owned();
        assert_ne!(a.key, isolated(&other, Direction::Ingress).key);
    }

    #[test]
    fn a_name_that_no_api_server_accepts_still_fits() {
        let policy = ObjectName::new("shop", "\u{1}".repeat(5000));
        let name = RuleName::rule(&policy, Direction::Ingress, "spec.ingress[0]");
        assert_eq!(json(&name)["namespace"], "shop");
        assert!(json(&name)["name"].as_str().unwrap().len() > 50);
        let default = isolated(&[policy], Direction::Ingress);
        assert_eq!(
            json(&default),
            json!({"isolatedBy": [], "more": 1, "direction": "ingress"})
        );
    }
}
