//! Typed access to a JSON object's keys, with errors that name the key.

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::error::{CniError, Code, Result};

/// An object, and what it is called in errors.
pub(super) struct Object<'a> {
    name: String,
    map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// The whole configuration.
    pub(super) fn root(map: &'a Map<String, Value>) -> Self {
        Self {
            name: String::new(),
            map,
        }
    }

    /// A value that must be an object.
    pub(super) fn of(name: String, value: &'a Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Self { name, map }),
            other => Err(wrong(&name, "an object", other)),
        }
    }

    /// A key that may be absent; `null` is absent, as Go writes it for empty lists.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&'a str>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.name_of(key), "a string", other)),
        }
    }

    /// An absolute path; empty is absent.
    pub(super) fn path(&self, key: &str) -> Result<Option<PathBuf>> {
        match self.string(key)?.filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) if text.starts_with('/') && !text.contains('\0') => Ok(Some(text.into())),
            Some(text) => {
                let msg = format!("{} {text:?} is not an absolute path", self.name_of(key));
                Err(CniError::new(Code::InvalidConfig, msg))
            }
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => Err(wrong(&self.name_of(key), "a whole number", value)),
            },
        }
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<Object<'a>>> {
        self.value(key)
            .map(|value| Object::of(self.name_of(key), value))
            .transpose()
    }

    pub(super) fn list(&self, key: &str) -> Result<Option<&'a Vec<Value>>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(wrong(&self.name_of(key), "a list", other)),
        }
    }

    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<String>>> {
        let Some(list) = self.list(key)? else {
            return Ok(None);
        };
        let text = |(at, value): (usize, &Value)| match value {
            Value::String(text) => Ok(text.clone()),
            other => Err(wrong(
                &format!("{}[{at}]", self.name_of(key)),
                "a string",
                other,
            )),
        };
        list.iter()
            .enumerate()
            .map(text)
            .collect::<Result<_>>()
            .map(Some)
    }

    /// The key's full name, for errors.
    pub(super) fn name_of(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }
}

/// An error that names the key, what it must be and what it is (not all of it, if it is long).
pub(super) fn wrong(key: &str, kind: &str, value: &Value) -> CniError {
    let text: String = value.to_string().chars().take(80).collect();
    CniError::new(
        Code::InvalidConfig,
        format!("{key} must be {kind}, not {text}"),
    )
}

/// The value of a key whatever its case.
pub(super) fn insensitive<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(key))
        .map(|(_, value)| value)
}
