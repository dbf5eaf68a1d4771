//! How often what was made, and what it led to.

use std::collections::BTreeMap;

/// Counts by name.
#[derive(Clone, Default, Debug)]
pub struct Coverage(BTreeMap<String, u64>);

impl Coverage {
    /// One more.
    pub fn add(&mut self, name: impl Into<String>) {
        *self.0.entry(name.into()).or_default() += 1;
    }

    /// How many.
    pub fn count(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Asserts that each of `names` was counted at least once in a hundred of `total`.
    ///
    /// # Panics
    /// When one was not.
    pub fn check(&self, names: &[&str], total: u64) {
        let rare: Vec<_> = names
            .iter()
            .map(|name| (name, self.count(name)))
            .filter(|(_, count)| count * 100 < total)
            .collect();
        assert!(rare.is_empty(), "too rare, of {total}: {rare:?}");
    }
}
