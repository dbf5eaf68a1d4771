//! What the lab and its pod servers say to each other: one JSON document a line, over the socket
//! that is the server's standard input.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, one-to-one style.
    Sctp,
}

impl Proto {
    /// The IP protocol number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The name Kubernetes writes: `TCP`, `UDP` or `SCTP`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// Reads Kubernetes' name; an absent one is TCP.
    #[must_use]
    pub fn parse(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP").to_ascii_uppercase().as_str() {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// A port a server listens on, on every address of both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listen {
    /// Transport protocol.
    pub proto: Proto,
    /// Port number.
    pub port: u16,
}

/// One attempt to reach somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Probe {
    /// The address and port to reach.
    pub target: SocketAddr,
    /// Transport protocol.
    pub proto: Proto,
    /// Milliseconds until the attempt counts as timed out.
    pub timeout_ms: u64,
    /// Bytes to send after the greeting and to get back unchanged (for UDP: the datagram's size
    /// when larger than the nonce).
    #[serde(default)]
    pub bytes: u32,
    /// UDP without connect(): each datagram is sent with sendto.
    #[serde(default)]
    pub unconnected: bool,
    /// The client's own port; 0 lets the kernel choose.
    #[serde(default)]
    pub source_port: u16,
}

impl Probe {
    /// A probe of a TCP port with a timeout of one second.
    #[must_use]
    pub fn tcp(addr: IpAddr, port: u16) -> Self {
        Self::new(addr, port, Proto::Tcp)
    }

    /// A probe of a UDP port with a timeout of one second.
    #[must_use]
    pub fn udp(addr: IpAddr, port: u16) -> Self {
        Self::new(addr, port, Proto::Udp)
    }

    /// A probe with a timeout of one second.
    #[must_use]
    pub fn new(addr: IpAddr, port: u16, proto: Proto) -> Self {
        Self {
            target: SocketAddr::new(addr, port),
            proto,
            timeout_ms: 1000,
            bytes: 0,
            unconnected: false,
            source_port: 0,
        }
    }

    /// The same probe with another timeout.
    #[must_use]
    pub fn timeout_ms(self, timeout_ms: u64) -> Self {
        Self { timeout_ms, ..self }
    }

    /// The same probe from a port of its own.
    #[must_use]
    pub fn from_port(self, source_port: u16) -> Self {
        Self {
            source_port,
            ..self
        }
    }

    /// The same probe, which also has this many bytes echoed.
    #[must_use]
    pub fn bytes(self, bytes: u32) -> Self {
        Self { bytes, ..self }
    }
}

/// One ICMP echo request, sent again until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Whom to ask.
    pub target: IpAddr,
    /// Milliseconds until the attempt counts as timed out.
    pub timeout_ms: u64,
}

/// The name by which an echo reply is an [`Outcome::Answer`]: it names no server.
pub const ECHO: &str = "echo";

/// What became of a [`Probe`] or a [`Ping`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Outcome {
    /// The other end answered.
    Answer {
        /// The name the server gave: `namespace/pod`.
        from: String,
        /// Whom the client's socket says it talks to (getpeername, or the source of the datagram).
        peer: SocketAddr,
        /// The client's own address.
        local: SocketAddr,
    },
    /// Nothing came back.
    Timeout {
        /// The client's own address, by which the server's record is searched.
        local: SocketAddr,
    },
    /// The connection was refused.
    Refused,
    /// The connection was reset, or ended without a greeting.
    Reset,
    /// The kernel knows no way, or an ICMP error said so.
    Unreachable,
    /// The kernel lacks the protocol.
    Unsupported,
    /// Anything else.
    Failed {
        /// What happened.
        error: String,
    },
}

/// A new flow's first packet that arrived in a pod, recorded by a packet socket before any server
/// or firewall of the pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seen {
    /// Transport protocol.
    pub proto: Proto,
    /// Source address and port of the packet.
    pub from: SocketAddr,
    /// Destination port.
    pub port: u16,
}

/// A steady exchange of numbered messages with an echo server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The address and port to talk to.
    pub target: SocketAddr,
    /// TCP (one connection) or UDP (one connected socket).
    pub proto: Proto,
    /// Milliseconds between messages.
    pub every_ms: u64,
}

/// What became of an [`Exchange`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeReport {
    /// The name the server gave.
    pub from: String,
    /// Messages sent.
    pub sent: u64,
    /// Messages that came back, in order and unchanged.
    pub received: u64,
    /// Why it ended early, if it did.
    pub error: Option<String>,
}

/// How a [`Load`] makes its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Requests {
    /// Each on a TCP connection of its own.
    Short,
    /// All on one TCP connection; a new one where the server has closed the last one after an answer.
    KeepAlive,
    /// All from one unconnected UDP socket.
    Datagrams,
}

/// Requests at a steady pace, each of which must be answered; bounded in count and in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// The address and port to ask.
    pub target: SocketAddr,
    /// How.
    pub requests: Requests,
    /// Milliseconds between requests.
    pub every_ms: u64,
    /// Most requests.
    pub count: u64,
    /// Milliseconds until it ends by itself.
    pub limit_ms: u64,
}

/// What became of a [`Load`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Requests that were made.
    pub sent: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// Who answered how many.
    pub by: BTreeMap<String, u64>,
    /// What went wrong, the first ten.
    pub errors: Vec<String>,
}

/// A request to a pod server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// Listen on these ports as well.
    Listen(Vec<Listen>),
    /// Try to reach somebody.
    Probe(Probe),
    /// Ask by ICMP; answered like `Probe`, by [`ECHO`], and without ports.
    Ping(Ping),
    /// Report what arrived.
    Seen,
    /// Close the packet socket: each packet costs a copy of it.
    StopRecording,
    /// Begin an exchange; answered when it has been stopped or has failed.
    Exchange(Exchange),
    /// Begin a load; answered when it has been stopped or has ended.
    Load(Load),
    /// Close each connection after its next answer, as a server does that is told to end.
    Drain,
    /// Stop the exchange or load that the request of this number began.
    Stop(u64),
}

/// A numbered [`Command`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in the answer.
    pub id: u64,
    /// What to do.
    pub command: Command,
}

/// Answers to [`Command`]s.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// All of `Listen` was done; these the kernel has no protocol for.
    Listening(Vec<Listen>),
    /// Outcome of `Probe`.
    Probe(Outcome),
    /// Answer to `Seen`, sorted.
    Seen(Vec<Seen>),
    /// Answer to `StopRecording`.
    NotRecording,
    /// Outcome of `Exchange`.
    Exchange(ExchangeReport),
    /// Outcome of `Load`.
    Load(LoadReport),
    /// Answer to `Drain`.
    Draining,
    /// Answer to `Stop`.
    Stopped,
    /// The command failed.
    Error(String),
}

/// A numbered [`Answer`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Response {
    /// The request's number.
    pub id: u64,
    /// What came of it.
    pub answer: Answer,
}
