//! Service translation at the socket: once for each connection instead of once for each packet.
//!
//! The decisions are functions over [`Sockets`], so that host tests run them. A socket is known by
//! its cookie. Policy is never judged here: packets are, after the translation.

use weir_abi::Proto;
use weir_abi::service::{Backend, BackendId};
use weir_abi::sock::{SockAddr, SockConn, SockKey, UdpFlow};

use crate::service::{Frontend, Pick, Tables, current_in, frontend_in, pick};

/// The socket maps beside the service maps, or their stand-in in a host test.
pub trait Sockets: Tables {
    /// `SOCK_CONNS`.
    fn conn(&self, cookie: u64) -> Option<SockConn>;
    /// Writes `SOCK_CONNS`.
    fn set_conn(&self, cookie: u64, conn: &SockConn);
    /// Deletes from `SOCK_CONNS`.
    fn drop_conn(&self, cookie: u64);
    /// `UDP_FLOWS`.
    fn flow(&self, key: &SockKey) -> Option<UdpFlow>;
    /// Writes `UDP_FLOWS`; whether it was written.
    fn set_flow(&self, key: &SockKey, flow: &UdpFlow) -> bool;
    /// `UDP_REVS`.
    fn rev(&self, key: &SockKey) -> Option<SockAddr>;
    /// Writes `UDP_REVS`; whether it was written.
    fn set_rev(&self, key: &SockKey, frontend: &SockAddr) -> bool;
    /// Deletes from `UDP_REVS`.
    fn drop_rev(&self, key: &SockKey);
}

/// What becomes of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Left as it is: not a Service's, or for the packet path to translate.
    Untouched,
    /// ECONNREFUSED.
    Refuse,
    /// Goes here instead.
    To(SockAddr),
}

/// `connect()` of socket `cookie` to `dst`.
#[inline(always)]
pub fn connect<S: Sockets>(sockets: &S, cookie: u64, dst: SockAddr, proto: Proto) -> Outcome {
    let udp = proto.0 == Proto::UDP.0;
    // A socket that connects again, after a failure or because UDP may, starts afresh.
    release(sockets, cookie);
    let key = match frontend_in(sockets, &dst.addr, dst.port, proto) {
        Frontend::Serves(key) => key,
        other => {
            if udp {
                // Dialled by its own address, a backend shows its own address.
                sockets.drop_rev(&SockKey::new(cookie, dst));
            }
            return match other {
                Frontend::Refuse => Outcome::Refuse,
                Frontend::NotAService | Frontend::Serves(_) => Outcome::Untouched,
            };
        }
    };
    let chosen = if udp {
        match kept(sockets, cookie, dst) {
            Some((id, backend)) => Pick::Backend(id, backend),
            None => pick(sockets, &key, |b| free(sockets, cookie, dst, b)),
        }
    } else {
        pick(sockets, &key, |_| true)
    };
    let (id, backend) = match chosen {
        Pick::Backend(id, backend) => (id, backend),
        Pick::Empty => return Outcome::Refuse,
        Pick::NoneAccepted => return Outcome::Untouched,
    };
    let to = SockAddr::new(backend.addr, backend.port);
    if udp && !sockets.set_rev(&SockKey::new(cookie, to), &dst) {
        return Outcome::Untouched;
    }
    let conn = SockConn {
        frontend: dst,
        backend: to,
        id,
        incarnation: backend.incarnation,
        netns: 0,
    };
    sockets.set_conn(cookie, &conn);
    Outcome::To(to)
}

