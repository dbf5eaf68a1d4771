//! From the text of a manifest to objects.

use std::path::Path;

use super::merge::Parsed;
use crate::state::Object;

/// Parses a file of one or more documents.
pub(super) fn parse(path: &Path, text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    match serde_saphyr::from_multiple::<serde_json::Value>(text) {
        Ok(documents) => {
            for document in documents {
                match object(document) {
                    Ok(object) => parsed.objects.extend(object),
                    Err(e) => parsed.errors.push(format!("{}: {e}", path.display())),
                }
            }
        }
        Err(e) => parsed.errors.push(format!("{}: {e}", path.display())),
    }
    parsed
}

fn object(value: serde_json::Value) -> Result<Vec<Object>, serde_json::Error> {
    let one = match value["kind"].as_str() {
        Some("Namespace") => Object::Namespace(serde_json::from_value(value)?),
        Some("Node") => Object::Node(serde_json::from_value(value)?),
        Some("Pod") => Object::Pod(serde_json::from_value(value)?),
        Some("Service") => Object::Service(serde_json::from_value(value)?),
        Some("EndpointSlice") => Object::EndpointSlice(serde_json::from_value(value)?),
        Some("NetworkPolicy") => Object::NetworkPolicy(serde_json::from_value(value)?),
        Some("List") => {
            let items = value["items"].as_array().cloned().unwrap_or_default();
            let items: Result<Vec<_>, _> = items.into_iter().map(object).collect();
            return Ok(items?.concat());
        }
        _ => return Ok(Vec::new()),
    };
    Ok(vec![one])
}
