//! What the API server would refuse, as data.

use std::fmt;

/// An object, or a part of it, that the API server would refuse. It is evaluated fail-closed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// Kind, namespace and name, for example `NetworkPolicy default/web`.
    pub object: String,
    /// The field, for example `spec.ingress[0].from[1].ipBlock.cidr`.
    pub path: String,
    /// What is wrong with it, and what Weir does about it.
    pub reason: String,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.path, self.reason)
    }
}

/// A refused field, before it is known what the refusal costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub path: String,
    pub reason: String,
}

impl Refusal {
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
        }
    }
}
