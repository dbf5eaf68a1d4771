//! The own Node's annotation with the key by which other nodes encrypt for this one. It goes as soon as
//! nothing is encrypted here, so that nobody sends what nobody could read.

use k8s_openapi::api::core::v1::Node;
use tokio::time::timeout;

use super::{Backoff, Shared};
use crate::{compile::wireguard::KEY_ANNOTATION, publish::Publisher};

/// Name of this duty in the log and among problems.
const DUTY: &str = "node-key";

/// By which WireGuard key this node is known, or is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodeKey {
    /// Nobody has said yet.
    #[default]
    Unknown,
    /// By none.
    None,
    /// By this one, as it is written.
    Key(String),
}

impl NodeKey {
    /// A key, or none.
    pub fn of(key: Option<String>) -> Self {
        key.map_or(Self::None, Self::Key)
    }

    /// What a Node says.
    pub fn in_annotation(node: &Node) -> Self {
        let annotations = node.metadata.annotations.as_ref();
        Self::of(annotations.and_then(|list| list.get(KEY_ANNOTATION).cloned()))
    }

    /// What to write where a Node says something else; `None`: nothing.
    fn to_write(&self, seen: &Self) -> Option<Option<&str>> {
        match self {
            _ if *seen == Self::Unknown || seen == self => None,
            Self::Unknown => None,
            Self::None => Some(None),
            Self::Key(key) => Some(Some(key)),
        }
    }
}

/// Does the duty until it is dropped.
pub(super) async fn run(publisher: &Publisher, node: &str, shared: &Shared) {
    let (mut seen, mut key) = (shared.seen(), shared.key());
    let mut backoff = Backoff::default();
    loop {
        let wanted = key.borrow_and_update().clone();
        let has = seen.borrow_and_update().own_key.clone();
        let mut pause = None;
        if let Some(write) = wanted.to_write(&has) {
            let problems = match publisher.set_wireguard_key(node, write).await {
                Ok(()) => {
                    shared.wrote(DUTY);
                    backoff = Backoff::default();
                    Vec::new()
                }
                Err(error) => {
                    pause = Some(backoff.next());
                    vec![error.to_string()]
                }
            };
            shared.set_problems(DUTY, problems);
        }
        let news = async {
            tokio::select! {
                changed = seen.changed() => changed,
                changed = key.changed() => changed,
            }
        };
        let changed = match pause {
            Some(pause) => timeout(pause, news).await.unwrap_or(Ok(())),
            None => news.await,
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
