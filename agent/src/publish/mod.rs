//! The only writer to the Kubernetes API: every create, update and patch of the agent is here, one
//! function each, with field manager [`MANAGER`].
//!
//! Nothing here decides, retries or remembers. What must not be written over is written with the
//! resource version that was read (compare and swap), or for one UID.

mod error;
mod lease;
mod node;
mod node_cidrs;
mod policy;

use std::{future::Future, time::Duration};

use kube::{
    Client,
    api::{PatchParams, PostParams},
};
use tokio::time::timeout;

pub use error::Error;
pub use node::NETWORK_UNAVAILABLE;
pub use node_cidrs::Stored;
pub use policy::PolicyStatus;

/// Who the API server notes as the writer.
pub const MANAGER: &str = "weir";

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// Writes to the API, and reads what it is about to write.
#[derive(Clone)]
pub struct Publisher {
    client: Client,
    namespace: String,
}

impl Publisher {
    /// Writes as that client; what is Weir's own is in that namespace.
    pub fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }
}

impl Publisher {
    /// What it means that something of ours cannot be made where it should be.
    fn without_namespace(&self, error: Error) -> Error {
        match error {
            Error::NotFound { what } => Error::Failed {
                what,
                reason: format!(
                    "there is no namespace {}: make it, or give another by --namespace",
                    self.namespace
                ),
            },
            error => error,
        }
    }
}

/// Awaits an answer about `what`, for a while.
async fn call<T>(what: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T> {
    match timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(|error| Error::of(what, error)),
        Err(_) => Err(Error::Failed {
            what: what.to_owned(),
            reason: format!("no answer from the API server within {PATIENCE:?}"),
        }),
    }
}

fn post() -> PostParams {
    PostParams {
        dry_run: false,
        field_manager: Some(MANAGER.to_owned()),
    }
}

fn patch() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}
