//! The error document of the socket API.

use serde::{Deserialize, Serialize};

/// Body of every answer that is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct ApiError {
    /// What kind of failure it is, for programs.
    pub reason: Reason,
    /// Names the object and the remedy, for people.
    pub message: String,
}

/// Kinds of [`ApiError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The source has not synced, the Pod is not known yet, or the dataplane is not ready: the
    /// same call may succeed later (HTTP 503; CNI code 11).
    TryAgain,
    /// The Pod of that name has another UID (HTTP 409; CNI code 11: its successor's ADD is
    /// coming).
    StaleUid,
    /// No such endpoint, or no such path (HTTP 404).
    NotFound,
    /// The request itself is wrong (HTTP 400; CNI code 7).
    BadRequest,
    /// Anything else (HTTP 500; CNI code 100).
    Internal,
    /// A kind this release does not know.
    #[serde(other)]
    Unknown,
}
