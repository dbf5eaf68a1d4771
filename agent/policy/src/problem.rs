//! Objects, or parts of them, that cannot be used.

use std::fmt;

/// A part of an object that the API server would refuse, and what is done about it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Problem {
    /// Kind, namespace and name: `NetworkPolicy shop/allow-db`.
    pub object: String,
    /// The field: `spec.ingress[0].ports[1].endPort`.
    pub path: String,
    /// What is wrong, and what holds instead: `80 is below port 443; rule ignored, …`.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.object, self.path, self.reason)
    }
}
