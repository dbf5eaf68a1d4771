//! One file: from text to objects.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::object::{Object, kind_info};
use crate::salvage::{cluster_policy, network_policy};
use crate::value::Value;
use crate::yaml;

const CLUSTER_POLICY: &str = "ClusterNetworkPolicy";
const POLICY_GROUP: &str = "policy.networking.k8s.io";
const POLICY_VERSION: &str = "v1alpha2";

/// Something about a place in a file; shown as `FILE:LINE: TEXT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What there is to say.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.text)
    }
}

/// An object, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// The object. Namespaced ones have a namespace, all have a name.
    pub object: Object,
    /// Its file.
    pub file: PathBuf,
    /// The line its document begins at, from 1.
    pub line: usize,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The objects of kinds that Weir reads, in order.
    pub objects: Vec<Located>,
    /// Documents that do not parse: the file is broken there. The others still count.
    pub errors: Vec<Note>,
    /// What the API server would refuse or what is easily a mistake. An object that is refused is
    /// left out, but a policy is kept so that it isolates or denies (fail closed).
    pub warnings: Vec<Note>,
    /// Kinds and fields that were passed over.
    pub passed_over: Vec<Note>,
}

/// Reads the bytes of a file; `file` is only named, not opened.
pub fn parse_bytes(file: &Path, bytes: &[u8]) -> Parsed {
    let mut objects = Vec::new();
    let parsed = parse_each(file, bytes, |object| objects.push(object));
    Parsed { objects, ..parsed }
}

/// The same, for those who do not want all objects of a large file in memory: each is handed on when
/// it is read, and none is in the result.
pub fn parse_each(file: &Path, bytes: &[u8], mut take: impl FnMut(Located)) -> Parsed {
    match yaml::decode(bytes) {
        Ok(text) => parse_decoded(file, &text, &mut take),
        Err((line, text)) => Parsed {
            errors: vec![Note {
                file: file.to_owned(),
                line,
                text,
            }],
            ..Parsed::default()
        },
    }
}

/// Reads the text of a file; `file` is only named, not opened.
pub fn parse_text(file: &Path, text: &str) -> Parsed {
    parse_bytes(file, text.as_bytes())
}

fn parse_decoded(file: &Path, text: &str, take: &mut impl FnMut(Located)) -> Parsed {
    let mut parser = FileParser {
        file,
        line: 1,
        parsed: Parsed::default(),
    };
    yaml::each_document(text, |document| {
        parser.line = document.line;
        for (line, key) in document.duplicate_keys {
            let text = format!("key {key:?} stands twice in one mapping: the last one counts");
            parser.parsed.warnings.push(parser.note(line, text));
        }
        match document.value {
            Ok(value) => parser.document(value, None),
            Err((line, text)) => {
                let error = parser.note(line, text);
                parser.parsed.errors.push(error);
            }
        }
        parser.parsed.objects.drain(..).for_each(&mut *take);
    });
    parser.parsed
}

struct FileParser<'a> {
    file: &'a Path,
    line: usize,
    parsed: Parsed,
}

