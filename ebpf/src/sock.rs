//! Service translation at the socket: once for each connection instead of once for each packet.
//!
//! The decisions are functions over [`Sockets`], so that host tests run them. A socket is known by
//! its cookie. Policy is never judged here: packets are, after the translation.

use weir_abi::Proto;
use weir_abi::node::NetnsOwner;
use weir_abi::sock::{SockAddr, SockConn, SockKey, UdpFlow};

use self::frontend::{choose, is_nodes};
use crate::service::Tables;

pub use self::frontend::{Choice, Chosen, Dialled, Found, Rule};

mod frontend;

/// A socket, and the socket maps beside the service maps; or their stand-in in a host test.
pub trait Sockets: Tables + Sized {
    /// Cookie of the socket's network namespace.
    fn netns(&self) -> u64;
    /// `NETNS` of that; `None`: nobody is known to have it.
    fn owner(&self) -> Option<NetnsOwner>;
    /// Whether the port that the socket is bound to has a flow to this peer already: of another
    /// socket, as a port may be shared. False for a socket that is not bound.
    fn is_taken(&self, peer: &SockAddr, proto: Proto) -> bool;
    /// The word [`weir_abi::node::config::FLAGS`] of `CONFIG`.
    fn config_flags(&self) -> u64;
    /// The monotonic clock in ticks of 2^30 ns.
    fn ticks(&self) -> u32;
    /// [`frontend::find`]. In the kernel the steps are functions of their own, whose answer is a
    /// word: so many ways lead through them that the verifier would not follow each to the end.
    #[inline(always)]
    fn find(&self, dialled: &mut Dialled) -> u32 {
        frontend::find(self, dialled)
    }
    /// [`frontend::kept`].
    #[inline(always)]
    fn kept(&self, dialled: &Dialled, chosen: &mut Chosen) -> bool {
        frontend::kept(self, dialled, chosen)
    }
    /// [`frontend::rules`].
    #[inline(always)]
    fn rules(&self, dialled: &Dialled, chosen: &mut Chosen) -> u32 {
        frontend::rules(self, dialled, chosen)
    }
    /// [`frontend::stick`].
    #[inline(always)]
    fn stick(&self, dialled: &Dialled, chosen: &Chosen) {
        frontend::stick(self, dialled, chosen);
    }
    /// [`frontend::any`].
    #[inline(always)]
    fn any(&self, dialled: &Dialled, chosen: &mut Chosen) -> u32 {
        frontend::any(self, dialled, chosen)
    }
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
    /// EADDRNOTAVAIL: the socket's address is in use towards every backend.
    Taken,
    /// Goes here instead.
    To(SockAddr),
}

/// `connect()` of socket `cookie` to `dst`.
#[inline(always)]
pub fn connect<S: Sockets>(sockets: &S, cookie: u64, dst: SockAddr, proto: Proto) -> Outcome {
    // A socket that connects again, after a failure or because UDP may, starts afresh.
    release(sockets, cookie);
    let mut dialled = Dialled::new(cookie, dst, proto);
    match sockets.find(&mut dialled) {
        Found::SERVES => {}
        other => {
            if proto.0 == Proto::UDP.0 {
                // Dialled by its own address, a backend shows its own address.
                sockets.drop_rev(&SockKey::new(cookie, dst));
            }
            return if other == Found::REFUSES {
                Outcome::Refuse
            } else {
                Outcome::Untouched
            };
        }
    }
    let mut chosen = Chosen::default();
    if !sockets.kept(&dialled, &mut chosen) {
        match choose(sockets, &dialled, &mut chosen) {
            Choice::BACKEND => {}
            Choice::NONE_ACCEPTED => return unaccepted(sockets),
            _ => return Outcome::Refuse,
        }
    }
    let to = chosen.to;
    // Asked once and not for each backend of the set, which the verifier would not follow: the
    // packet path has a port for the second flow.
    if sockets.is_taken(&to, proto) {
        return unaccepted(sockets);
    }
    if proto.0 == Proto::UDP.0 && !sockets.set_rev(&SockKey::new(cookie, to), &dst) {
        return Outcome::Untouched;
    }
    let conn = SockConn {
        frontend: dst,
        backend: to,
        id: chosen.id,
        incarnation: chosen.incarnation,
        netns: sockets.netns(),
    };
    sockets.set_conn(cookie, &conn);
    Outcome::To(to)
}

/// A UDP datagram of socket `cookie` to the explicit destination `dst`.
#[inline(always)]
pub fn sendmsg<S: Sockets>(sockets: &S, cookie: u64, dst: SockAddr) -> Outcome {
    let mut dialled = Dialled::new(cookie, dst, Proto::UDP);
    match sockets.find(&mut dialled) {
        Found::SERVES => {}
        Found::REFUSES => return Outcome::Refuse,
        _ => {
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
    }
    let mut chosen = Chosen::default();
    if sockets.kept(&dialled, &mut chosen) {
        return claim(sockets, cookie, dst, chosen.to);
    }
    match choose(sockets, &dialled, &mut chosen) {
        Choice::BACKEND => {}
        Choice::NONE_ACCEPTED => return unaccepted(sockets),
        _ => return Outcome::Refuse,
    }
    let flow = UdpFlow {
        backend: chosen.id,
        incarnation: chosen.incarnation,
    };
    if !sockets.set_flow(&SockKey::new(cookie, dst), &flow) {
        return Outcome::Untouched;
    }
    claim(sockets, cookie, dst, chosen.to)
}

/// What becomes of a flow that would be taken for another one wherever it went. The packet path can
/// tell two such flows apart, by another source port; the node's own sockets have none behind them.
#[inline(always)]
fn unaccepted<S: Sockets>(sockets: &S) -> Outcome {
    if is_nodes(sockets) {
        Outcome::Taken
    } else {
        Outcome::Untouched
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
mod taken;
#[cfg(target_arch = "bpf")]
pub use kernel::{run_connect, run_getpeername, run_recvmsg, run_release, run_sendmsg};

#[cfg(test)]
mod tests;
