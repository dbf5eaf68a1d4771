//! What the kernel's policy maps ought to hold.

/// The compiled policy of this node.
#[derive(Clone, Debug, Default)]
pub struct Desired {}
