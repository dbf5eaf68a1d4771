//! Policies that do not decode: leaving them out would open what they close.
//!
//! Each part that decodes is kept; each that does not is replaced by something that every reader of
//! policies refuses in the same place.

pub(crate) mod cluster_policy;
pub(crate) mod network_policy;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use serde::de::DeserializeOwned;

use crate::value::Value;

fn decode<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone().into()).ok()
}

fn meta(value: &Value) -> ObjectMeta {
    let text = |key| value.get(key).and_then(Value::as_str).map(str::to_owned);
    decode(value).unwrap_or_else(|| ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        ..ObjectMeta::default()
    })
}

/// A selector that does not decode gets a requirement that no reader accepts.
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

/// The rules; `refused` stands for one that does not decode, and for a list that is none.
fn each<T: DeserializeOwned>(rules: &Value, refused: impl Fn(&Value) -> T) -> Vec<T> {
    match rules.as_array() {
        Some(rules) => rules
            .iter()
            .map(|rule| decode(rule).unwrap_or_else(|| refused(rule)))
            .collect(),
        None if rules.is_null() => Vec::new(),
        None => vec![refused(rules)],
    }
}