impl FileParser<'_> {
    fn note(&self, line: usize, text: String) -> Note {
        Note {
            file: self.file.to_owned(),
            line,
            text,
        }
    }

    fn warn(&mut self, text: String) {
        self.parsed.warnings.push(self.note(self.line, text));
    }

    fn pass_over(&mut self, text: String) {
        self.parsed.passed_over.push(self.note(self.line, text));
    }

    /// One document, or an item of a list; `implied` is what a typed list says of its items.
    fn document(&mut self, value: Value, implied: Option<(&str, &str)>) {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let kind = text("kind").or(implied.map(|(_, kind)| kind));
        let version = text("apiVersion").or(implied.map(|(version, _)| version));
        let (Some(kind), true) = (kind, value.as_object().is_some()) else {
            self.pass_over("a document without kind is no Kubernetes object".to_owned());
            return;
        };
        let (kind, version) = (kind.to_owned(), version.unwrap_or_default().to_owned());
        if let Some(item_kind) = kind.strip_suffix("List")
            && let Some(items) = value.get("items").and_then(Value::as_array)
        {
            let implied = (!item_kind.is_empty()).then_some((version.as_str(), item_kind));
            for item in items {
                self.document(item.clone(), implied);
            }
            return;
        }
        let (group, number) = version.rsplit_once('/').unwrap_or(("", &version));
        if is_unread_policy(&kind, group, number) {
            let text = format!(
                "{kind} of {version} is not read, so it is not enforced: write it as \
                 ClusterNetworkPolicy of {POLICY_GROUP}/{POLICY_VERSION}"
            );
            self.warn(text.clone());
            self.pass_over(text);
            return;
        }
        let Some(info) = kind_info(&kind) else {
            self.pass_over(format!("kind {kind} ({version}) is not needed"));
            return;
        };
        // Before their present groups these kinds lived in `extensions`.
        if group != info.group && group != "extensions" && !version.is_empty() {
            self.pass_over(format!("kind {kind} of {version} is not needed"));
            return;
        }
        let wanted = match info.group {
            "" => info.version.to_owned(),
            group => format!("{group}/{}", info.version),
        };
        if group != info.group || number != info.version {
            self.warn(format!(
                "{kind} of apiVersion {version:?} is read as {wanted}"
            ));
        }
        self.object(&kind, &wanted, info.namespaced, value);
    }

    fn object(&mut self, kind: &str, version: &str, namespaced: bool, mut value: Value) {
        if kind == CLUSTER_POLICY {
            cluster_policy::drop_nulls(&mut value);
        }
        let mut json: serde_json::Value = value.clone().into();
        // Decoding insists on both; items of lists may lack them.
        json["kind"] = kind.into();
        json["apiVersion"] = version.into();
        let decoded = Object::decode(kind, json);
        // Of what does not decode all is said, and readers name what they refuse of the rest.
        let said = kind == CLUSTER_POLICY && decoded.is_err();
        let object = match decoded {
            Ok(object) => Some(object),
            Err(error) => self.refused(kind, &value, &error.to_string()),
        };
        let Some(mut object) = object else { return };
        let metadata = object.metadata_mut();
        if namespaced && metadata.namespace.as_deref().unwrap_or_default().is_empty() {
            metadata.namespace = Some("default".to_owned());
        }
        if metadata.name.as_deref().unwrap_or_default().is_empty() {
            let stem = metadata.generate_name.clone();
            let name = format!(
                "{}{}",
                stem.unwrap_or_else(|| "unnamed-".to_owned()),
                self.line
            );
            metadata.name = Some(name.clone());
            self.warn(format!(
                "{kind} has no metadata.name: it is taken as {name}"
            ));
        }
        if !said {
            self.unknown_fields(&object, &value);
        }
        if !namespaced {
            object.metadata_mut().namespace = None;
        }
        self.parsed.objects.push(Located {
            object,
            file: self.file.to_owned(),
            line: self.line,
        });
    }

    /// What is left of an object that does not decode.
    fn refused(&mut self, kind: &str, value: &Value, error: &str) -> Option<Object> {
        let metadata = value.get("metadata");
        let field = |key| {
            metadata
                .and_then(|m: &Value| m.get(key))
                .and_then(Value::as_str)
        };
        let name = match (field("namespace"), field("name")) {
            (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
            (None, Some(name)) => format!("{kind} {name}"),
            (_, None) => format!("a {kind} without name"),
        };
        let kept = match kind {
            "NetworkPolicy" => Some((
                Object::NetworkPolicy(network_policy::salvage(value)),
                "what does not decode allows nothing",
            )),
            CLUSTER_POLICY => Some((
                Object::ClusterNetworkPolicy(cluster_policy::salvage(value)),
                "what does not decode fails closed",
            )),
            _ => None,
        };
        if let Some((object, cost)) = kept {
            self.warn(format!(
                "{name}: the API server refuses it: {error}; {cost}"
            ));
            return Some(object);
        }
        self.warn(format!(
            "{name}: the API server refuses it: {error}; it is left out"
        ));
        None
    }

    /// Fields that are not known. In a policy that is a warning: a NetworkPolicy's rule whose `from`
    /// is misspelt allows everyone, and a ClusterNetworkPolicy's rule with such a field is refused.
    fn unknown_fields(&mut self, object: &Object, value: &Value) {
        let mut known = object.clone();
        if let Object::ClusterNetworkPolicy(policy) = &mut known {
            // Decoding has kept them.
            cluster_policy::forget_unknown(policy);
        }
        let Ok(known) = known.to_json() else { return };
        let mut fields = Vec::new();
        unknown(value, &known, &mut String::new(), &mut fields);
        let is_policy = matches!(object.kind(), "NetworkPolicy" | CLUSTER_POLICY);
        // What a controller wrote says nothing of what is wanted.
        fields.retain(|field| object.kind() != CLUSTER_POLICY || field != "status");
        for field in fields {
            let text = format!("{}: unknown field {field}", object.key());
            if is_policy {
                self.warn(text.clone());
            }
            self.pass_over(text);
        }
    }
}

/// Whether a policy of this kind is one that somebody counts on and that is not read here.
fn is_unread_policy(kind: &str, group: &str, version: &str) -> bool {
    let other_kind = matches!(kind, "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy");
    group == POLICY_GROUP && (other_kind || (kind == CLUSTER_POLICY && version != POLICY_VERSION))
}

/// Collects the paths of keys that `value` has and `known` has not. Null counts as not there.
fn unknown(value: &Value, known: &serde_json::Value, path: &mut String, fields: &mut Vec<String>) {
    let length = path.len();
    match (value, known) {
        (Value::Object(entries), serde_json::Value::Object(map)) => {
            for (key, value) in entries.iter().filter(|(_, v)| !v.is_null()) {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                match map.get(key) {
                    Some(known) => unknown(value, known, path, fields),
                    None => fields.push(path.clone()),
                }
                path.truncate(length);
            }
        }
        (Value::Array(values), serde_json::Value::Array(list)) => {
            for (i, (value, known)) in values.iter().zip(list).enumerate() {
                path.push_str(&format!("[{i}]"));
                unknown(value, known, path, fields);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
