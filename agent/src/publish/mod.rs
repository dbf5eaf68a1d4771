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

use crate::kube_client::Connection;

/// Who the API server notes as the writer.
pub const MANAGER: &str = "weir";

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// Writes to the API, and reads what it is about to write.
#[derive(Clone)]
pub struct Publisher {
    connection: Connection,
    namespace: String,
}

impl Publisher {
    /// Writes by that connection; what is Weir's own is in that namespace.
    pub fn new(connection: Connection, namespace: String) -> Self {
        Self {
            connection,
            namespace,
        }
    }

    fn client(&self) -> Client {
        self.connection.current().client
    }

    /// What it means that something of ours cannot be made where it should be.
    fn without_namespace(&self, error: Error) -> Error {
        match error {
            Error::NotFound { what, .. } => Error::Failed {
                what,
                reason: format!(
                    "there is no namespace {}: make it, or give another by --namespace",
                    self.namespace
                ),
            },
            error => error,
        }
    }

    /// Awaits an answer about `what`, for a while. With credentials that are refused the next request
    /// has others, if there are.
    async fn call<T>(
        &self,
        what: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T> {
        let number = self.connection.current().number;
        let answer = match timeout(PATIENCE, request).await {
            Ok(answer) => answer,
            Err(_) => {
                return Err(Error::Failed {
                    what: what.to_owned(),
                    reason: format!("no answer from the API server within {PATIENCE:?}"),
                });
            }
        };
        if matches!(&answer, Err(kube::Error::Api(status)) if status.code == 401)
            && let Err(e) = self.connection.renew(number).await
        {
            tracing::warn!("{what}: {e:#}");
        }
        answer.map_err(|error| Error::of(what, error))
    }

    /// An object that may not be there. That it is not must be the API server's own word: for a 404 of
    /// a proxy nobody's pod CIDR is to be given to another.
    async fn find<T>(
        &self,
        what: &str,
        name: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<Option<T>> {
        match self.call(what, request).await {
            Ok(object) => Ok(Some(object)),
            Err(Error::NotFound { missing, .. }) if missing == name => Ok(None),
            Err(Error::NotFound { what, .. }) => Err(Error::Failed {
                what,
                reason: "status 404, but not from an API server that looked for it".into(),
            }),
            Err(error) => Err(error),
        }
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
