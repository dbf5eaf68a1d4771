//! Objects that were asked for one by one, and how they go together with what lists and watches say.

use std::{collections::BTreeMap, future};

use tokio::sync::mpsc;

use super::item::Item;
use crate::state::ObjectKey;

/// Where answers come from, and those that neither list nor watch has told of yet.
#[derive(Debug, Default)]
pub(super) struct Answers {
    from: Option<mpsc::Receiver<Item>>,
    /// With their versions.
    ahead: BTreeMap<ObjectKey, u64>,
}

impl From<mpsc::Receiver<Item>> for Answers {
    fn from(from: mpsc::Receiver<Item>) -> Self {
        Self {
            from: Some(from),
            ahead: BTreeMap::new(),
        }
    }
}

impl Answers {
    /// The next one; without anybody who answers there is none, ever.
    pub async fn next(&mut self) -> Item {
        if let Some(from) = &mut self.from {
            match from.recv().await {
                Some(item) => return item,
                None => self.from = None,
            }
        }
        future::pending().await
    }

    /// Whether an answer says more than a watch that has come to `version`; it is remembered then.
    /// What is older was told by the watch, and may be gone since.
    pub fn is_news(&mut self, item: &Item, version: &str) -> bool {
        let at = item.version.as_deref().map_or(0, number);
        let news = at > number(version);
        if news {
            self.ahead.insert(item.key.clone(), at);
        }
        news
    }

    /// Whether the object is known at a later version than this, which a watch tells of.
    pub fn knows_later(&self, key: &ObjectKey, version: Option<&str>) -> bool {
        let known = self.ahead.get(key);
        known.is_some_and(|at| version.is_some_and(|version| number(version) < *at))
    }

    /// List or watch have come to `version`: from here on they know what was found up to it.
    pub fn forget_until(&mut self, version: &str) {
        if !self.ahead.is_empty() {
            let version = number(version);
            self.ahead.retain(|_, at| *at > version);
        }
    }

    /// What lists and watches do not know yet.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.ahead.keys()
    }
}

/// A resourceVersion: they grow with time (since Kubernetes 1.35 by contract, before in fact).
fn number(version: &str) -> u64 {
    version.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Kind;

    fn item(version: &str) -> Item {
        let key = ObjectKey {
            kind: Kind::Pod,
            namespace: "shop".into(),
            name: "web".into(),
        };
        Item {
            key,
            version: Some(version.into()),
            object: Err("not looked at".into()),
        }
    }

    #[test]
    fn an_answer_that_the_watch_has_passed_is_no_news() {
        let mut answers = Answers::default();
        assert!(!answers.is_news(&item("9"), "9"));
        assert!(!answers.is_news(&item("9"), "10"));
        assert_eq!(answers.keys().count(), 0);
        assert!(answers.is_news(&item("10"), "9"));
    }

    #[test]
    fn what_was_found_is_ahead_of_older_events_until_the_watch_has_come_so_far() {
        let mut answers = Answers::default();
        answers.is_news(&item("10"), "5");
        let key = item("").key;
        assert!(answers.knows_later(&key, Some("9")));
        assert!(!answers.knows_later(&key, Some("10")));
        answers.forget_until("9");
        assert_eq!(answers.keys().count(), 1);
        answers.forget_until("10");
        assert_eq!(answers.keys().count(), 0);
        assert!(!answers.knows_later(&key, Some("9")));
    }
}
