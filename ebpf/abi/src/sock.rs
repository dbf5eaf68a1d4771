//! Socket maps: what the cgroup hooks remember of a socket, by its cookie (`SO_COOKIE`: unique
//! over all network namespaces until the next boot).

use crate::service::BackendId;
use crate::{Addr, PortBe};

/// An address and a port as a socket sees them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SockAddr {
    /// The address.
    pub addr: Addr,
    /// The port.
    pub port: PortBe,
    /// Always zero.
    pub zero: u16,
}

impl SockAddr {
    /// An address and a port.
    #[inline(always)]
    pub const fn new(addr: Addr, port: PortBe) -> Self {
        Self {
            addr,
            port,
            zero: 0,
        }
    }
}

/// Key of `UDP_FLOWS` (`peer` is a frontend) and of `UDP_REVS` (`peer` is a backend).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SockKey {
    /// The socket's cookie.
    pub cookie: u64,
    /// The other end.
    pub peer: SockAddr,
    /// Always zero.
    pub zero: u32,
}

impl SockKey {
    /// One socket and one of its peers.
    #[inline(always)]
    pub const fn new(cookie: u64, peer: SockAddr) -> Self {
        Self {
            cookie,
            peer,
            zero: 0,
        }
    }
}

/// Value of `UDP_FLOWS`: where an unconnected socket's datagrams to a frontend go.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UdpFlow {
    /// The backend.
    pub backend: BackendId,
    /// Of the backend when it was chosen.
    pub incarnation: u32,
}

/// Value of `SOCK_CONNS`, keyed by the socket's cookie (`u64`): a connected socket whose
/// destination was translated.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SockConn {
    /// What the application dialled, and what `getpeername` shows.
    pub frontend: SockAddr,
    /// What the socket is connected to.
    pub backend: SockAddr,
    /// The backend's id.
    pub id: BackendId,
    /// The backend's incarnation when it was chosen.
    pub incarnation: u32,
    /// Cookie of the socket's network namespace.
    pub netns: u64,
}

crate::pod!(SockAddr, SockKey, UdpFlow, SockConn);
