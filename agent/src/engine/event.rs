//! What reaches the engine.

use tokio::sync::{mpsc, oneshot};
use weir_api::{
    endpoint::{AdoptRequest, Endpoint},
    error::{ApiError, Reason},
    policy::PolicyInfo,
    service::ServiceInfo,
    status::Status,
    verdict::{KernelVerdict, VerdictRequest},
};

use super::endpoints::Key;
use crate::{source::Batch, verify::background::Snapshot};

/// One thing that happened, or that somebody asks.
pub enum Event {
    /// From the source.
    Source(Batch),
    /// The source can deliver no more; why.
    SourceFailed(String),
    /// Links, addresses or routes of the node changed.
    Network,
    /// From the API.
    Command(Command),
    /// Stop: everything stays as it is in the kernel.
    Stop,
}

/// The answer to a command.
pub type Reply<T> = oneshot::Sender<T>;

/// What the API asks.
pub enum Command {
    /// Adopt an endpoint; answered once its policy is in force.
    Adopt(Box<AdoptRequest>, Reply<Result<Endpoint, ApiError>>),
    /// Let an endpoint go.
    Remove(Key, Reply<Result<(), ApiError>>),
    /// Every endpoint, sorted.
    Endpoints(Reply<Vec<Endpoint>>),
    /// How the agent is.
    Status(Reply<Status>),
    /// Every object, as a `kind: List`.
    Objects(Reply<serde_json::Value>),
    /// NetworkPolicies and whom they select here.
    Policies(Reply<Vec<PolicyInfo>>),
    /// Services and their backends.
    Services(Reply<Vec<ServiceInfo>>),
    /// What the kernel's maps say.
    Verdict(Box<VerdictRequest>, Reply<Result<KernelVerdict, ApiError>>),
    /// Objects and endpoints, to be compared with the maps.
    Snapshot(Reply<Snapshot>),
    /// Whether the node is ready, and whether load balancers may send it new connections.
    Health(Reply<(bool, bool)>),
    /// Everything for `/metrics`.
    Metrics(Reply<String>),
    /// Answered once all that was sent before has been taken in.
    TakenIn(Reply<()>),
}

/// Sends events to the engine.
#[derive(Clone)]
pub struct Handle {
    sender: mpsc::Sender<Event>,
}

impl Handle {
    /// To an engine that reads the other end.
    pub fn new(sender: mpsc::Sender<Event>) -> Self {
        Self { sender }
    }

    /// Sends an event; false when the engine is gone.
    pub async fn send(&self, event: Event) -> bool {
        self.sender.send(event).await.is_ok()
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The engine is gone.
    pub async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ApiError> {
        let gone = || ApiError {
            reason: Reason::TryAgain,
            message: "the agent is stopping: ask again once it runs".into(),
        };
        let (reply, answer) = oneshot::channel();
        if !self.send(Event::Command(command(reply))).await {
            return Err(gone());
        }
        answer.await.map_err(|_| gone())
    }
}
