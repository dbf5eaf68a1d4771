//! `--print-config`.

use super::layers::{ConfigError, Layers};

/// A YAML file that would give the same configuration, each line with its origin.
pub(super) fn render(layers: &Layers, error: Option<&ConfigError>) -> String {
    let mut out = String::new();
    for (key, value) in layers.iter() {
        match value {
            Some(value) => {
                let quoted = serde_json::Value::from(value.text.as_str());
                out += &format!("{}: {quoted} # {}\n", key.name, value.origin);
            }
            None => out += &format!("# {}: not set\n", key.name),
        }
    }
    if let Some(error) = error {
        out += &format!("# this does not make a configuration: {error}\n");
    }
    out
}
