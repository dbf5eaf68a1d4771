//! Which sockets to close because their backend is gone.
//!
//! A connected UDP socket whose backend takes nothing any more would send to its address until the
//! application gives up; so would a TCP connection to a pod that vanished without a word. A backend
//! that is only not ready, or that drains, keeps its TCP connections.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use weir_abi::{
    Proto,
    service::{Backend, BackendId, BackendState},
    sock::SockConn,
};

use super::service::Retired;

/// Which protocol a socket has to be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// The backend is not known any more, and what a socket's entry says does not tell.
    Either,
}

/// A socket to close, if it still is connected so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Close {
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// The backend that it must be connected to.
    pub peer: SocketAddr,
    /// Its protocol.
    pub of: Of,
}

/// Sockets to close, by the cookie of their network namespace.
pub type ByNetns = BTreeMap<u64, Vec<Close>>;

/// Backends that were retired, and what of them is to be closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gone(BTreeMap<(BackendId, u32), Of>);

impl Gone {
    /// Takes a backend in: UDP goes when it takes nothing any more, TCP when no EndpointSlice has it
    /// any more. SCTP has no sockets that hooks translate.
    pub fn note(&mut self, retired: &Retired) {
        let Retired {
            id,
            backend,
            deleted,
        } = retired;
        let of = match backend.proto {
            Proto::UDP => Of::Udp,
            Proto::TCP if *deleted => Of::Tcp,
            _ => return,
        };
        self.0.insert((*id, backend.incarnation), of);
    }

    /// Takes in what another has.
    pub fn merge(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// Whether nothing is to be closed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sockets to close among the entries of `SOCK_CONNS`. `known` is what `BACKENDS` held after the
    /// entries had been read: a backend that has come back since it was retired keeps its sockets. With
    /// `survey`, also those whose backend is not usable by that: its retirement may have been told to an
    /// agent that is no more.
    pub fn choose<'a>(
        &self,
        conns: impl IntoIterator<Item = (&'a u64, &'a SockConn)>,
        known: &HashMap<BackendId, Backend>,
        survey: bool,
    ) -> ByNetns {
        let mut chosen = ByNetns::new();
        for (cookie, conn) in conns {
            if takes(conn, known) {
                continue;
            }
            let told = self.0.get(&(conn.id, conn.incarnation)).copied();
            let found = || survey.then(|| lost(conn, known)).flatten();
            if let Some(of) = told.or_else(found) {
                let close = Close {
                    cookie: *cookie,
                    peer: SocketAddr::new(conn.backend.addr.to_ip(), conn.backend.port.get()),
                    of,
                };
                chosen.entry(conn.netns).or_default().push(close);
            }
        }
        chosen
    }
}

/// Whether a socket's backend is there and takes something.
fn takes(conn: &SockConn, known: &HashMap<BackendId, Backend>) -> bool {
    known.get(&conn.id).is_some_and(|backend| {
        backend.incarnation == conn.incarnation && backend.state != BackendState::Removed as u32
    })
}

