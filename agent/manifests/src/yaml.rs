//! YAML and JSON text to values, document by document.
//!
//! Documents are cut at `---` lines before they are parsed, as kubectl does it: what is wrong with
//! one does not reach the others.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Tag};
use serde::de::DeserializeSeed as _;

use crate::scalar;
use crate::value::{Reader, Value};

/// Values that aliases may add to one document; beyond lies a "billion laughs".
const MAX_ALIASED: usize = 1_000_000;
/// How deep values may be nested.
const MAX_DEPTH: usize = 200;

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Where it begins, counted from 1.
    pub line: usize,
    /// What it holds; the error is where it stopped parsing, and why.
    pub value: Result<Value, (usize, String)>,
    /// Keys that stand twice in one mapping: line and key. The last one counts.
    pub duplicate_keys: Vec<(usize, String)>,
}

/// The text of a file: UTF-8, or UTF-16 with a byte order mark (as PowerShell writes it). Line ends
/// become `\n`.
///
/// # Errors
/// The line (from 1) where it is neither, and why.
pub fn decode(bytes: &[u8]) -> Result<String, (usize, String)> {
    let wide = |big: bool| {
        let units = bytes[2..].chunks(2).map(|pair| match (pair, big) {
            ([a, b], true) => u16::from_be_bytes([*a, *b]),
            ([a, b], false) => u16::from_le_bytes([*a, *b]),
            // Half a character at the end.
            _ => 0xdfff,
        });
        char::decode_utf16(units).collect::<Result<String, _>>()
    };
    let text = match bytes {
        [0xff, 0xfe, ..] => wide(false).map_err(|e| (1, format!("is no UTF-16: {e}")))?,
        [0xfe, 0xff, ..] => wide(true).map_err(|e| (1, format!("is no UTF-16: {e}")))?,
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(e) => {
                let before = &bytes[..e.valid_up_to()];
                let line = 1 + before.iter().filter(|b| **b == b'\n').count();
                return Err((line, "is no UTF-8 text".to_owned()));
            }
        },
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.replace("\r\n", "\n"))
}

/// All documents of a text that [`decode`] made, the empty ones left out.
pub fn documents(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    each_document(text, |document| documents.push(document));
    documents
}

/// Hands on one document after the other, as [`documents`] has them.
pub(crate) fn each_document(text: &str, mut take: impl FnMut(Document)) {
    if text.trim_start().starts_with(['{', '['])
        && let Ok(documents) = json_documents(text)
    {
        return documents.into_iter().for_each(take);
    }
    for (line, part) in split(text) {
        let mut documents = Vec::new();
        match plain_json(part, line) {
            Some(document) => documents.push(document),
            None => parse_part(part, line, &mut documents),
        }
        documents.into_iter().for_each(&mut take);
    }
}

/// A part that is one JSON object, which is read many times as fast as JSON. `None` also if YAML
/// says more of it, or may read it in another way.
fn plain_json(part: &str, first_line: usize) -> Option<Document> {
    let after = part.strip_prefix("---").unwrap_or(part);
    let text = after.trim_start();
    if !text.starts_with('{') {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Reader::Plain.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    let blank = &after[..after.len() - text.len()];
    Some(Document {
        line: first_line + blank.matches('\n').count(),
        value: Ok(value),
        duplicate_keys: Vec::new(),
    })
}

/// One JSON value after the other.
fn json_documents(text: &str) -> Result<Vec<Document>, serde_json::Error> {
    let mut documents = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut start = 0;
    while let Some(value) = stream.next() {
        let blank = text[start..].len() - text[start..].trim_start().len();
        documents.push(Document {
            line: 1 + text[..start + blank].matches('\n').count(),
            value: Ok(value?),
            duplicate_keys: Vec::new(),
        });
        start = stream.byte_offset();
    }
    Ok(documents)
}

/// The parts between `---` lines, each with the line (from 1) it begins at. A part begins with its
/// `---`; directives stay with the document they belong to.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut only_directives = true;
    let mut has_directive = false;
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.strip_prefix("---");
        let separates = rest.is_some_and(|r| r.is_empty() || r.starts_with(char::is_whitespace));
        if separates {
            if !(only_directives && has_directive) {
                parts.push((start_line, &text[start..offset]));
                (start, start_line) = (offset, number + 1);
            }
            (only_directives, has_directive) = (false, false);
        } else if line.trim_end() == "..." {
            // Directives may follow.
            (only_directives, has_directive) = (true, false);
        } else {
            let content = line.trim();
            has_directive |= line.starts_with('%') && only_directives;
            only_directives &=
                content.is_empty() || content.starts_with('#') || line.starts_with('%');
        }
        offset += line.len();
    }
    parts.push((start_line, &text[start..]));
    parts
}

