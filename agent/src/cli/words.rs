//! Decisions, and what the kernel says, in words.

use weir_api::verdict::KernelVerdict;
use weir_oracle::{Decision, Reason};

use super::report::Kernel;

/// Most policies that are named in one line.
pub(super) const MOST_NAMES: usize = 2;

/// A decision in words.
pub(super) fn words(decision: &Decision) -> String {
    match (decision.reason, &decision.rule) {
        (Reason::Rule, Some(rule)) => format!("allowed by {rule}"),
        (Reason::Isolated, _) => "denied: isolated, and no rule matches".to_owned(),
        (Reason::NotSelected, _) => "allowed: no policy selects the pod".to_owned(),
        (Reason::NotSubject, _) => "not subject to policies".to_owned(),
        (Reason::Reply, _) => "allowed: it answers an allowed connection".to_owned(),
        (Reason::Itself, _) => "allowed: a pod reaches itself".to_owned(),
        (Reason::OwnNode, _) => "allowed: a node reaches its own pods".to_owned(),
        (Reason::Rule, None) => "allowed by a rule".to_owned(),
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
pub(super) fn told(allowed: bool, rule_id: u32, rule: Option<&serde_json::Value>) -> String {
    let word = if allowed { "allow" } else { "deny" };
    format!("{word}, {}", rule_name(rule_id, rule))
}

/// The rule that the kernel names. The first ids are fixed reasons (`weir_abi::policy::RuleId`).
fn rule_name(rule_id: u32, rule: Option<&serde_json::Value>) -> String {
    use weir_abi::policy::RuleId;
    let list = rule.and_then(|rule| rule.get("isolatedBy")?.as_array());
    match (RuleId(rule_id), rule.and_then(policy_name), list) {
        (_, Some(name), _) => {
            let path = rule.and_then(|rule| rule.get("path")?.as_str());
            let path = path.map(|p| format!(" {p}")).unwrap_or_default();
            format!("{name}{path}")
        }
        (_, None, Some(list)) => {
            let names: Vec<String> = list.iter().filter_map(policy_name).collect();
            let more = rule.and_then(|rule| rule.get("more")?.as_u64());
            let total = list.len() as u64 + more.unwrap_or(0);
            let shown = &names[..names.len().min(MOST_NAMES)];
            let rest = total - shown.len() as u64;
            match (shown, rest) {
                ([], n) => format!("isolated by {n} policies"),
                (shown, 0) => format!("isolated by {}", shown.join(", ")),
                (shown, n) => format!("isolated by {} and {n} more", shown.join(", ")),
            }
        }
        (RuleId::NO_ROW, None, None) => "no row for this peer".to_owned(),
        (RuleId::NOT_SELECTED, None, None) => "no policy".to_owned(),
        (RuleId::SELF, None, None) => "itself".to_owned(),
        (RuleId(id), None, None) => format!("rule {id}"),
    }
}

/// `namespace/name`.
fn policy_name(rule: &serde_json::Value) -> Option<String> {
    let name = rule.get("name")?.as_str()?;
    let namespace = rule.get("namespace").and_then(|n| n.as_str());
    let namespace = namespace.map(|n| format!("{n}/")).unwrap_or_default();
    Some(format!("{namespace}{name}"))
}
