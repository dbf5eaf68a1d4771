//! Selectors, found by a label that they require.

use std::collections::{BTreeSet, HashMap};

use crate::selector::Labels;
use crate::slab::Number;

/// Selectors, found by a label that they require.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    by_label: HashMap<String, HashMap<String, BTreeSet<Number>>>,
    others: BTreeSet<Number>,
}

impl Candidates {
    pub fn add(&mut self, number: Number, label: Option<(&str, &str)>) {
        match label {
            None => drop(self.others.insert(number)),
            Some((key, value)) => {
                let by_value = self.by_label.entry(key.to_owned()).or_default();
                by_value.entry(value.to_owned()).or_default().insert(number);
            }
        }
    }

    /// With the label that it was added with.
    pub fn remove(&mut self, number: Number, label: Option<(&str, &str)>) {
        let Some((key, value)) = label else {
            self.others.remove(&number);
            return;
        };
        if let Some(by_value) = self.by_label.get_mut(key) {
            if let Some(numbers) = by_value.get_mut(value) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    by_value.remove(value);
                }
            }
            if by_value.is_empty() {
                self.by_label.remove(key);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.others.is_empty() && self.by_label.is_empty()
    }

    /// Every selector that may match these labels.
    pub fn of<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = Number> + 'a {
        let by_label = labels
            .iter()
            .filter_map(|(key, value)| self.by_label.get(key)?.get(value));
        by_label.flatten().chain(&self.others).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(list: &[(&str, &str)]) -> Labels {
        let pairs = list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        pairs.collect()
    }

    #[test]
    fn a_selector_is_found_by_the_label_that_it_requires_or_always() {
        let mut candidates = Candidates::default();
        candidates.add(1, Some(("app", "web")));
        candidates.add(2, Some(("app", "db")));
        candidates.add(3, None);
        let of = |candidates: &Candidates, list: &[(&str, &str)]| {
            let mut found: Vec<_> = candidates.of(&labels(list)).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(of(&candidates, &[("app", "web"), ("x", "y")]), [1, 3]);
        assert_eq!(of(&candidates, &[]), [3]);
        candidates.remove(1, Some(("app", "web")));
        candidates.remove(3, None);
        assert!(of(&candidates, &[("app", "web")]).is_empty());
        assert!(!candidates.is_empty());
        candidates.remove(2, Some(("app", "db")));
        assert!(candidates.is_empty());
    }
}
