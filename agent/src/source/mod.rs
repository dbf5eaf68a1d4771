//! Where objects come from. A source delivers [`Batch`]es; the first [`Stage::Complete`] one is the
//! complete picture.

pub mod dir;
pub mod kube;
mod merge;
mod parse;
mod watch;

use crate::state::{Change, Kept};

/// How far a source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It has not got everything yet: a batch has problems only.
    Waiting,
    /// With this batch and those before it, the state is complete.
    #[default]
    Complete,
}

/// What a source has to say.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// In order.
    pub changes: Vec<Change<Kept>>,
    /// Everything that is wrong with the source at this moment (not only what is new), each
    /// naming a file and line, or an object.
    pub problems: Vec<String>,
    /// Whether nothing is missing any more.
    pub stage: Stage,
}
