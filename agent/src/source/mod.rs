//! Where objects come from. A source delivers [`Batch`]es; the first is the complete picture.

pub mod dir;
mod merge;
mod parse;
mod watch;

use crate::state::{Change, Kept};

/// What a source has to say.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// In order.
    pub changes: Vec<Change<Kept>>,
    /// Everything that is wrong with the source at this moment (not only what is new), each
    /// naming a file, and a line where there is one.
    pub problems: Vec<String>,
}
