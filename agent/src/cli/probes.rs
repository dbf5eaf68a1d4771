//! The probes of `weir policy test`: a list, bare or under `probes`, in YAML or JSON.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use weir_manifests::{Value, yaml};

use super::question::Question;

/// A probe: its own keys, and what they mean.
pub(super) struct Probe {
    /// As it was written, in order.
    pub keys: Vec<(String, Value)>,
    /// The question; the error is what is wrong with the probe.
    pub question: Result<Question, String>,
    /// What it expects.
    pub allow: Option<bool>,
}

/// Reads a file; `-` is standard input.
pub(super) fn load(path: &Path) -> anyhow::Result<Vec<Probe>> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin()
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
        bytes
    } else {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?
    };
    parse(path, &bytes)
}

fn parse(path: &Path, bytes: &[u8]) -> anyhow::Result<Vec<Probe>> {
    let place = |line: usize, text: String| anyhow::anyhow!("{}:{line}: {text}", path.display());
    let text = yaml::decode(bytes).map_err(|(line, e)| place(line, e))?;
    let mut probes = Vec::new();
    let mut found_list = false;
    for document in yaml::documents(&text) {
        let value = document.value.map_err(|(line, e)| place(line, e))?;
        if let Some((line, key)) = document.duplicate_keys.first() {
            return Err(place(*line, format!("key {key:?} stands twice")));
        }
        let under_key = value.get("probes").cloned();
        match under_key.unwrap_or(value) {
            Value::Array(list) => {
                found_list = true;
                probes.extend(list.into_iter().map(probe));
            }
            _ => {
                let wanted = "probes are a list, bare or under the key probes";
                return Err(place(document.line, wanted.to_owned()));
            }
        }
    }
    if !found_list {
        bail!("{} holds no list of probes", path.display());
    }
    Ok(probes)
}

fn probe(value: Value) -> Probe {
    let Value::Object(keys) = value else {
        return Probe {
            keys: Vec::new(),
            question: Err("a probe is a mapping of from, to, port, protocol, allow".to_owned()),
            allow: None,
        };
    };
    let (allow, wrong_allow) = match keys.iter().find(|(key, _)| key == "allow") {
        None | Some((_, Value::Null)) => (None, None),
        Some((_, Value::Bool(allow))) => (Some(*allow), None),
        Some(_) => (None, Some("allow is neither true nor false".to_owned())),
    };
    let question = match wrong_allow {
        Some(wrong) => Err(wrong),
        None => question(&keys),
    };
    Probe {
        keys,
        question,
        allow,
    }
}

fn question(keys: &[(String, Value)]) -> Result<Question, String> {
    let text = |name: &str| match keys.iter().find(|(key, _)| key == name) {
        None | Some((_, Value::Null)) => Ok(None),
        Some((_, Value::String(text))) => Ok(Some(text.clone())),
        Some((_, Value::Number(number))) if name == "port" => Ok(Some(number.to_string())),
        Some(_) if name == "port" => Err("port is neither a number nor a name".to_owned()),
        Some(_) => Err(format!("{name} is no text")),
    };
    let needed = |name: &str| text(name)?.ok_or_else(|| format!("{name} is missing"));
    Ok(Question {
        from: needed("from")?,
        to: needed("to")?,
        port: text("port")?,
        protocol: text("protocol")?,
        family: text("family")?,
        state: text("state")?,
        backend: text("backend")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> anyhow::Result<Vec<Probe>> {
        parse(Path::new("p.yaml"), text.as_bytes())
    }

    #[test]
    fn a_list_may_stand_bare_or_under_probes_in_yaml_or_json() {
        for text in [
            "- {from: a, to: b, port: 80}\n",
            "probes:\n- from: a\n  to: b\n  port: 80\n",
            r#"[{"from": "a", "to": "b", "port": 80}]"#,
            r#"{"probes": [{"from": "a", "to": "b", "port": "80"}]}"#,
        ] {
            let probes = parsed(text).unwrap();
            assert_eq!(probes.len(), 1, "{text}");
            let question = probes[0].question.as_ref().unwrap();
            assert_eq!((question.from.as_str(), question.to.as_str()), ("a", "b"));
            assert_eq!(question.port.as_deref(), Some("80"));
        }
    }

    #[test]
    fn what_is_no_list_is_named_by_file_and_line() {
        for (text, wanted) in [
            ("\n---\nprobes: 3\n", "p.yaml:3: "),
            ("- from: a\n- {from: [\n", "p.yaml:"),
            (
                "- from: a\n  from: b\n",
                "p.yaml:2: key \"from\" stands twice",
            ),
            ("", "holds no list"),
        ] {
            let error = parsed(text).err().unwrap().to_string();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_wrong_probe_does_not_spoil_the_others() {
        let probes = parsed(
            "- 3\n- {to: b}\n- {from: a, to: b, allow: 'true'}\n- {from: a, to: b, port: [1]}\n\
             - {from: a, to: b, family: 4}\n- {from: a, to: b, allow: yes}\n- {from: a, to: b, allow: ~}\n",
        )
        .unwrap();
        let errors: Vec<_> = probes.iter().map(|p| p.question.as_ref().err()).collect();
        let text = |i: usize| errors[i].unwrap().as_str();
        assert!(text(0).contains("mapping"));
        assert_eq!(text(1), "from is missing");
        assert_eq!(text(2), "allow is neither true nor false");
        assert_eq!(text(3), "port is neither a number nor a name");
        assert_eq!(text(4), "family is no text");
        assert_eq!((errors[5], probes[5].allow), (None, Some(true)));
        assert_eq!((errors[6], probes[6].allow), (None, None));
    }
}
