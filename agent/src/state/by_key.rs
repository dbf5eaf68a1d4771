//! Objects in order of their keys, without the text of any key beside them.

use std::borrow::Borrow;
use std::cmp::Ordering;

use super::{Kept, Kind, ObjectKey};

/// Something with an object's key.
pub trait Named {
    /// Kind, namespace and name.
    fn parts(&self) -> (Kind, &[u8], &[u8]);
}

impl Named for ObjectKey {
    fn parts(&self) -> (Kind, &[u8], &[u8]) {
        (self.kind, self.namespace.as_bytes(), self.name.as_bytes())
    }
}

impl Named for Kept {
    fn parts(&self) -> (Kind, &[u8], &[u8]) {
        match self {
            Self::Pod(object) => object.parts(),
            Self::Service(object) => object.parts(),
            Self::EndpointSlice(object) => object.parts(),
            Self::Plain(object) => object.as_ref().parts(),
        }
    }
}

/// An object that is equal to every other with its key, and sorted by it. In a set or map it is found
/// by anything [`Named`].
#[derive(Clone, Debug)]
pub struct ByKey(pub Kept);

impl Named for ByKey {
    fn parts(&self) -> (Kind, &[u8], &[u8]) {
        self.0.parts()
    }
}

impl<'a> Borrow<dyn Named + 'a> for ByKey {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Named + '_ {}

impl PartialOrd for dyn Named + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Named + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}
