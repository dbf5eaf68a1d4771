//! One error type: which call failed on which object, and why.

use std::io;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed. The text is meant for people; programs ask [`Error::errno`] and its friends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a call.
    #[error("{call} {object}: {source}{}", .detail.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Call {
        /// The system call or netlink request, for example `RTM_NEWLINK`.
        call: &'static str,
        /// What it was about: a path, an interface, a route.
        object: String,
        /// The kernel's error.
        source: io::Error,
        /// The kernel's own explanation (netlink extended ACK), where it gave one.
        detail: Option<String>,
    },
    /// The path does not name a network namespace.
    #[error("{path} is not a network namespace: {reason}")]
    NotANamespace {
        /// As the caller gave it.
        path: String,
        /// What it is instead.
        reason: String,
    },
    /// The kernel's answer could not be understood.
    #[error("{call} {object}: unexpected answer: {reason}")]
    Answer {
        /// The netlink request.
        call: &'static str,
        /// What it was about.
        object: String,
        /// What was wrong with it.
        reason: String,
    },
    /// No such object, found out by looking rather than from the kernel's error.
    #[error("{object} does not exist")]
    Missing {
        /// What was looked for.
        object: String,
    },
}

impl Error {
    /// An error of a call, from an errno-carrying error.
    pub fn call(
        call: &'static str,
        object: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Call {
            call,
            object: object.into(),
            source: source.into(),
            detail: None,
        }
    }

    /// The kernel's error number (`libc::E…`), where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Call { source, .. } => source.raw_os_error(),
            Self::Missing { .. } => Some(libc::ENOENT),
            Self::NotANamespace { .. } | Self::Answer { .. } => None,
        }
    }

    /// Whether the object is not there (ENOENT, ENODEV, ESRCH, EADDRNOTAVAIL): what a removal may
    /// take for success.
    pub fn is_gone(&self) -> bool {
        matches!(
            self.errno(),
            Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL)
        )
    }

    /// Whether an object of that name is there already (EEXIST).
    pub fn exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }
}
