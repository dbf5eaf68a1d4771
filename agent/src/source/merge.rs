//! From files to objects: of duplicates the last file in name order wins, and a file that stops
//! parsing keeps the last good version of what it held, for dropping a policy would open it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    refill::Refill as _,
    state::{ByKey, Change, Kept},
};

/// What one reading of a file gave.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// The documents that parsed, in order.
    pub objects: Vec<Kept>,
    /// What did not, each naming file and line.
    pub errors: Vec<String>,
    /// Worth knowing, but nothing is kept back for it.
    pub warnings: Vec<String>,
}

/// Files that hold an object, sorted; the last one's version counts.
type Files = Arc<[Arc<Path>]>;

#[derive(Debug, Default)]
struct File {
    objects: BTreeSet<ByKey>,
    problems: Vec<String>,
    /// This file alone: what holds most of its objects, which share this.
    alone: Files,
}

/// The files of a directory tree, and what follows from them. There may be some ten thousand
/// objects: they are shared, not copied.
#[derive(Debug, Default)]
pub(super) struct Merge {
    files: BTreeMap<Arc<Path>, File>,
    /// Objects as they have been announced.
    held: BTreeMap<ByKey, Files>,
}

impl Merge {
    /// A file was read (again).
    pub fn set(&mut self, path: &Path, parsed: Parsed) -> Vec<Change<Kept>> {
        let Parsed {
            objects,
            errors,
            warnings,
        } = parsed;
        let file = self.files.entry(path.into()).or_default();
        let old = std::mem::take(&mut file.objects);
        // The document that does not parse may be any of those that were here before.
        let mut new = if errors.is_empty() {
            BTreeSet::new()
        } else {
            old.clone()
        };
        for object in objects {
            new.replace(ByKey(object));
        }
        let touched: BTreeSet<ByKey> = old.into_iter().chain(new.iter().cloned()).collect();
        file.objects = new;
        file.objects.refill();
        file.problems = errors.into_iter().chain(warnings).collect();
        self.settle(path, touched)
    }

    /// A file could not be read: its last good objects stay.
    pub fn unreadable(&mut self, path: &Path, problem: String) {
        self.files.entry(path.into()).or_default().problems = vec![problem];
    }

    /// A file is gone.
    pub fn remove(&mut self, path: &Path) -> Vec<Change<Kept>> {
        let Some(file) = self.files.remove(path) else {
            return Vec::new();
        };
        self.settle(path, file.objects)
    }

    /// Takes less memory from now on, after many files were read.
    pub fn refill(&mut self) {
        self.held.refill();
    }

    /// Every file that is known.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.keys().map(|path| path.to_path_buf()).collect()
    }

    /// What is wrong with any file.
    pub fn problems(&self) -> Vec<String> {
        self.files
            .values()
            .flat_map(|file| file.problems.iter().cloned())
            .collect()
    }

    /// Brings `held` up to date for objects that `path` held or holds.
    fn settle(&mut self, path: &Path, touched: BTreeSet<ByKey>) -> Vec<Change<Kept>> {
        if let Some((path, file)) = self.files.get_key_value(path)
            && file.alone.is_empty()
        {
            let alone = [Arc::clone(path)].into();
            self.files.entry(Arc::clone(path)).or_default().alone = alone;
        }
        let mut changes = Vec::new();
        for key in touched {
            let file = self.files.get_key_value(path);
            let holds = file.filter(|(_, file)| file.objects.contains(&key));
            let held = self.held.remove_entry(&key);
            let mut files = held.as_ref().map_or_else(Vec::new, |(_, f)| f.to_vec());
            match (files.binary_search_by(|f| (**f).cmp(path)), holds) {
                (Err(at), Some((path, _))) => files.insert(at, Arc::clone(path)),
                (Ok(at), None) => drop(files.remove(at)),
                _ => {}
            }
            let last = files.last().and_then(|path| self.files.get(path));
            let winner = last.and_then(|file| Some((file, file.objects.get(&key)?)));
            let Some((file, object)) = winner else {
                changes.extend(held.map(|(object, _)| Change::Delete(object.0.key())));
                continue;
            };
            let object = object.clone();
            if held.is_none_or(|(announced, _)| announced.0 != object.0) {
                changes.push(Change::Apply(object.0.clone()));
            }
            let files = match files.len() {
                1 => Arc::clone(&file.alone),
                _ => files.into(),
            };
            self.held.insert(object, files);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Object;

    fn object(name: &str, label: &str) -> Kept {
        let value = serde_json::json!({"metadata": {"name": name, "labels": {"v": label}}});
        Object::Namespace(serde_json::from_value(value).unwrap()).into()
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
        let label = |o: &Kept| {
            o.clone().unpack().to_json()["metadata"]["labels"]["v"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        merge
            .held
            .keys()
            .map(|object| (object.0.key().name, label(&object.0)))
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
        assert!(merge.held.is_empty());
    }

    #[test]
    fn an_unchanged_file_says_nothing() {
        let mut merge = Merge::default();
        merge.set(Path::new("a"), good(&[("x", "1")]));
        assert!(merge.set(Path::new("a"), good(&[("x", "1")])).is_empty());
    }
}
