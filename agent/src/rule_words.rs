//! Rules as `RULES` has them, in words.

use serde_json::Value;

/// Most policies that are named in one line.
const MOST_NAMES: usize = 2;

/// A rule as `RULES` has it, in words.
pub(crate) fn rule_words(rule: &Value) -> Option<String> {
    let text = |key: &str| rule.get(key).and_then(Value::as_str);
    if let Some(name) = policy_name(rule) {
        let path = text("path").map(|p| format!(" {p}")).unwrap_or_default();
        let own = text("rule").map(|r| format!(" {r:?}")).unwrap_or_default();
        let does = match text("action") {
            Some("Pass") => "passed on by ",
            _ => "",
        };
        return Some(format!("{does}{name}{path}{own}"));
    }
    let list = rule.get("isolatedBy")?.as_array()?;
    let names: Vec<String> = list.iter().filter_map(policy_name).collect();
    let more = rule.get("more").and_then(Value::as_u64);
    let total = list.len() as u64 + more.unwrap_or(0);
    let shown = &names[..names.len().min(MOST_NAMES)];
    let rest = total - shown.len() as u64;
    Some(match (shown, rest) {
        ([], n) => format!("isolated by {n} policies"),
        (shown, 0) => format!("isolated by {}", shown.join(", ")),
        (shown, n) => format!("isolated by {} and {n} more", shown.join(", ")),
    })
}

/// `namespace/name`, or `Admin name` of a ClusterNetworkPolicy.
fn policy_name(rule: &Value) -> Option<String> {
    let name = rule.get("name")?.as_str()?;
    let text = |key: &str| rule.get(key).and_then(Value::as_str);
    Some(match (text("tier"), text("namespace")) {
        (Some(tier), _) => format!("{tier} {name}"),
        (None, Some(namespace)) => format!("{namespace}/{name}"),
        (None, None) => name.to_owned(),
    })
}