/// A UDP datagram of socket `cookie` to the explicit destination `dst`.
#[inline(always)]
pub fn sendmsg<S: Sockets>(sockets: &S, cookie: u64, dst: SockAddr) -> Outcome {
    let key = match frontend_in(sockets, &dst.addr, dst.port, Proto::UDP) {
        Frontend::Serves(key) => key,
        Frontend::Refuse => return Outcome::Refuse,
        Frontend::NotAService => {
            // The application dials a backend's own address: replies must show that one. Not so
            // what it sends on its connection: an IPv6 socket connected to an IPv4-mapped address
            // comes here with every datagram, its destination named.
            let rev = SockKey::new(cookie, dst);
            if sockets.rev(&rev).is_some()
                && sockets.conn(cookie).is_none_or(|conn| conn.backend != dst)
            {
                sockets.drop_rev(&rev);
            }
            return Outcome::Untouched;
        }
    };
    if let Some((_, backend)) = kept(sockets, cookie, dst) {
        let to = SockAddr::new(backend.addr, backend.port);
        return claim(sockets, cookie, dst, to);
    }
    let (id, backend) = match pick(sockets, &key, |b| free(sockets, cookie, dst, b)) {
        Pick::Backend(id, backend) => (id, backend),
        Pick::Empty => return Outcome::Refuse,
        Pick::NoneAccepted => return Outcome::Untouched,
    };
    let flow = UdpFlow {
        backend: id,
        incarnation: backend.incarnation,
    };
    if !sockets.set_flow(&SockKey::new(cookie, dst), &flow) {
        return Outcome::Untouched;
    }
    let to = SockAddr::new(backend.addr, backend.port);
    claim(sockets, cookie, dst, to)
}

/// Where the socket's datagrams to this frontend went so far, if they may go on going there.
#[inline(always)]
fn kept<S: Sockets>(sockets: &S, cookie: u64, dst: SockAddr) -> Option<(BackendId, Backend)> {
    let flow = sockets.flow(&SockKey::new(cookie, dst))?;
    let backend = current_in(sockets, flow.backend, flow.incarnation)?;
    free(sockets, cookie, dst, &backend).then_some((flow.backend, backend))
}

/// Whether replies from `backend` to this socket can only mean the frontend `dst`.
#[inline(always)]
fn free<S: Sockets>(sockets: &S, cookie: u64, dst: SockAddr, backend: &Backend) -> bool {
    let peer = SockAddr::new(backend.addr, backend.port);
    match sockets.rev(&SockKey::new(cookie, peer)) {
        Some(frontend) => frontend == dst,
        None => true,
    }
}

/// Makes replies from `to` show `dst`; without that the datagram is left to the packet path.
#[inline(always)]
fn claim<S: Sockets>(sockets: &S, cookie: u64, dst: SockAddr, to: SockAddr) -> Outcome {
    let key = SockKey::new(cookie, to);
    if sockets.rev(&key).is_some() || sockets.set_rev(&key, &dst) {
        Outcome::To(to)
    } else {
        Outcome::Untouched
    }
}

/// A UDP datagram that socket `cookie` got from `src`: the frontend to show instead.
#[inline(always)]
pub fn recvmsg<S: Sockets>(sockets: &S, cookie: u64, src: SockAddr) -> Option<SockAddr> {
    sockets.rev(&SockKey::new(cookie, src))
}

/// The frontend to show instead of `peer`, which socket `cookie` is connected to.
#[inline(always)]
pub fn getpeername<S: Sockets>(sockets: &S, cookie: u64, peer: SockAddr) -> Option<SockAddr> {
    let conn = sockets.conn(cookie)?;
    (conn.backend == peer).then_some(conn.frontend)
}

/// Frees what the socket's connection holds, also when it is closed. What unconnected UDP leaves behind is
/// the LRU's to recycle, as a closing socket does not list its peers; cookies are never reused.
#[inline(always)]
pub fn release<S: Sockets>(sockets: &S, cookie: u64) {
    if let Some(conn) = sockets.conn(cookie) {
        sockets.drop_rev(&SockKey::new(cookie, conn.backend));
        sockets.drop_conn(cookie);
    }
}

#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
pub use kernel::{run_connect, run_getpeername, run_recvmsg, run_release, run_sendmsg};

#[cfg(test)]
mod tests;
