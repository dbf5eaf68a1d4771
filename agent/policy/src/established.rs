//! Flows that were there before a change.

/// What a change of policy means to flows that are already there. New ones are always judged by
/// the policy that is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Established {
    /// They are judged again: what is now forbidden is cut.
    #[default]
    Apply,
    /// They keep the verdict that they were given. The endpoint stays marked
    /// ([`crate::EPOCH_PENDING`]), so that a later plan with [`Self::Apply`] has them judged again.
    Keep,
}
