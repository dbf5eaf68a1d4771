//! The own Node's annotation with the key by which other nodes encrypt for this one. It goes as soon as
//! nothing is encrypted here, so that nobody sends what nobody could read.

use k8s_openapi::api::core::v1::Node;

use super::{
    Shared,
    duty::{Duty, news},
};
use crate::{compile::wireguard::KEY_ANNOTATION, publish::Publisher};

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
    let mut duty = Duty::new("node-key");
    loop {
        let wanted = key.borrow_and_update().clone();
        let has = seen.borrow_and_update().own_key.clone();
        let result = match wanted.to_write(&has) {
            Some(write) => Some(publisher.set_wireguard_key(node, write).await),
            None => None,
        };
        let pause = duty.attempted(shared, result);
        if !news(pause, &mut seen, &mut key).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
