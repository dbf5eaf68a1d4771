//! The objects, indexed.

use crate::desired::Desired;
use crate::event::{Dirty, Event};
use crate::problem::Problem;

/// All objects that policy depends on.
#[derive(Clone, Debug)]
pub struct Index {
    node: String,
}

impl Index {
    /// An empty index of the node of that name.
    pub fn new(node: impl Into<String>) -> Self {
        Self { node: node.into() }
    }

    /// Takes in one change.
    pub fn apply(&mut self, event: Event) -> Dirty {
        let _ = (event, &self.node);
        Dirty(true)
    }

    /// The policy that the objects add up to.
    pub fn compile(&mut self) -> Desired {
        Desired::default()
    }

    /// What could not be used of the objects, sorted.
    pub fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}
