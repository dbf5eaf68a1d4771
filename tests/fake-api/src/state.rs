//! The objects, and what has happened to them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{Fault, Verb};

/// Plural, namespace, name.
type Key = (String, String, String);

/// What a watch is told.
#[derive(Clone)]
pub(crate) struct Happened {
    pub version: u64,
    pub plural: String,
    pub namespace: String,
    /// As it goes over the wire.
    pub event: Value,
}

/// Everything.
#[derive(Default)]
pub(crate) struct State {
    objects: BTreeMap<Key, Value>,
    /// The last resourceVersion.
    pub version: u64,
    /// Watches that begin before this are told 410.
    pub oldest: u64,
    pub happened: Vec<Happened>,
    /// Moves when running watches are to end.
    pub epoch: u64,
    /// Moves when running watches are to be told 410.
    pub expired: u64,
    /// Moves when running watches are to be sent a bookmark.
    pub bookmarks: u64,
    pub faults: BTreeMap<(String, Verb), Fault>,
    /// Resources whose watches say nothing.
    pub held: BTreeSet<String>,
    /// Resources whose next `continue` is refused.
    pub stale: BTreeSet<String>,
    pub token: Option<String>,
    pub requests: BTreeMap<(String, Verb), usize>,
}

fn part<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

impl State {
    pub fn put(&mut self, plural: &str, mut object: Value) -> u64 {
        self.version += 1;
        let key = (
            plural.to_owned(),
            part(&object, "namespace").to_owned(),
            part(&object, "name").to_owned(),
        );
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let old = self.objects.get(&key);
        let uid = old.map_or_else(
            || json!(format!("uid-{}", self.version)),
            |o| o["metadata"]["uid"].clone(),
        );
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = uid;
        }
        let what = if old.is_some() { "MODIFIED" } else { "ADDED" };
        self.note(&key, what, object.clone());
        self.objects.insert(key, object);
        self.version
    }

    pub fn delete(&mut self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let mut object = self.objects.remove(&key)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.note(&key, "DELETED", object.clone());
        Some(object)
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<&Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.objects.get(&key)
    }

    /// Of a resource, of one namespace if it is given.
    pub fn list(&self, plural: &str, namespace: Option<&str>) -> Vec<Value> {
        let of = |key: &Key| key.0 == plural && namespace.is_none_or(|n| n == key.1);
        let objects = self.objects.iter().filter(|(key, _)| of(key));
        objects.map(|(_, object)| object.clone()).collect()
    }

    pub fn expire(&mut self) {
        // Nothing that was listed before now is new enough.
        self.version += 1;
        self.oldest = self.version;
        self.expired += 1;
        self.happened.clear();
    }

    pub fn bookmark(&mut self) {
        self.version += 1;
        self.bookmarks += 1;
    }

    fn note(&mut self, key: &Key, what: &str, object: Value) {
        self.happened.push(Happened {
            version: self.version,
            plural: key.0.clone(),
            namespace: key.1.clone(),
            event: json!({"type": what, "object": object}),
        });
    }
}
