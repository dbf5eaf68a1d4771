//! Questions, and the two ends of a flow.

use std::fmt;
use std::net::IpAddr;

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address. An IPv4-mapped IPv6 address counts as IPv6 here.
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// What a flow carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP (6).
    Tcp,
    /// UDP (17).
    Udp,
    /// SCTP (132).
    Sctp,
    /// ICMP (1), and ICMPv6 (58) over IPv6. Has no ports.
    Icmp,
}

impl Protocol {
    /// Whether its flows have a destination port.
    pub fn has_ports(self) -> bool {
        self != Self::Icmp
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
        })
    }
}

/// One end of a flow, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// A Pod.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The host itself.
    Node(String),
    /// An address: of the pod or node that owns it, else outside.
    Address(IpAddr),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Node(name) => write!(f, "node:{name}"),
            Self::Address(addr) => write!(f, "ip:{addr}"),
        }
    }
}

/// May this flow pass?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// Where the packet comes from.
    pub from: End,
    /// Where it goes, after service translation.
    pub to: End,
    /// By default the first that both ends have, IPv4 first.
    pub family: Option<Family>,
    /// What it carries.
    pub protocol: Protocol,
    /// The destination port of the connection; none for a protocol without ports.
    pub port: Option<u16>,
    /// The packet answers a connection `to → from`, whose protocol and port are those above.
    pub reply: bool,
}

/// What an end turned out to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PartyKind {
    /// A pod with an address of its own.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A hostNetwork pod: reachable at, and seen as, its node's address.
    HostPod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A node.
    Node,
    /// An address in a node's pod CIDR that no known pod and no node owns.
    UnknownPod,
    /// Any other address that no pod and no node owns.
    Outside,
}

/// One end of a flow, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Party {
    /// What it is.
    pub kind: PartyKind,
    /// The node it runs on, or is; none where it is not known.
    pub node: Option<String>,
    /// Its address in the family judged; none where it has none.
    pub address: Option<IpAddr>,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            PartyKind::Pod { namespace, name } => write!(f, "pod {namespace}/{name}"),
            PartyKind::HostPod { namespace, name } => {
                write!(f, "hostNetwork pod {namespace}/{name}")
            }
            PartyKind::Node => write!(f, "node {}", self.node.as_deref().unwrap_or("?")),
            PartyKind::UnknownPod => match self.address {
                Some(addr) => write!(f, "unknown pod {addr}"),
                None => write!(f, "an unknown pod"),
            },
            PartyKind::Outside => match self.address {
                Some(addr) => write!(f, "address {addr}"),
                None => write!(f, "an address outside"),
            },
        }
    }
}

/// A question that has no answer. Each names the object and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// No such Pod.
    #[error("no pod {namespace}/{name} in the objects")]
    UnknownPod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The Pod's phase is Succeeded or Failed: it has no network any more.
    #[error("pod {namespace}/{name} has ended (phase {phase}): it has no network any more")]
    EndedPod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// `status.phase`.
        phase: String,
    },
    /// All the Pod's addresses belong to a newer pod.
    #[error("pod {namespace}/{name} lost its address {address} to the newer pod {owner}")]
    LostAddress {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The address.
        address: IpAddr,
        /// `namespace/name` of the pod that owns it.
        owner: String,
    },
    /// No such Node, and no Pod that runs on it.
    #[error("no node {0} in the objects")]
    UnknownNode(String),
    /// TCP, UDP and SCTP flows need a port, ICMP has none; 0 is no port.
    #[error("{0}")]
    Port(String),
    /// The ends share no family, or an end's address is of another family than the one asked for.
    #[error("{0}")]
    Family(String),
    /// The verdict hangs on an address that an end does not have.
    #[error(
        "the verdict hangs on an address that {party} does not have ({rule}); give it \
         status.podIPs, or name the address itself"
    )]
    NeedsAddress {
        /// The end without the address.
        party: String,
        /// The rule that asks for it.
        rule: String,
    },
    /// The verdict hangs on whether the source is the pod's own node.
    #[error(
        "the verdict hangs on where pod {namespace}/{name} runs: it has no spec.nodeName, so \
         whether {source_node} is its own node is not known"
    )]
    NeedsNode {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The source.
        source_node: String,
    },
    /// A Service that cannot be resolved to backends.
    #[error("service {service}: {reason}")]
    Service {
        /// `namespace/name`.
        service: String,
        /// What is wrong, and the remedy.
        reason: String,
    },
}
