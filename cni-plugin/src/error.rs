//! The specification's error document (SPEC, "Error") and its codes.

use std::fmt;

use serde::Serialize;
use weir_api::{
    client::ClientError,
    error::{ApiError, Reason},
};

/// The result of everything that can end a call.
pub type Result<T, E = CniError> = std::result::Result<T, E>;

/// Error codes: those below 100 are the specification's, the others Weir's own. `docs/cni.md` lists
/// them for users; numbers are never given a new meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// `cniVersion` is not served.
    IncompatibleVersion = 1,
    /// A field of the configuration that Weir refuses.
    UnsupportedField = 2,
    /// An environment variable is missing or wrong.
    InvalidEnvironment = 4,
    /// A file cannot be read or written.
    Io = 5,
    /// Stdin is not a JSON object.
    Decode = 6,
    /// The configuration is wrong.
    InvalidConfig = 7,
    /// `CNI_NETNS` is no namespace, or the plugin's own (libcni's `ErrInvalidNetNS`).
    InvalidNetns = 8,
    /// The same call may succeed later.
    TryAgain = 11,
    /// STATUS: ADD cannot be served.
    NotAvailable = 50,
    /// STATUS: nor is the datapath of existing pods what it should be.
    LimitedConnectivity = 51,
    /// The kernel or the agent refused a step.
    Internal = 100,
    /// No address is left.
    Exhausted = 101,
    /// ADD for an attachment that is there already.
    AlreadyAttached = 102,
    /// The address store cannot be used.
    Store = 103,
    /// CHECK found something missing or wrong.
    CheckFailed = 104,
    /// The address that was asked for is taken.
    AddressInUse = 105,
    /// A signal ended the call.
    Interrupted = 106,
}

/// What a failed call prints on stdout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    /// What kind of failure.
    pub code: Code,
    /// Names the object and the remedy.
    pub msg: String,
    /// More, where there is more; may be empty.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// The same with details.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The error document, in the given `cniVersion`.
    pub fn document(&self, version: &str) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            #[serde(rename = "cniVersion")]
            version: &'a str,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        let (msg, details) = (self.msg.as_str(), self.details.as_str());
        let document = Document {
            version,
            code: self.code as u32,
            msg,
            details,
        };
        // Strings and a number always make JSON.
        serde_json::to_string(&document).unwrap_or_default()
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.msg, self.code as u32)?;
        if self.details.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.details)
        }
    }
}

impl From<weir_net::Error> for CniError {
    fn from(error: weir_net::Error) -> Self {
        Self::new(Code::Internal, error.to_string())
    }
}

impl From<ClientError> for CniError {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Api(error) => code_of(error),
            ClientError::Cancelled { .. } => Code::Interrupted,
            error if error.is_unavailable() => Code::TryAgain,
            _ => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

fn code_of(error: &ApiError) -> Code {
    match error.reason {
        Reason::TryAgain | Reason::StaleUid => Code::TryAgain,
        Reason::BadRequest => Code::InvalidConfig,
        Reason::NotFound | Reason::Internal | Reason::Unknown => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p2_document_has_version_numeric_code_and_msg() {
        let error = CniError::new(Code::TryAgain, "later \"please\"").details("why\n");
        let value: serde_json::Value = serde_json::from_str(&error.document("1.0.0")).unwrap();
        let expected = serde_json::json!({
            "cniVersion": "1.0.0", "code": 11, "msg": "later \"please\"", "details": "why\n"
        });
        assert_eq!(value, expected);
    }
}
