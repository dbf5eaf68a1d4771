//! From files to objects: of duplicates the last file in name order wins, and a file that stops
//! parsing keeps the last good version of what it held, for dropping a policy would open it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::state::{Change, Object, ObjectKey};

/// What one reading of a file gave.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// The documents that parsed, in order.
    pub objects: Vec<Object>,
    /// What did not, each naming file and line.
    pub errors: Vec<String>,
    /// Worth knowing, but nothing is kept back for it.
    pub warnings: Vec<String>,
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<ObjectKey, Object>,
    problems: Vec<String>,
}

/// The files of a directory tree, and what follows from them.
#[derive(Debug, Default)]
pub(super) struct Merge {
    files: BTreeMap<PathBuf, File>,
    /// Which files hold an object; the last one's version counts.
    holders: BTreeMap<ObjectKey, BTreeSet<PathBuf>>,
    /// What has been announced.
    effective: BTreeMap<ObjectKey, Object>,
}

impl Merge {
    /// A file was read (again).
    pub fn set(&mut self, path: &Path, parsed: Parsed) -> Vec<Change> {
        let Parsed {
            objects,
            errors,
            warnings,
        } = parsed;
        let file = self.files.entry(path.to_owned()).or_default();
        let old = std::mem::take(&mut file.objects);
        // The document that does not parse may be any of those that were here before.
        let mut new = if errors.is_empty() {
            BTreeMap::new()
        } else {
            old.clone()
        };
        new.extend(objects.into_iter().map(|object| (object.key(), object)));
        let touched: BTreeSet<ObjectKey> = old.into_keys().chain(new.keys().cloned()).collect();
        file.objects = new;
        file.problems = errors.into_iter().chain(warnings).collect();
        self.settle(path, touched)
    }

    /// A file could not be read: its last good objects stay.
    pub fn unreadable(&mut self, path: &Path, problem: String) {
        self.files.entry(path.to_owned()).or_default().problems = vec![problem];
    }

    /// A file is gone.
    pub fn remove(&mut self, path: &Path) -> Vec<Change> {
        let Some(file) = self.files.remove(path) else {
            return Vec::new();
        };
        self.settle(path, file.objects.into_keys().collect())
    }

    /// Every file that is known.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.keys().cloned().collect()
    }

    /// What is wrong with any file.
    pub fn problems(&self) -> Vec<String> {
        self.files
            .values()
            .flat_map(|file| file.problems.iter().cloned())
            .collect()
    }

    /// Brings `effective` up to date for keys that `path` held or holds.
    fn settle(&mut self, path: &Path, touched: BTreeSet<ObjectKey>) -> Vec<Change> {
        let mut changes = Vec::new();
        for key in touched {
            let holds = self
                .files
                .get(path)
                .is_some_and(|f| f.objects.contains_key(&key));
            let holders = self.holders.entry(key.clone()).or_default();
            if holds {
                holders.insert(path.to_owned());
            } else {
                holders.remove(path);
            }
            let winner = holders
                .last()
                .and_then(|p| self.files.get(p)?.objects.get(&key))
                .cloned();
            match winner {
                Some(object) if self.effective.get(&key) != Some(&object) => {
                    self.effective.insert(key, object.clone());
                    changes.push(Change::Apply(object));
                }
                Some(_) => {}
                None => {
                    self.holders.remove(&key);
                    if self.effective.remove(&key).is_some() {
                        changes.push(Change::Delete(key));
                    }
                }
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, label: &str) -> Object {
        let value = serde_json::json!({"metadata": {"name": name, "labels": {"v": label}}});
        Object::Namespace(serde_json::from_value(value).unwrap())
    }

    fn good(objects: &[(&str, &str)]) -> Parsed {
        let objects = objects
            .iter()
            .map(|(name, label)| object(name, label))
            .collect();
        Parsed {
            objects,
            ..Parsed::default()
        }
    }

    fn broken(objects: &[(&str, &str)]) -> Parsed {
        Parsed {
            errors: vec!["x.yaml:3: not YAML".into()],
            ..good(objects)
        }
    }

    fn state(merge: &Merge) -> Vec<(String, String)> {
        let label = |o: &Object| o.metadata().labels.as_ref().unwrap()["v"].clone();
        merge
            .effective
            .iter()
            .map(|(k, o)| (k.name.clone(), label(o)))
            .collect()
    }

    fn pairs(p: &[(&str, &str)]) -> Vec<(String, String)> {
        p.iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    }

    #[test]
    fn of_duplicates_the_last_file_wins_whatever_the_order_of_reading() {
        let mut merge = Merge::default();
        merge.set(Path::new("b"), good(&[("x", "b")]));
        assert!(merge.set(Path::new("a"), good(&[("x", "a")])).is_empty());
        assert_eq!(state(&merge), pairs(&[("x", "b")]));
        merge.remove(Path::new("b"));
        assert_eq!(state(&merge), pairs(&[("x", "a")]));
    }

    #[test]
    fn of_duplicates_in_one_file_the_last_document_wins() {
        let mut merge = Merge::default();
        merge.set(Path::new("a"), good(&[("x", "1"), ("x", "2")]));
        assert_eq!(state(&merge), pairs(&[("x", "2")]));
    }

    #[test]
    fn a_file_that_stops_parsing_keeps_its_last_good_objects() {
        let mut merge = Merge::default();
        merge.set(Path::new("a"), good(&[("x", "1"), ("y", "1")]));
        // One document still parses, the other may have been "y".
        let changes = merge.set(Path::new("a"), broken(&[("x", "2")]));
        assert_eq!(changes, [Change::Apply(object("x", "2"))]);
        assert_eq!(state(&merge), pairs(&[("x", "2"), ("y", "1")]));
        assert_eq!(merge.problems(), ["x.yaml:3: not YAML"]);
        // Mended: what is not there any more is gone, and so is the problem.
        let changes = merge.set(Path::new("a"), good(&[("x", "2")]));
        assert_eq!(changes, [Change::Delete(object("y", "").key())]);
        assert!(merge.problems().is_empty());
    }

    #[test]
    fn an_unreadable_file_keeps_its_objects_and_is_a_problem() {
        let mut merge = Merge::default();
        merge.set(Path::new("a"), good(&[("x", "1")]));
        merge.unreadable(Path::new("a"), "a: permission denied".into());
        assert_eq!(state(&merge), pairs(&[("x", "1")]));
        assert_eq!(merge.problems(), ["a: permission denied"]);
    }

    #[test]
    fn a_deleted_file_deletes_its_objects() {
        let mut merge = Merge::default();
        merge.set(Path::new("a"), good(&[("x", "1")]));
        let changes = merge.remove(Path::new("a"));
        assert_eq!(changes, [Change::Delete(object("x", "").key())]);
        assert!(merge.remove(Path::new("a")).is_empty());
        assert!(merge.effective.is_empty() && merge.holders.is_empty());
    }

    #[test]
    fn an_unchanged_file_says_nothing() {
        let mut merge = Merge::default();
        merge.set(Path::new("a"), good(&[("x", "1")]));
        assert!(merge.set(Path::new("a"), good(&[("x", "1")])).is_empty());
    }
}
