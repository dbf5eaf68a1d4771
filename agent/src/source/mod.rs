//! Where objects come from. A source delivers [`Batch`]es; the first [`Stage::Complete`] one is the
//! complete picture.

pub mod dir;
pub mod kube;
mod merge;
mod parse;
mod watch;

use std::time::Duration;

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

/// A Pod that an ADD waits for in vain: the source is to look for it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// How long a [`Question`] may take. What is found comes with a batch, as everything does.
pub const ANSWER: Duration = Duration::from_secs(3);

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
