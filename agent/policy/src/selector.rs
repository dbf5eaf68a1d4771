//! Label selectors.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::hash::ContentHasher;

/// The labels of a pod or a namespace.
pub(crate) type Labels = BTreeMap<String, String>;

/// All requirements must hold. They are sorted, so that selectors that say the same in another
/// order are equal.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, without duplicates; empty for the operators that take none.
    values: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// A field that cannot be used: where it is, below the selector, and why.
pub(crate) type Refusal = (String, String);

impl Selector {
    /// The selector made of the requirements that are valid, and what is not.
    pub fn parse(selector: &LabelSelector) -> (Self, Vec<Refusal>) {
        let mut requirements = Vec::new();
        let mut refusals = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            match check_key(key).and_then(|()| check_value(value)) {
                Ok(()) => requirements.push(Requirement {
                    key: key.clone(),
                    operator: Operator::In,
                    values: vec![value.clone()],
                }),
                Err(reason) => refusals.push(("matchLabels".to_owned(), reason)),
            }
        }
        for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
            match requirement(expression) {
                Ok(requirement) => requirements.push(requirement),
                Err((field, reason)) => {
                    refusals.push((format!("matchExpressions[{i}].{field}"), reason));
                }
            }
        }
        requirements.sort();
        requirements.dedup();
        (Self { requirements }, refusals)
    }

    /// Whether the labels are selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|r| r.holds(labels))
    }

    /// Whether it requires nothing.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// A label that everything selected has, if there is one that the selector spells out.
    pub fn required_label(&self) -> Option<(&str, &str)> {
        self.requirements
            .iter()
            .find_map(|r| match (r.operator, r.values.as_slice()) {
                (Operator::In, [value]) => Some((r.key.as_str(), value.as_str())),
                _ => None,
            })
    }

    pub fn hash(&self, hasher: &mut ContentHasher) {
        hasher.number(self.requirements.len() as u64);
        for requirement in &self.requirements {
            hasher.text(&requirement.key);
            hasher.number(requirement.operator as u64);
            hasher.number(requirement.values.len() as u64);
            for value in &requirement.values {
                hasher.text(value);
            }
        }
    }
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.binary_search(value).is_ok());
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// The error is (field, reason).
fn requirement(
    expression: &LabelSelectorRequirement,
) -> Result<Requirement, (&'static str, String)> {
    check_key(&expression.key).map_err(|reason| ("key", reason))?;
    let operator = match expression.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => {
            let reason = format!("{other:?} is none of In, NotIn, Exists and DoesNotExist");
            return Err(("operator", reason));
        }
    };
    let mut values = expression.values.clone().unwrap_or_default();
    let name = &expression.operator;
    match (operator, values.is_empty()) {
        (Operator::In | Operator::NotIn, true) => {
            return Err(("values", format!("must not be empty with {name}")));
        }
        (Operator::Exists | Operator::DoesNotExist, false) => {
            return Err(("values", format!("must be empty with {name}")));
        }
        _ => {}
    }
    for value in &values {
        check_value(value).map_err(|reason| ("values", reason))?;
    }
    values.sort();
    values.dedup();
    Ok(Requirement {
        key: expression.key.clone(),
        operator,
        values,
    })
}

/// A qualified name: `[DNS subdomain/]name` (apimachinery, `IsQualifiedName`).
fn check_key(key: &str) -> Result<(), String> {
    let good = match key.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_name(name),
        None => is_name(key),
    };
    good.then_some(())
        .ok_or_else(|| format!("{key:?} is not a valid label key"))
}

/// Empty or a name (apimachinery, `IsValidLabelValue`).
fn check_value(value: &str) -> Result<(), String> {
    let good = value.is_empty() || is_name(value);
    good.then_some(())
        .ok_or_else(|| format!("{value:?} is not a valid label value"))
}

/// 1 to 63 of letters, digits, `-_.`, a letter or digit at both ends.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    let inner = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
    bytes.len() <= 63
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(inner)
}

/// At most 253 characters, in parts of lower-case letters, digits and inner dashes.
fn is_dns_subdomain(text: &str) -> bool {
    let part_is_good = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(inner)
    };
    text.len() <= 253 && text.split('.').all(part_is_good)
}

#[cfg(test)]
mod tests;
