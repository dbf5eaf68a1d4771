//! The objects of one kind as they have been announced: what a list or a watch says becomes changes.

use std::collections::{BTreeMap, BTreeSet};

use super::item::Item;
use crate::{
    refill::Refill as _,
    state::{ByKey, Change, Kept, Named, ObjectKey},
};

/// The objects of one kind. They are shared with the state, not copied.
#[derive(Debug, Default)]
pub(super) struct Held {
    objects: BTreeSet<ByKey>,
    /// During a list: what was held at its beginning and has not been listed yet.
    unlisted: BTreeSet<ByKey>,
    /// What does not parse, and why. Its last good version is held, for dropping a policy would open
    /// what it closes.
    malformed: BTreeMap<ObjectKey, String>,
    /// Of the malformed, those not listed yet.
    unlisted_malformed: BTreeSet<ObjectKey>,
}

impl Held {
    /// A list begins, or begins again.
    pub fn begin_list(&mut self) {
        self.unlisted.clone_from(&self.objects);
        self.unlisted_malformed = self.malformed.keys().cloned().collect();
    }

    /// These objects are there, though the list may not have them.
    pub fn keep<'a>(&mut self, keys: impl Iterator<Item = &'a ObjectKey>) {
        for key in keys {
            self.unlisted.remove(key as &dyn Named);
        }
    }

    /// The list is complete: what it does not hold is gone. Nothing is removed before.
    pub fn end_list(&mut self) -> Vec<Change<Kept>> {
        for key in std::mem::take(&mut self.unlisted_malformed) {
            self.malformed.remove(&key);
        }
        let gone = std::mem::take(&mut self.unlisted);
        self.objects.refill();
        let gone = gone.into_iter().map(|object| object.0.key());
        gone.filter_map(|key| self.delete(&key)).collect()
    }

    /// An object is there, new or not.
    pub fn apply(&mut self, item: Item) -> Option<Change<Kept>> {
        self.unlisted.remove(&item.key as &dyn Named);
        self.unlisted_malformed.remove(&item.key);
        let kept = match item.object {
            Ok(kept) => kept,
            Err(why) => {
                self.malformed.insert(item.key, why);
                return None;
            }
        };
        self.malformed.remove(&item.key);
        let object = ByKey(kept);
        if self
            .objects
            .get(&object)
            .is_some_and(|old| old.0 == object.0)
        {
            return None;
        }
        self.objects.replace(object.clone());
        Some(Change::Apply(object.0))
    }

    /// An object is gone.
    pub fn delete(&mut self, key: &ObjectKey) -> Option<Change<Kept>> {
        self.unlisted.remove(key as &dyn Named);
        self.malformed.remove(key);
        let held = self.objects.remove(key as &dyn Named);
        held.then(|| Change::Delete(key.clone()))
    }

    /// The API server does not serve the resource: there is none.
    pub fn clear(&mut self) -> Vec<Change<Kept>> {
        self.begin_list();
        self.end_list()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// What does not parse.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.malformed.iter().map(|(key, why)| {
            let old = self.objects.contains(key as &dyn Named);
            let rest = if old {
                "what it said before stays in force"
            } else {
                "it is passed over"
            };
            format!("{key}: {why}: {rest}")
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::state::{Kind, Object};

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            kind: Kind::Namespace,
            namespace: String::new(),
            name: name.into(),
        }
    }

    fn item(name: &str, label: &str) -> Item {
        let object = json!({"metadata": {"name": name, "labels": {"v": label}}});
        let object = Object::Namespace(serde_json::from_value(object).unwrap());
        Item {
            key: key(name),
            version: None,
            object: Ok(object.into()),
        }
    }

    fn broken(name: &str) -> Item {
        Item {
            object: Err("spec.x: expected a number".into()),
            ..item(name, "")
        }
    }

    fn held(names: &[&str]) -> Held {
        let mut held = Held::default();
        held.begin_list();
        for name in names {
            assert!(held.apply(item(name, "1")).is_some());
        }
        assert!(held.end_list().is_empty());
        held
    }

    #[test]
    fn a_list_deletes_exactly_what_is_gone_and_only_at_its_end() {
        let mut held = held(&["a", "b", "c", "d"]);
        held.begin_list();
        assert_eq!(held.apply(item("a", "1")), None);
        assert!(matches!(held.apply(item("c", "2")), Some(Change::Apply(_))));
        assert!(held.apply(item("e", "1")).is_some());
        assert_eq!(
            held.end_list(),
            [Change::Delete(key("b")), Change::Delete(key("d"))]
        );
        assert!(held.end_list().is_empty());
    }

    #[test]
    fn a_list_that_begins_again_forgets_what_the_first_one_said() {
        let mut held = held(&["a", "b"]);
        held.begin_list();
        held.apply(item("a", "1"));
        held.begin_list();
        held.apply(item("b", "1"));
        assert_eq!(held.end_list(), [Change::Delete(key("a"))]);
    }

    #[test]
    fn what_does_not_parse_keeps_its_last_good_version_also_over_a_list() {
        let mut held = held(&["a", "b"]);
        assert_eq!(held.apply(broken("a")), None);
        held.begin_list();
        held.apply(broken("a"));
        held.apply(broken("x"));
        held.apply(item("b", "1"));
        assert!(held.end_list().is_empty());
        let problems: Vec<String> = held.problems().collect();
        assert_eq!(
            problems,
            [
                "Namespace a: spec.x: expected a number: what it said before stays in force",
                "Namespace x: spec.x: expected a number: it is passed over",
            ]
        );
        // Mended, and gone.
        assert!(held.apply(item("a", "2")).is_some());
        held.delete(&key("x"));
        assert_eq!(held.problems().count(), 0);
    }

    #[test]
    fn what_did_not_parse_and_is_gone_with_a_list_is_no_problem_any_more() {
        let mut held = held(&["a"]);
        held.apply(broken("a"));
        held.begin_list();
        assert_eq!(held.end_list(), [Change::Delete(key("a"))]);
        assert_eq!(held.problems().count(), 0);
    }

    #[test]
    fn an_object_that_says_the_same_as_before_is_no_change() {
        let mut held = held(&["a"]);
        assert_eq!(held.apply(item("a", "1")), None);
        assert_eq!(held.delete(&key("a")), Some(Change::Delete(key("a"))));
        assert_eq!(held.delete(&key("a")), None);
    }
}
