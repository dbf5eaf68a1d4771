//! The objects the agent knows, indexed, as plain data. Every source feeds the same state.

mod object;
mod store;

pub use object::{Kind, Object, ObjectKey};
pub use store::Store;

/// One change to the state.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is new or differs.
    Apply(Object),
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
