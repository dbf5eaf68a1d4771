//! Listing a namespace's TCP and UDP sockets and closing some of them (`NETLINK_SOCK_DIAG`,
//! linux/inet_diag.h). Closing needs a kernel with `CONFIG_INET_DIAG_DESTROY`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};

use crate::error::{Error, Result};

/// Message types: `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` (linux/sock_diag.h, linux/netlink.h).
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST`, `NLM_F_ACK` and `NLM_F_DUMP`.
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
/// Sizes of `struct nlmsghdr`, `inet_diag_sockid` and `inet_diag_req_v2`.
const HEADER: usize = 16;
const ID: usize = 48;
const BODY: usize = 8 + ID;
/// Where the id stands in `struct inet_diag_msg`.
const ID_IN_ANSWER: usize = 4;
/// Every state that has a peer: not listening, closed, TIME_WAIT, or a connection not accepted yet.
const CONNECTED: u32 =
    (1 << 1) | (1 << 2) | (1 << 3) | (1 << 4) | (1 << 5) | (1 << 8) | (1 << 9) | (1 << 11);

/// A protocol whose sockets can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
}

/// A connected socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// The other end, an IPv4-mapped address as IPv4.
    pub peer: SocketAddr,
    family: u8,
    protocol: Protocol,
    id: [u8; ID],
}

/// A connection to the calling thread's namespace.
pub struct SockDiag {
    socket: Socket,
}

impl SockDiag {
    /// Opens it.
    pub fn open() -> Result<Self> {
        let fail = |call, e| Error::call(call, "a netlink socket", e);
        let mut socket = Socket::new(NETLINK_SOCK_DIAG).map_err(|e| fail("socket", e))?;
        socket.bind_auto().map_err(|e| fail("bind", e))?;
        socket
            .connect(&NetlinkAddr::new(0, 0))
            .map_err(|e| fail("connect", e))?;
        Ok(Self { socket })
    }

    /// The protocol's connected sockets, IPv4 and IPv6.
    pub fn connected(&self, protocol: Protocol) -> Result<Vec<Connected>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            let request = request(
                BY_FAMILY,
                REQUEST | DUMP,
                family,
                protocol,
                CONNECTED,
                &[0; ID],
            );
            self.ask("SOCK_DIAG_BY_FAMILY", &request, |body| {
                found.extend(connected(body, protocol));
            })?;
        }
        Ok(found)
    }

    /// Closes a socket: its owner's calls fail with ECONNABORTED, and a TCP peer gets a reset. A
    /// socket that is gone by now is an error that [`Error::is_gone`].
    pub fn destroy(&self, socket: &Connected) -> Result<()> {
        let Connected {
            family,
            protocol,
            id,
            ..
        } = socket;
        self.destroy_by_id(*family, *protocol, id)
    }

    /// Whether the kernel can list and close sockets of the protocol: asked by closing one that cannot
    /// be, as its port is 0. A kernel that has the protocol's module as a file loads it.
    pub fn can_destroy(&self, protocol: Protocol) -> Result<bool> {
        let family = libc::AF_INET as u8;
        // Of no state: nothing is listed, but an error tells that the module is missing.
        let none = request(BY_FAMILY, REQUEST | DUMP, family, protocol, 0, &[0; ID]);
        match self.ask("SOCK_DIAG_BY_FAMILY", &none, |_| {}) {
            Err(e) if e.is_gone() => return Ok(false),
            listed => listed?,
        }
        match self.destroy_by_id(family, protocol, &[0; ID]) {
            Err(e) if e.errno() == Some(libc::EOPNOTSUPP) => Ok(false),
            Err(e) if e.is_gone() => Ok(true),
            closed => closed.map(|()| true),
        }
    }

    fn destroy_by_id(&self, family: u8, protocol: Protocol, id: &[u8; ID]) -> Result<()> {
        let request = request(DESTROY, REQUEST | ACK, family, protocol, CONNECTED, id);
        self.ask("SOCK_DESTROY", &request, |_| {})
    }

    fn ask(&self, call: &'static str, request: &[u8], mut each: impl FnMut(&[u8])) -> Result<()> {
        let fail = |e| Error::call(call, "sockets", e);
        self.socket.send(request, 0).map_err(fail)?;
        let mut buffer = Vec::with_capacity(64 << 10);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(fail(e)),
            }
            let mut rest = &buffer[..];
            while let Some((kind, body, next)) = message(rest) {
                match kind {
                    // The end of a list carries an error, too: a module that is missing, for one.
                    NLMSG_DONE | NLMSG_ERROR => {
                        return match word(body, 0).map_or(0, i32::from_ne_bytes) {
                            0.. => Ok(()),
                            code => Err(fail(std::io::Error::from_raw_os_error(-code))),
                        };
                    }
                    _ => each(body),
                }
                rest = next;
            }
        }
    }
}

/// The first message of a datagram: its type, its body, and what follows.
fn message(datagram: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(word(datagram, 0)?) as usize;
    let kind = u16::from_ne_bytes(datagram.get(4..6)?.try_into().ok()?);
    let body = datagram.get(HEADER..len)?;
    let next = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, next))
}

fn word(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..at + 4)?.try_into().ok()
}

fn request(
    kind: u16,
    flags: u16,
    family: u8,
    protocol: Protocol,
    states: u32,
    id: &[u8; ID],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + BODY);
    bytes.extend(((HEADER + BODY) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence and port numbers: one request at a time, on a socket that asks nothing else.
    bytes.extend([0; 8]);
    bytes.extend([family, protocol as u8, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

/// Reads `struct inet_diag_msg`; nothing if it is not connected.
fn connected(body: &[u8], protocol: Protocol) -> Option<Connected> {
    let family = *body.first()?;
    let id: [u8; ID] = body.get(ID_IN_ANSWER..ID_IN_ANSWER + ID)?.try_into().ok()?;
    let port = u16::from_be_bytes([id[2], id[3]]);
    let ip: IpAddr = if i32::from(family) == libc::AF_INET {
        Ipv4Addr::from(word(&id, 20)?).into()
    } else {
        let octets: [u8; 16] = id[20..36].try_into().ok()?;
        Ipv6Addr::from(octets).to_canonical()
    };
    let low = u32::from_ne_bytes(word(&id, 40)?);
    let high = u32::from_ne_bytes(word(&id, 44)?);
    (port != 0).then_some(Connected {
        cookie: u64::from(high) << 32 | u64::from(low),
        peer: SocketAddr::new(ip, port),
        family,
        protocol,
        id,
    })
}
