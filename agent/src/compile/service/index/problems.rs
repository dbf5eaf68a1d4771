//! What is wrong with the objects, kept by object, so that a round need not ask all of them.

use std::collections::BTreeMap;

use super::super::parse::{Problem, ServiceName};
use crate::state::Kind;

/// Problems by object.
#[derive(Debug, Default)]
pub(super) struct Problems {
    of: BTreeMap<(Kind, ServiceName), Vec<Problem>>,
    version: u64,
}

impl Problems {
    /// Replaces an object's problems; whether they are others than before.
    pub fn set(&mut self, kind: Kind, name: &ServiceName, mut problems: Vec<Problem>) -> bool {
        problems.sort();
        problems.dedup();
        let key = (kind, name.clone());
        let old = self.of.get(&key).map(Vec::as_slice).unwrap_or_default();
        if old == problems {
            return false;
        }
        self.version += 1;
        if problems.is_empty() {
            self.of.remove(&key);
        } else {
            self.of.insert(key, problems);
        }
        true
    }

    /// An object's.
    pub fn of(&self, kind: Kind, name: &ServiceName) -> impl Iterator<Item = &Problem> {
        self.of.get(&(kind, name.clone())).into_iter().flatten()
    }

    /// All of them, sorted.
    pub fn all(&self) -> Vec<Problem> {
        let mut all: Vec<Problem> = self.of.values().flatten().cloned().collect();
        all.sort();
        all
    }

    /// Changes with each change.
    pub fn version(&self) -> u64 {
        self.version
    }
}