/// What the backends say of a socket's. One of TCP that is there and takes nothing is not ready: if it
/// had been deleted, that would have been told.
fn lost(conn: &SockConn, known: &HashMap<BackendId, Backend>) -> Option<Of> {
    let backend = known.get(&conn.id);
    match backend.filter(|backend| backend.incarnation == conn.incarnation) {
        None => Some(Of::Either),
        Some(backend) => {
            let is_removed = backend.state == BackendState::Removed as u32;
            (is_removed && backend.proto == Proto::UDP).then_some(Of::Udp)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use weir_abi::{Addr, PortBe, sock::SockAddr};

    use super::*;

    const NETNS: u64 = 7;

    fn backend(address: &str, proto: Proto, incarnation: u32, state: BackendState) -> Backend {
        let address: IpAddr = address.parse().unwrap();
        Backend {
            addr: Addr::from(address),
            port: PortBe::new(8080),
            proto,
            incarnation,
            state: state as u32,
            ..Backend::default()
        }
    }

    fn retired(id: u32, backend: Backend, deleted: bool) -> Retired {
        Retired {
            id: BackendId(id),
            backend,
            deleted,
        }
    }

    fn conn(id: u32, backend: &Backend) -> SockConn {
        SockConn {
            backend: SockAddr::new(backend.addr, backend.port),
            id: BackendId(id),
            incarnation: backend.incarnation,
            netns: NETNS,
            ..SockConn::default()
        }
    }

    fn gone(all: &[Retired]) -> Gone {
        let mut gone = Gone::default();
        all.iter().for_each(|one| gone.note(one));
        gone
    }

    #[test]
    fn a_udp_socket_goes_with_its_backends_use_and_a_tcp_connection_with_its_backend() {
        for address in ["10.0.0.5", "fd00::5"] {
            for (proto, of) in [(Proto::UDP, Of::Udp), (Proto::TCP, Of::Tcp)] {
                let backend = backend(address, proto, 3, BackendState::Active);
                let conns = [(90, conn(1, &backend))];
                let conns = || conns.iter().map(|(cookie, conn)| (cookie, conn));
                let close = Close {
                    cookie: 90,
                    peer: format!("{}:8080", address.replace("fd00::5", "[fd00::5]"))
                        .parse()
                        .unwrap(),
                    of,
                };
                let all = ByNetns::from([(NETNS, vec![close])]);
                let chosen = |deleted| {
                    gone(&[retired(1, backend, deleted)]).choose(conns(), &HashMap::new(), false)
                };
                assert_eq!(chosen(true), all);
                let unready = if proto == Proto::UDP {
                    all
                } else {
                    ByNetns::new()
                };
                assert_eq!(chosen(false), unready);
            }
        }
    }

    #[test]
    fn a_backend_told_unready_and_then_deleted_loses_its_connections_too() {
        let tcp = backend("10.0.0.5", Proto::TCP, 3, BackendState::Removed);
        let mut first = gone(&[retired(1, tcp, false)]);
        assert!(first.is_empty());
        first.merge(&gone(&[retired(1, tcp, true)]));
        assert_eq!(
            first
                .choose([(&90, &conn(1, &tcp))], &HashMap::new(), false)
                .len(),
            1
        );
    }

    #[test]
    fn a_socket_of_another_backend_or_of_another_incarnation_stays() {
        let udp = backend("10.0.0.5", Proto::UDP, 3, BackendState::Active);
        let later = Backend {
            incarnation: 4,
            ..udp
        };
        let gone = gone(&[retired(1, udp, true)]);
        let others = [(90, conn(2, &udp)), (91, conn(1, &later))];
        let others = others.iter().map(|(cookie, conn)| (cookie, conn));
        assert_eq!(gone.choose(others, &HashMap::new(), false), ByNetns::new());
    }

    #[test]
    fn a_backend_that_has_come_back_keeps_the_sockets_that_it_got_since() {
        for proto in [Proto::TCP, Proto::UDP] {
            let asked = backend("10.0.0.5", proto, 3, BackendState::Removed);
            let gone = gone(&[retired(1, asked, true)]);
            let conns = [(90, conn(1, &asked))];
            let closed = |there: Backend| {
                let known = HashMap::from([(BackendId(1), there)]);
                let conns = conns.iter().map(|(cookie, conn)| (cookie, conn));
                gone.choose(conns, &known, false).len()
            };
            let back = Backend {
                state: BackendState::Active as u32,
                ..asked
            };
            assert_eq!((closed(asked), closed(back)), (1, 0));
        }
    }

    #[test]
    fn sctp_has_nothing_to_close() {
        let sctp = backend("10.0.0.5", Proto::SCTP, 3, BackendState::Active);
        assert!(gone(&[retired(1, sctp, true)]).is_empty());
    }

    #[test]
    fn sockets_are_grouped_by_their_namespace() {
        let udp = backend("10.0.0.5", Proto::UDP, 3, BackendState::Active);
        let elsewhere = SockConn {
            netns: 8,
            ..conn(1, &udp)
        };
        let conns = [(90, conn(1, &udp)), (91, elsewhere), (92, conn(1, &udp))];
        let conns = conns.iter().map(|(cookie, conn)| (cookie, conn));
        let chosen = gone(&[retired(1, udp, true)]).choose(conns, &HashMap::new(), false);
        let cookies = |netns| chosen[&netns].iter().map(|c| c.cookie).collect::<Vec<_>>();
        assert_eq!((cookies(NETNS), cookies(8)), (vec![90, 92], vec![91]));
    }

    #[test]
    fn by_the_maps_alone_a_socket_goes_whose_backend_is_not_there_or_takes_no_udp() {
        let state = |proto, state| backend("10.0.0.5", proto, 3, state);
        let chosen = |asked: &Backend, there: Option<Backend>| {
            let known = there.map(|backend| (BackendId(1), backend));
            let known = known.into_iter().collect();
            let chosen = Gone::default().choose([(&90, &conn(1, asked))], &known, true);
            chosen.get(&NETNS).map(|closes| closes[0].of)
        };
        for proto in [Proto::TCP, Proto::UDP] {
            let active = state(proto, BackendState::Active);
            for usable in [active, state(proto, BackendState::Draining)] {
                assert_eq!(chosen(&active, Some(usable)), None);
            }
            assert_eq!(chosen(&active, None), Some(Of::Either));
            let reused = Backend {
                incarnation: 4,
                ..active
            };
            assert_eq!(chosen(&active, Some(reused)), Some(Of::Either));
            let unready = state(proto, BackendState::Removed);
            let udp = (proto == Proto::UDP).then_some(Of::Udp);
            assert_eq!(chosen(&active, Some(unready)), udp);
        }
    }

    #[test]
    fn what_was_told_goes_before_what_the_maps_say() {
        let tcp = backend("10.0.0.5", Proto::TCP, 3, BackendState::Removed);
        let known = HashMap::from([(BackendId(1), tcp)]);
        let gone = gone(&[retired(1, tcp, true)]);
        let chosen = gone.choose([(&90, &conn(1, &tcp))], &known, true);
        assert_eq!(chosen[&NETNS][0].of, Of::Tcp);
    }
}
