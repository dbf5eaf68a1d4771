//! Decisions, and what the kernel says, in words.

use serde_json::Value;
use weir_api::verdict::KernelVerdict;
use weir_oracle::{Reason, Report};

use super::report::Kernel;
use crate::rule_words::rule_words;

/// A decision in words.
pub(super) fn words(report: &Report) -> String {
    let decision = &report.decision;
    let by_rule = |does: &str| match &decision.rule {
        Some(rule) => format!("{does} by {rule}"),
        None => format!("{does} by a rule"),
    };
    match decision.reason {
        Reason::Rule if decision.verdict.allowed() => by_rule("allowed"),
        Reason::Rule => by_rule("denied"),
        Reason::Isolated => "denied: isolated, and no rule matches".to_owned(),
        Reason::Pass => format!(
            "allowed: {}, and nothing after it decides",
            by_rule("passed on")
        ),
        Reason::NotSelected if report.steps.is_empty() => {
            "allowed: no policy selects the pod".to_owned()
        }
        Reason::NotSelected => "allowed: no policy decides".to_owned(),
        Reason::NotSubject => "not subject to policies".to_owned(),
        Reason::Reply => "allowed: it answers an allowed connection".to_owned(),
        Reason::Itself => "allowed: a pod reaches itself".to_owned(),
        Reason::OwnNode => "allowed: a node reaches its own pods".to_owned(),
    }
}

/// What the kernel says of an end; nothing where no maps judge.
pub(super) fn kernel_line(kernel: &Kernel) -> Option<String> {
    let line = match kernel {
        Kernel::Agrees(verdict) => format!("agrees ({})", told_of(verdict)),
        Kernel::Disagrees(verdict) => format!(
            "DISAGREES ({}; group {}, class {})",
            told_of(verdict),
            verdict.group,
            verdict.class
        ),
        Kernel::NotAsked(why) => format!("not asked ({why})"),
        Kernel::Exempt => "lets its node's own traffic pass unjudged".to_owned(),
        Kernel::NotSubject => return None,
    };
    Some(format!("  kernel: {line}"))
}

/// The kernel's verdict in words.
pub(super) fn told_of(verdict: &KernelVerdict) -> String {
    told(verdict.allowed, verdict.rule_id, verdict.rule.as_ref())
}

/// A verdict in words, with the rule that the kernel names.
pub(super) fn told(allowed: bool, rule_id: u32, rule: Option<&Value>) -> String {
    let word = if allowed { "allow" } else { "deny" };
    format!("{word}, {}", rule_name(rule_id, rule))
}

/// The rule that the kernel names. The first ids are fixed reasons (`weir_abi::policy::RuleId`).
fn rule_name(rule_id: u32, rule: Option<&Value>) -> String {
    use weir_abi::policy::RuleId;
    match (RuleId(rule_id), rule) {
        (RuleId::NO_ROW, None) => "no row for this peer".to_owned(),
        (RuleId::NOT_SELECTED, None) => "no policy decides".to_owned(),
        (RuleId::SELF, None) => "itself".to_owned(),
        (RuleId(id), rule) => rule
            .and_then(rule_words)
            .unwrap_or_else(|| format!("rule {id}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_kernels_rules_are_worded() {
        let rule = |action: &str, name: Value| {
            json!({"kind": "ClusterNetworkPolicy", "name": "lock", "tier": "Admin", "action": action,
                   "direction": "ingress", "path": "spec.ingress[0]", "rule": name})
        };
        let policy = |name: &str| json!({"kind": "NetworkPolicy", "namespace": "a", "name": name});
        for (allowed, rule_id, rule, words) in [
            (
                false,
                64,
                rule("Deny", Value::Null),
                "deny, Admin lock spec.ingress[0]",
            ),
            (
                true,
                64,
                rule("Accept", json!("x")),
                "allow, Admin lock spec.ingress[0] \"x\"",
            ),
            (
                true,
                64,
                rule("Pass", Value::Null),
                "allow, passed on by Admin lock spec.ingress[0]",
            ),
            (
                true,
                64,
                json!({"kind": "NetworkPolicy", "namespace": "a", "name": "p", "path": "spec.egress[1]"}),
                "allow, a/p spec.egress[1]",
            ),
            (
                false,
                65,
                json!({"isolatedBy": [policy("p"), policy("q"), policy("r")], "more": 1}),
                "deny, isolated by a/p, a/q and 2 more",
            ),
            (true, 1, Value::Null, "allow, no policy decides"),
            (false, 0, Value::Null, "deny, no row for this peer"),
            (true, 2, Value::Null, "allow, itself"),
            (true, 99, Value::Null, "allow, rule 99"),
        ] {
            let verdict = KernelVerdict {
                allowed,
                rule_id,
                rule: (!rule.is_null()).then_some(rule),
                group: 16,
                class: 3,
            };
            assert_eq!(told_of(&verdict), words);
        }
    }
}
