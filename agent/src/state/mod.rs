//! The objects the agent knows, indexed, as plain data. Every source feeds the same state.

mod by_key;
mod object;
mod packed;
mod short;
mod store;

pub use by_key::{ByKey, Named};
pub use object::{Kind, Object, ObjectKey};
pub use packed::{Kept, Pack, Packed};
pub use store::Store;

/// One change to the state, of an object as it is or as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<O = Object> {
    /// The object is new or differs.
    Apply(O),
    /// The object is gone.
    Delete(ObjectKey),
}

impl Change {
    /// Which object.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Apply(object) => object.key(),
            Self::Delete(key) => key.clone(),
        }
    }
}

impl Change<Kept> {
    /// The same change with the object as it is.
    pub fn unpack(self) -> Change {
        match self {
            Self::Apply(kept) => Change::Apply(kept.unpack()),
            Self::Delete(key) => Change::Delete(key),
        }
    }
}
