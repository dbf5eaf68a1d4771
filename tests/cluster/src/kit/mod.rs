//! What smoke, scenarios and benches do with a cluster: objects in a namespace of their own, and
//! questions from pods and nodes.

pub mod checks;
pub mod load;
pub mod objects;
pub mod world;

pub use world::{World, eventually};
