//! Label selectors.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::refusal::Refusal;

/// The labels of a pod or a namespace.
pub(crate) type Labels = BTreeMap<String, String>;

/// All requirements must hold; none at all selects everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl Requirement {
    /// A label that is missing is not in any list of values (apimachinery `labels.Requirement`).
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.test {
            Test::In(values) => value.is_some_and(|v| values.contains(v)),
            Test::NotIn(values) => !value.is_some_and(|v| values.contains(v)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.test {
            Test::In(values) => match values.as_slice() {
                [one] => write!(f, "{key}={one}"),
                many => write!(f, "{key} in ({})", many.join(",")),
            },
            Test::NotIn(values) => write!(f, "{key} notin ({})", values.join(",")),
            Test::Exists => write!(f, "{key}"),
            Test::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

impl fmt::Display for Selector {
    /// As `kubectl get -l` writes selectors; the empty one is `{}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("{}");
        }
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl Selector {
    /// The selector made of the valid requirements, and what had to be refused.
    pub fn parse(selector: &LabelSelector, path: &str) -> (Self, Vec<Refusal>) {
        let mut requirements = Vec::new();
        let mut refusals = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            let path = format!("{path}.matchLabels");
            let checked = check_key(key).and_then(|()| check_value(value));
            match checked {
                Ok(()) => requirements.push(Requirement {
                    key: key.clone(),
                    test: Test::In(vec![value.clone()]),
                }),
                Err(reason) => refusals.push(Refusal::new(path, reason)),
            }
        }
        for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
            match parse_expression(expression) {
                Ok(requirement) => requirements.push(requirement),
                Err((field, reason)) => refusals.push(Refusal::new(
                    format!("{path}.matchExpressions[{i}].{field}"),
                    reason,
                )),
            }
        }
        (Self { requirements }, refusals)
    }

    /// Whether the labels are selected; the error is the first requirement that does not hold.
    pub fn check(&self, labels: &Labels) -> Result<(), String> {
        match self.requirements.iter().find(|r| !r.holds(labels)) {
            None => Ok(()),
            Some(requirement) => Err(requirement.to_string()),
        }
    }

    /// Whether the labels are selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.check(labels).is_ok()
    }
}

/// The error is (field, reason).
fn parse_expression(
    expression: &LabelSelectorRequirement,
) -> Result<Requirement, (&'static str, String)> {
    check_key(&expression.key).map_err(|e| ("key", e))?;
    let values = expression.values.clone().unwrap_or_default();
    let needs_values = matches!(expression.operator.as_str(), "In" | "NotIn");
    if needs_values && values.is_empty() {
        let reason = format!("{} needs at least one value", expression.operator);
        return Err(("values", reason));
    }
    let test = match expression.operator.as_str() {
        "In" => Test::In(values.clone()),
        "NotIn" => Test::NotIn(values.clone()),
        "Exists" => Test::Exists,
        "DoesNotExist" => Test::DoesNotExist,
        other => {
            let reason = format!("{other:?} is none of In, NotIn, Exists, DoesNotExist");
            return Err(("operator", reason));
        }
    };
    if !needs_values && !values.is_empty() {
        let reason = format!("{} takes no values", expression.operator);
        return Err(("values", reason));
    }
    for value in &values {
        check_value(value).map_err(|e| ("values", e))?;
    }
    Ok(Requirement {
        key: expression.key.clone(),
        test,
    })
}

/// `[prefix/]name`: the prefix a DNS subdomain of at most 253, the name at most 63 characters
/// (apimachinery `IsQualifiedName`).
fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let name_is_good = !name.is_empty() && is_label_text(name);
    if name_is_good && prefix.is_none_or(is_dns_subdomain) {
        Ok(())
    } else {
        Err(format!("{key:?} is no label key"))
    }
}

/// Empty, or like the name in a key (apimachinery `IsValidLabelValue`).
fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_label_text(value) {
        Ok(())
    } else {
        Err(format!("{value:?} is no label value"))
    }
}

/// At most 63 letters, digits, `-`, `_`, `.`; first and last a letter or digit.
fn is_label_text(text: &str) -> bool {
    let alphanumeric_at = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= 63
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && alphanumeric_at(text.bytes().next())
        && alphanumeric_at(text.bytes().last())
}

fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: serde_json::Value) -> (Selector, Vec<Refusal>) {
        Selector::parse(&serde_json::from_value(value).unwrap(), "spec.podSelector")
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn expression(operator: &str, values: &[&str]) -> serde_json::Value {
        json!({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]})
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        let (selector, refusals) = parse(json!({}));
        assert!(refusals.is_empty());
        assert!(selector.matches(&labels(&[])));
        assert_eq!(selector.to_string(), "{}");
    }

    #[test]
    fn every_operator_says_what_it_says_of_present_other_and_missing_labels() {
        for (operator, values, present, other, missing) in [
            ("In", &["web", "api"][..], true, false, false),
            ("NotIn", &["web", "api"][..], false, true, true),
            ("Exists", &[][..], true, true, false),
            ("DoesNotExist", &[][..], false, false, true),
        ] {
            let (selector, refusals) = parse(expression(operator, values));
            assert!(refusals.is_empty(), "{operator}");
            assert_eq!(
                selector.matches(&labels(&[("app", "web")])),
                present,
                "{operator}"
            );
            assert_eq!(
                selector.matches(&labels(&[("app", "db")])),
                other,
                "{operator}"
            );
            assert_eq!(
                selector.matches(&labels(&[("tier", "web")])),
                missing,
                "{operator}"
            );
        }
    }

    #[test]
    fn labels_and_expressions_must_all_hold() {
        let (selector, _) = parse(json!({
            "matchLabels": {"app": "web", "tier": "front"},
            "matchExpressions": [{"key": "canary", "operator": "DoesNotExist"}],
        }));
        assert!(selector.matches(&labels(&[("app", "web"), ("tier", "front")])));
        assert!(!selector.matches(&labels(&[("app", "web")])));
        assert!(!selector.matches(&labels(&[
            ("app", "web"),
            ("tier", "front"),
            ("canary", "")
        ])));
        assert_eq!(selector.to_string(), "app=web,tier=front,!canary");
    }

    #[test]
    fn an_empty_value_is_a_value() {
        let (selector, refusals) = parse(json!({"matchLabels": {"app": ""}}));
        assert!(refusals.is_empty());
        assert!(selector.matches(&labels(&[("app", "")])));
        assert!(!selector.matches(&labels(&[])));
    }

    #[test]
    fn refused_parts_are_named_by_field() {
        for (value, path) in [
            (expression("in", &["web"]), "matchExpressions[0].operator"),
            (expression("", &["web"]), "matchExpressions[0].operator"),
            (expression("In", &[]), "matchExpressions[0].values"),
            (expression("NotIn", &[]), "matchExpressions[0].values"),
            (expression("Exists", &["web"]), "matchExpressions[0].values"),
            (
                expression("DoesNotExist", &["web"]),
                "matchExpressions[0].values",
            ),
            (expression("In", &["a/b"]), "matchExpressions[0].values"),
            (json!({"matchLabels": {"app": "-web"}}), "matchLabels"),
            (
                json!({"matchLabels": {"app": "w".repeat(64)}}),
                "matchLabels",
            ),
            (json!({"matchLabels": {"a b": "web"}}), "matchLabels"),
            (json!({"matchLabels": {"/app": "web"}}), "matchLabels"),
            (
                json!({"matchLabels": {"Example.com/app": "web"}}),
                "matchLabels",
            ),
            (
                json!({"matchLabels": {"example.com/": "web"}}),
                "matchLabels",
            ),
        ] {
            let (_, refusals) = parse(value.clone());
            assert_eq!(refusals.len(), 1, "{value}");
            assert_eq!(
                refusals[0].path,
                format!("spec.podSelector.{path}"),
                "{value}"
            );
        }
    }

    #[test]
    fn the_valid_part_of_a_selector_is_kept() {
        let (selector, refusals) = parse(json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "app", "operator": "Is", "values": ["web"]}],
        }));
        assert_eq!(refusals.len(), 1);
        assert!(selector.matches(&labels(&[("app", "web")])));
        assert!(!selector.matches(&labels(&[("app", "db")])));
    }

    #[test]
    fn keys_with_a_prefix_are_accepted() {
        let key = "app.kubernetes.io/name";
        let (selector, refusals) = parse(json!({"matchLabels": {key: "web"}}));
        assert!(refusals.is_empty());
        assert!(selector.matches(&labels(&[(key, "web")])));
    }
}
