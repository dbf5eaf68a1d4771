//! A YAML or JSON value that keeps the order of keys.

use std::collections::HashMap;
use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Number;

/// A value as JSON knows them; an object's keys keep the order of the input.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text.
    String(String),
    /// A list.
    Array(Vec<Value>),
    /// Keys and values; no key twice.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The value of a key, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object()?
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v)
    }

    /// The entries, if this is an object.
    pub fn as_object(&self) -> Option<&[(String, Value)]> {
        match self {
            Self::Object(entries) => Some(entries),
            _ => None,
        }
    }

    /// The elements, if this is a list.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether this is null.
    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// How many values it is made of.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Array(elements) => 1 + elements.iter().map(Self::size).sum::<usize>(),
            Self::Object(entries) => 1 + entries.iter().map(|(_, v)| v.size()).sum::<usize>(),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => 1,
        }
    }
}

impl From<Value> for serde_json::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(b),
            Value::Number(n) => Self::Number(n),
            Value::String(s) => Self::String(s),
            Value::Array(list) => Self::Array(list.into_iter().map(Self::from).collect()),
            Value::Object(map) => {
                Self::Object(map.into_iter().map(|(k, v)| (k, Self::from(v))).collect())
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(b) => b.serialize(serializer),
            Self::Number(n) => n.serialize(serializer),
            Self::String(s) => s.serialize(serializer),
            Self::Array(list) => list.serialize(serializer),
            Self::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Reader::AsJson.deserialize(deserializer)
    }
}

/// Reads a value of JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reader {
    /// As Go's JSON decoder does: of a key that stands twice the last one counts.
    AsJson,
    /// Only what means the same if it is read as YAML, with nothing to say of it.
    Plain,
}

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<Value, E> {
        Ok(Value::Number(n.into()))
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Value, E> {
        Ok(Value::Number(n.into()))
    }

    fn visit_f64<E: de::Error>(self, n: f64) -> Result<Value, E> {
        match (self, Number::from_f64(n)) {
            (Self::AsJson, Some(number)) => Ok(Value::Number(number)),
            (Self::AsJson, None) => Err(E::custom("a number that JSON cannot hold")),
            (Self::Plain, _) => Err(E::custom("a number that YAML may read in another way")),
        }
    }

    fn visit_str<E: de::Error>(self, s: &str) -> Result<Value, E> {
        Ok(Value::String(s.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element_seed(self)? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(String, Value)> = Vec::new();
        let mut index = Index::default();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(self)?;
            match (index.find(&entries, &key), self) {
                (Some(_), Self::Plain) => return Err(A::Error::custom("a key stands twice")),
                (Some(at), Self::AsJson) => entries[at].1 = value,
                (None, _) => {
                    index.note(&key, entries.len());
                    entries.push((key, value));
                }
            }
        }
        Ok(Value::Object(entries))
    }
}

/// Where keys stand in a mapping; most have so few that looking at all is faster than hashing.
#[derive(Debug, Default)]
struct Index(HashMap<String, usize>);

impl Index {
    /// Mappings with more entries are indexed.
    const FEW: usize = 16;

    fn find(&mut self, entries: &[(String, Value)], key: &str) -> Option<usize> {
        if entries.len() <= Self::FEW {
            return entries.iter().position(|(k, _)| k == key);
        }
        if self.0.is_empty() {
            let keys = entries.iter().enumerate();
            self.0 = keys.map(|(at, (k, _))| (k.clone(), at)).collect();
        }
        self.0.get(key).copied()
    }

    fn note(&mut self, key: &str, at: usize) {
        if !self.0.is_empty() {
            self.0.insert(key.to_owned(), at);
        }
    }
}
