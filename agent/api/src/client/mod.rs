//! A small blocking client of the socket API: one connection and one deadline for each call.

mod http;
mod socket;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    endpoint::{AdoptRequest, Endpoint},
    error::ApiError,
    live::{LiveAnswer, LiveRequest},
    status::Status,
    verdict::{KernelVerdict, VerdictRequest},
};

pub use socket::Canceller;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no such socket: the agent has not started here, or listens elsewhere.
    #[error("no agent: {socket} does not exist; is weir-agent running, with this --socket?")]
    NoSocket {
        /// Its path.
        socket: String,
    },
    /// The socket is there, and nobody listens: the agent is down.
    #[error("no agent: nobody listens on {socket}; is weir-agent running?")]
    Refused {
        /// Its path.
        socket: String,
    },
    /// No complete answer before the deadline.
    #[error("the agent on {socket} gave no answer within {} ms", .after.as_millis())]
    Timeout {
        /// Its path.
        socket: String,
        /// The whole call's deadline.
        after: Duration,
    },
    /// The connection failed: the agent went away in the middle of the call.
    #[error("the agent on {socket} went away: {source}")]
    Lost {
        /// Its path.
        socket: String,
        /// What happened.
        source: std::io::Error,
    },
    /// [`Canceller::cancel`] was called.
    #[error("the call to the agent on {socket} was given up")]
    Cancelled {
        /// Its path.
        socket: String,
    },
    /// The socket cannot be used at all: no permission, a path too long, not a socket.
    #[error("{socket}: {source}")]
    Socket {
        /// Its path.
        socket: String,
        /// What happened.
        source: std::io::Error,
    },
    /// What came back is not an answer of this API.
    #[error("unexpected answer from {socket}: {reason}")]
    Answer {
        /// Its path.
        socket: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The agent refused.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl ClientError {
    /// Whether the agent is down, starting or stuck: the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::NoSocket { .. } | Self::Refused { .. } | Self::Timeout { .. } | Self::Lost { .. }
        )
    }
}

/// Calls one agent.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
    limit: usize,
    canceller: Canceller,
}

impl Client {
    /// Longest time of a call, unless [`Client::timeout`] says otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(5);
    /// Longest answer, bytes: a list of all objects of a large cluster fits.
    pub const LIMIT: usize = 256 << 20;

    /// A client of the agent that listens on a unix socket. Connects with each call.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self {
            socket: socket.as_ref().to_owned(),
            timeout: Self::TIMEOUT,
            limit: Self::LIMIT,
            canceller: Canceller::default(),
        }
    }

    /// Sets the longest time of a call, from connecting to the last byte of the answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What ends the calls of this client and its clones, for good, from another thread.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// `POST /v1/endpoints`: returns once the endpoint's policy is in force.
    pub fn adopt(&self, request: &AdoptRequest) -> Result<Endpoint, ClientError> {
        self.post("/v1/endpoints", request)
    }

    /// `GET /v1/endpoints`.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>, ClientError> {
        self.get("/v1/endpoints")
    }

    /// `GET /v1/endpoints/{containerID}/{ifname}`.
    pub fn endpoint(&self, container_id: &str, ifname: &str) -> Result<Endpoint, ClientError> {
        self.get(&endpoint_path(container_id, ifname))
    }

    /// `DELETE /v1/endpoints/{containerID}/{ifname}`.
    pub fn release(&self, container_id: &str, ifname: &str) -> Result<(), ClientError> {
        self.call("DELETE", &endpoint_path(container_id, ifname), None)
            .map(drop)
    }

    /// `GET /v1/status`.
    pub fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status")
    }

    /// `POST /v1/policy/verdict`.
    pub fn verdict(&self, request: &VerdictRequest) -> Result<KernelVerdict, ClientError> {
        self.post("/v1/policy/verdict", request)
    }

    /// `POST /v1/policy/live`.
    pub fn live(&self, request: &LiveRequest) -> Result<LiveAnswer, ClientError> {
        self.post("/v1/policy/live", request)
    }

    /// `GET path`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.call("GET", path, None)?;
        self.parse(&body)
    }

    /// `POST path` with a JSON body.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let answer = self.call("POST", path, Some(&self.body(body)?))?;
        self.parse(&answer)
    }

    /// `PUT path` with a JSON body; what the answer holds is not looked at.
    pub fn put(&self, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        self.call("PUT", path, Some(&self.body(body)?)).map(drop)
    }

    /// One call; the body of a 2xx answer.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<Vec<u8>, ClientError> {
        let request = http::request(method, path, body);
        let response = self.exchange(&request)?;
        if (200..300).contains(&response.status) {
            return Ok(response.body);
        }
        match serde_json::from_slice::<ApiError>(&response.body) {
            Ok(error) => Err(error.into()),
            Err(_) => {
                let text = String::from_utf8_lossy(&response.body);
                let text: String = text.chars().take(200).collect();
                Err(self.unexpected(format!("{method} {path}: {} {text}", response.status)))
            }
        }
    }

    fn body(&self, body: &impl Serialize) -> Result<Vec<u8>, ClientError> {
        serde_json::to_vec(body).map_err(|e| self.unexpected(e.to_string()))
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|e| self.unexpected(e.to_string()))
    }

    fn unexpected(&self, reason: String) -> ClientError {
        ClientError::Answer {
            socket: self.name(),
            reason,
        }
    }

    fn name(&self) -> String {
        self.socket.display().to_string()
    }
}

/// Path of one endpoint; what RFC 3986 does not leave unreserved is percent-encoded.
fn endpoint_path(container_id: &str, ifname: &str) -> String {
    let mut path = "/v1/endpoints".to_owned();
    for part in [container_id, ifname] {
        path.push('/');
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                path.push(byte.into());
            } else {
                // Writing to a String cannot fail.
                let _ = write!(path, "%{byte:02X}");
            }
        }
    }
    path
}

#[cfg(test)]
mod tests;