/// Parses one part; usually one document, more if it uses `...`.
fn parse_part(part: &str, first_line: usize, documents: &mut Vec<Document>) {
    // As libyaml, which Kubernetes' parser is a port of, reads the last line of a file.
    let options = granit_parser::options! { block_scalar_eof_without_line_feed: true };
    let mut parser = Parser::new_from_str_with_options(part, options);
    let mut builder = Builder::default();
    let mut begin = first_line;
    while let Some(event) = parser.next_event() {
        let result = match event {
            Ok((Event::DocumentStart(..), span)) => {
                builder = Builder::default();
                begin = first_line + span.start.line().saturating_sub(1);
                Ok(())
            }
            Ok((Event::DocumentEnd, _)) => {
                let done = std::mem::take(&mut builder);
                let value = done.root.unwrap_or(Value::Null);
                if !value.is_null() {
                    documents.push(Document {
                        line: begin,
                        value: Ok(value),
                        duplicate_keys: done.duplicate_keys,
                    });
                }
                Ok(())
            }
            Ok((event, span)) => {
                let line = first_line + span.start.line().saturating_sub(1);
                if event.is_node() && builder.is_empty() {
                    begin = line;
                }
                builder.event(event, line).map_err(|e| (line, e))
            }
            Err(error) => Err(located(&error, first_line)),
        };
        if let Err(error) = result {
            documents.push(Document {
                line: begin,
                value: Err(error),
                duplicate_keys: Vec::new(),
            });
            return;
        }
    }
}

fn located(error: &ScanError, first_line: usize) -> (usize, String) {
    let line = first_line + error.marker().line().saturating_sub(1);
    (line, error.info())
}

/// Builds one document's value out of events.
#[derive(Default)]
struct Builder {
    root: Option<Value>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Value>,
    aliased: usize,
    duplicate_keys: Vec<(usize, String)>,
}

enum Frame {
    List {
        elements: Vec<Value>,
        anchor: usize,
    },
    Map {
        entries: Vec<(String, Value)>,
        index: HashMap<String, usize>,
        /// Values of `<<` keys.
        merges: Vec<Value>,
        key: Option<Key>,
        anchor: usize,
    },
}

enum Key {
    Name(String),
    Merge,
}

/// A finished value, and whether it is an unquoted `<<`.
struct Node {
    value: Value,
    is_merge: bool,
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Self {
            value,
            is_merge: false,
        }
    }
}

