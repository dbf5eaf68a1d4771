//! Why a request was not done.

use crate::causes::chain;

/// Why a request was not done. `what` names the object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It was changed, or made, since it was read: read it again.
    #[error("{what}: was changed since it was read")]
    Conflict {
        /// The object.
        what: String,
    },
    /// There is no such object.
    #[error("{what}: not found")]
    NotFound {
        /// The object.
        what: String,
        /// The name that the API server has not found, as it says itself; empty where it does not.
        missing: String,
    },
    /// The API server does not take it. It says so also of an object with another UID.
    #[error("{what}: refused: {reason}")]
    Invalid {
        /// The object.
        what: String,
        /// The API server's words.
        reason: String,
    },
    /// Anything else.
    #[error("{what}: {reason}")]
    Failed {
        /// The object.
        what: String,
        /// What happened, and the remedy where there is one.
        reason: String,
    },
}

impl Error {
    /// From kube's, of a request about `what`.
    pub(super) fn of(what: &str, error: kube::Error) -> Self {
        let what = what.to_owned();
        let kube::Error::Api(status) = &error else {
            let reason = chain(&error);
            return Self::Failed { what, reason };
        };
        let reason = status.message.clone();
        match status.code {
            404 => {
                let by_name = status
                    .details
                    .as_ref()
                    .filter(|_| status.reason == "NotFound");
                let missing = by_name.map_or_else(String::new, |details| details.name.clone());
                Self::NotFound { what, missing }
            }
            409 => Self::Conflict { what },
            422 => Self::Invalid { what, reason },
            401 | 403 => Self::Failed {
                what,
                reason: format!(
                    "{reason}: give Weir's ServiceAccount the rights that Weir's manifest has"
                ),
            },
            code => Self::Failed {
                what,
                reason: format!("status {code}: {reason}"),
            },
        }
    }

    /// Whether the object is not as it was seen: newer news of it is on the way.
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::NotFound { .. })
    }
}