impl Builder {
    /// Whether nothing was read yet.
    fn is_empty(&self) -> bool {
        self.root.is_none() && self.stack.is_empty()
    }

    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let is_merge = plain && tag.is_none() && text == "<<";
                let value = scalar_value(&text, plain, tag.as_deref())?;
                self.define(anchor, &value);
                self.finish(Node { value, is_merge }, line)
            }
            Event::SequenceStart(_, anchor, _) => self.push(Frame::List {
                elements: Vec::new(),
                anchor,
            }),
            Event::MappingStart(_, anchor, _) => self.push(Frame::Map {
                entries: Vec::new(),
                index: HashMap::new(),
                merges: Vec::new(),
                key: None,
                anchor,
            }),
            Event::SequenceEnd | Event::MappingEnd => {
                let (value, anchor) = match self.stack.pop() {
                    Some(Frame::List { elements, anchor }) => (Value::Array(elements), anchor),
                    Some(Frame::Map {
                        entries,
                        index,
                        merges,
                        anchor,
                        ..
                    }) => (merge(entries, index, merges)?, anchor),
                    None => return Err("ends what it did not begin".to_owned()),
                };
                self.define(anchor, &value);
                self.finish(value.into(), line)
            }
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned();
                let value = value.ok_or("an alias stands inside what it names")?;
                self.aliased += value.size();
                if self.aliased > MAX_ALIASED {
                    return Err(format!("aliases stand for more than {MAX_ALIASED} values"));
                }
                self.finish(value.into(), line)
            }
            // Comments and the frame of the stream say nothing.
            _ => Ok(()),
        }
    }

    fn push(&mut self, frame: Frame) -> Result<(), String> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(format!("is nested deeper than {MAX_DEPTH}"));
        }
        self.stack.push(frame);
        Ok(())
    }

    fn define(&mut self, anchor: usize, value: &Value) {
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
    }

    /// Hands a finished value to what holds it.
    fn finish(&mut self, node: Node, line: usize) -> Result<(), String> {
        match self.stack.last_mut() {
            None => self.root = Some(node.value),
            Some(Frame::List { elements, .. }) => elements.push(node.value),
            Some(Frame::Map {
                entries,
                index,
                merges,
                key,
                ..
            }) => match key.take() {
                None if node.is_merge => *key = Some(Key::Merge),
                None => *key = Some(Key::Name(key_name(node.value)?)),
                Some(Key::Merge) => merges.push(node.value),
                Some(Key::Name(name)) => match index.get(&name) {
                    Some(at) => {
                        entries[*at].1 = node.value;
                        self.duplicate_keys.push((line, name));
                    }
                    None => {
                        index.insert(name.clone(), entries.len());
                        entries.push((name, node.value));
                    }
                },
            },
        }
        Ok(())
    }
}

/// Adds what `<<` brings; keys of the mapping itself win, then those of the first merged.
fn merge(
    mut entries: Vec<(String, Value)>,
    mut index: HashMap<String, usize>,
    merges: Vec<Value>,
) -> Result<Value, String> {
    let sources = merges.into_iter().flat_map(|value| match value {
        Value::Array(list) => list,
        other => vec![other],
    });
    for source in sources {
        let Value::Object(source) = source else {
            return Err("<< takes a mapping or a list of mappings".to_owned());
        };
        for (key, value) in source {
            if !index.contains_key(&key) {
                index.insert(key.clone(), entries.len());
                entries.push((key, value));
            }
        }
    }
    Ok(Value::Object(entries))
}

/// JSON has only text as keys: sigs.k8s.io/yaml writes out booleans and numbers.
fn key_name(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(b) => Ok(b.to_string()),
        Value::Number(n) => Ok(n.to_string()),
        Value::Null => Ok("null".to_owned()),
        Value::Array(_) | Value::Object(_) => Err("a list or mapping is used as a key".to_owned()),
    }
}

fn scalar_value(text: &str, plain: bool, tag: Option<&Tag>) -> Result<Value, String> {
    let core = tag.and_then(Tag::core_suffix);
    match core {
        Some("str" | "binary" | "timestamp") => Ok(Value::String(text.to_owned())),
        Some("null") => Ok(Value::Null),
        Some(kind @ ("bool" | "int" | "float")) => {
            let value = scalar::resolve(text);
            let fits = match value {
                Value::Bool(_) => kind == "bool",
                Value::Number(_) => kind != "bool",
                _ => false,
            };
            if fits {
                Ok(value)
            } else {
                Err(format!("{text:?} is no {kind}"))
            }
        }
        _ if plain => Ok(scalar::resolve(text)),
        _ => Ok(Value::String(text.to_owned())),
    }
}
