use std::cell::RefCell;
use std::collections::HashMap;

use weir_abi::service::{BackendState, Service, ServiceKey, SetId, Slot, SlotKey, marker};

use weir_abi::node::node_addr;
use weir_abi::service::{Affinity, AffinityKey, Backend, BackendId, RangeKey};
use weir_abi::{Addr, PortBe};

use super::*;

mod external;
mod rules;

/// Cookie of the sockets' namespace.
const NETNS: u64 = 4711;

/// Two sockets' worth of maps. Frontends are numbered 1…, backends 1… .
#[derive(Default)]
struct Fake {
    services: HashMap<ServiceKey, Service>,
    slots: HashMap<SlotKey, Slot>,
    backends: RefCell<HashMap<BackendId, Backend>>,
    conns: RefCell<HashMap<u64, SockConn>>,
    flows: RefCell<HashMap<SockKey, UdpFlow>>,
    revs: RefCell<HashMap<SockKey, SockAddr>>,
    seed: RefCell<u32>,
    revs_full: bool,
    owner: Option<NetnsOwner>,
    config: u64,
    node_addrs: HashMap<Addr, u32>,
    /// Which clients each range holds.
    ranges: Vec<(u32, Addr)>,
    affinities: RefCell<HashMap<AffinityKey, Affinity>>,
    ticks: RefCell<u32>,
    /// Peers that another socket of the same port has a flow to.
    taken: Vec<SockAddr>,
}

impl Tables for Fake {
    fn has_node_ports(&self, addr: &Addr) -> bool {
        let flags = self.node_addrs.get(addr).copied().unwrap_or(0);
        flags & node_addr::NODE_PORTS != 0
    }
    fn in_ranges(&self, key: &RangeKey) -> bool {
        let mut ranges = self.ranges.iter();
        ranges.any(|(ranges, client)| RangeKey::host(*ranges, *client) == *key)
    }
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinities.borrow().get(key).copied()
    }
    fn set_affinity(&self, key: &AffinityKey, value: &Affinity) {
        self.affinities.borrow_mut().insert(*key, *value);
    }
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.services.get(key).copied()
    }
    fn slot(&self, key: &SlotKey) -> Option<Slot> {
        self.slots.get(key).copied()
    }
    fn backend(&self, id: BackendId) -> Option<Backend> {
        self.backends.borrow().get(&id).copied()
    }
    fn random(&self) -> u32 {
        let mut seed = self.seed.borrow_mut();
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *seed
    }
}

impl Sockets for Fake {
    fn netns(&self) -> u64 {
        NETNS
    }
    fn owner(&self) -> Option<NetnsOwner> {
        self.owner
    }
    fn is_taken(&self, peer: &SockAddr, _: Proto) -> bool {
        self.taken.contains(peer)
    }
    fn config_flags(&self) -> u64 {
        self.config
    }
    fn ticks(&self) -> u32 {
        *self.ticks.borrow()
    }
    fn conn(&self, cookie: u64) -> Option<SockConn> {
        self.conns.borrow().get(&cookie).copied()
    }
    fn set_conn(&self, cookie: u64, conn: &SockConn) {
        self.conns.borrow_mut().insert(cookie, *conn);
    }
    fn drop_conn(&self, cookie: u64) {
        self.conns.borrow_mut().remove(&cookie);
    }
    fn flow(&self, key: &SockKey) -> Option<UdpFlow> {
        self.flows.borrow().get(key).copied()
    }
    fn set_flow(&self, key: &SockKey, flow: &UdpFlow) -> bool {
        self.flows.borrow_mut().insert(*key, *flow);
        true
    }
    fn rev(&self, key: &SockKey) -> Option<SockAddr> {
        self.revs.borrow().get(key).copied()
    }
    fn set_rev(&self, key: &SockKey, frontend: &SockAddr) -> bool {
        if self.revs_full {
            return false;
        }
        self.revs.borrow_mut().insert(*key, *frontend);
        true
    }
    fn drop_rev(&self, key: &SockKey) {
        self.revs.borrow_mut().remove(key);
    }
}

fn frontend(n: u8) -> SockAddr {
    SockAddr::new(Addr::from_v4([10, 96, 0, n]), PortBe::new(53))
}

fn backend(n: u32) -> SockAddr {
    SockAddr::new(Addr::from_v4([10, 1, 0, n as u8]), PortBe::new(5353))
}

impl Fake {
    /// Frontend `n`, TCP and UDP, on a set of these backends (ids `n` * 100 + backend).
    fn serve(mut self, n: u8, backends: &[u32]) -> Self {
        let SockAddr { addr, port, .. } = frontend(n);
        let refuse = Service {
            flags: marker::REFUSE_UNSERVED,
            ..Service::default()
        };
        self.services.insert(ServiceKey::marker(addr), refuse);
        for proto in [Proto::TCP, Proto::UDP] {
            let key = ServiceKey {
                addr,
                port,
                proto,
                scope: 0,
            };
            let value = Service {
                set: SetId(n.into()),
                count: backends.len() as u32,
                ..Service::default()
            };
            self.services.insert(key, value);
        }
        for (index, number) in (0..).zip(backends) {
            let id = BackendId(u32::from(n) * 100 + number);
            let set = SetId(n.into());
            let slot = Slot {
                backend: id,
                incarnation: 1,
            };
            self.slots.insert(SlotKey { set, index }, slot);
            let SockAddr { addr, port, .. } = backend(*number);
            let value = Backend {
                addr,
                port,
                proto: Proto::UDP,
                state: BackendState::Active as u32,
                zero: 0,
                check: 0,
                incarnation: 1,
            };
            self.backends.borrow_mut().insert(id, value);
        }
        self
    }

    fn set_state(&self, id: u32, state: BackendState) {
        let mut backends = self.backends.borrow_mut();
        backends.get_mut(&BackendId(id)).unwrap().state = state as u32;
    }
}

#[test]
fn a_connected_socket_sees_the_frontend_it_dialled() {
    let fake = Fake::default().serve(1, &[1]);
    for proto in [Proto::TCP, Proto::UDP] {
        assert_eq!(
            connect(&fake, 7, frontend(1), proto),
            Outcome::To(backend(1))
        );
        assert_eq!(getpeername(&fake, 7, backend(1)), Some(frontend(1)));
        assert_eq!(getpeername(&fake, 8, backend(1)), None, "another socket");
        assert_eq!(getpeername(&fake, 7, backend(2)), None, "another peer");
    }
    assert_eq!(recvmsg(&fake, 7, backend(1)), Some(frontend(1)));
}

#[test]
fn a_destination_that_is_no_service_is_untouched() {
    let fake = Fake::default().serve(1, &[1]);
    assert_eq!(
        connect(&fake, 7, backend(1), Proto::TCP),
        Outcome::Untouched
    );
    assert_eq!(
        connect(&fake, 7, backend(1), Proto::UDP),
        Outcome::Untouched
    );
    assert_eq!(sendmsg(&fake, 7, backend(1)), Outcome::Untouched);
    assert_eq!(getpeername(&fake, 7, backend(1)), None);
    assert_eq!(recvmsg(&fake, 7, backend(1)), None);
}

#[test]
fn no_endpoints_and_unserved_ports_are_refused() {
    let fake = Fake::default().serve(1, &[]);
    let unserved = SockAddr::new(frontend(1).addr, PortBe::new(54));
    for dst in [frontend(1), unserved] {
        assert_eq!(connect(&fake, 7, dst, Proto::TCP), Outcome::Refuse);
        assert_eq!(connect(&fake, 7, dst, Proto::UDP), Outcome::Refuse);
        assert_eq!(sendmsg(&fake, 7, dst), Outcome::Refuse);
    }
}

#[test]
fn an_unconnected_socket_keeps_its_backend() {
    let fake = Fake::default().serve(1, &[1, 2, 3, 4, 5]);
    let first = sendmsg(&fake, 7, frontend(1));
    assert!(matches!(first, Outcome::To(_)));
    for _ in 0..100 {
        assert_eq!(sendmsg(&fake, 7, frontend(1)), first);
    }
    let others: std::collections::HashSet<_> = (100..200)
        .map(|cookie| format!("{:?}", sendmsg(&fake, cookie, frontend(1))))
        .collect();
    assert_eq!(others.len(), 5, "other sockets spread over all backends");
}

#[test]
fn a_socket_leaves_a_removed_backend_with_its_next_datagram() {
    let fake = Fake::default().serve(1, &[1, 2]);
    let Outcome::To(first) = sendmsg(&fake, 7, frontend(1)) else {
        panic!("not translated");
    };
    let n = if first == backend(1) { 1 } else { 2 };
    fake.set_state(100 + n, BackendState::Draining);
    assert_eq!(
        sendmsg(&fake, 7, frontend(1)),
        Outcome::To(first),
        "draining keeps it"
    );
    fake.set_state(100 + n, BackendState::Removed);
    assert_eq!(sendmsg(&fake, 7, frontend(1)), Outcome::To(backend(3 - n)));
}

#[test]
fn two_frontends_of_one_socket_never_share_a_backend() {
    let fake = Fake::default().serve(1, &[1, 2]).serve(2, &[1, 2]);
    for cookie in 0..50 {
        let Outcome::To(a) = sendmsg(&fake, cookie, frontend(1)) else {
            panic!("not translated");
        };
        let Outcome::To(b) = sendmsg(&fake, cookie, frontend(2)) else {
            panic!("not translated");
        };
        assert_ne!(a, b);
        assert_eq!(recvmsg(&fake, cookie, a), Some(frontend(1)));
        assert_eq!(recvmsg(&fake, cookie, b), Some(frontend(2)));
    }
}

#[test]
fn a_second_frontend_of_the_only_backend_is_left_to_the_packet_path() {
    let fake = Fake::default().serve(1, &[1]).serve(2, &[1]);
    assert_eq!(sendmsg(&fake, 7, frontend(1)), Outcome::To(backend(1)));
    assert_eq!(sendmsg(&fake, 7, frontend(2)), Outcome::Untouched);
    assert_eq!(recvmsg(&fake, 7, backend(1)), Some(frontend(1)));
    assert_eq!(
        sendmsg(&fake, 8, frontend(2)),
        Outcome::To(backend(1)),
        "another socket"
    );
}

#[test]
fn a_datagram_whose_reply_could_not_be_shown_is_left_to_the_packet_path() {
    let fake = Fake {
        revs_full: true,
        ..Fake::default().serve(1, &[1])
    };
    assert_eq!(sendmsg(&fake, 7, frontend(1)), Outcome::Untouched);
    assert_eq!(
        connect(&fake, 7, frontend(1), Proto::UDP),
        Outcome::Untouched
    );
}

#[test]
fn a_forgotten_reverse_entry_is_made_again_by_the_next_datagram() {
    let fake = Fake::default().serve(1, &[1]);
    sendmsg(&fake, 7, frontend(1));
    fake.revs.borrow_mut().clear();
    assert_eq!(sendmsg(&fake, 7, frontend(1)), Outcome::To(backend(1)));
    assert_eq!(recvmsg(&fake, 7, backend(1)), Some(frontend(1)));
}

#[test]
fn a_backend_dialled_by_its_own_address_shows_its_own_address() {
    let fake = Fake::default().serve(1, &[1]);
    sendmsg(&fake, 7, frontend(1));
    assert_eq!(sendmsg(&fake, 7, backend(1)), Outcome::Untouched);
    assert_eq!(recvmsg(&fake, 7, backend(1)), None);
    connect(&fake, 7, frontend(1), Proto::UDP);
    connect(&fake, 7, backend(1), Proto::UDP);
    assert_eq!(getpeername(&fake, 7, backend(1)), None);
    assert_eq!(recvmsg(&fake, 7, backend(1)), None);
}

#[test]
fn a_datagram_on_a_connection_that_names_its_backend_is_still_the_frontends() {
    let fake = Fake::default().serve(1, &[1]);
    connect(&fake, 7, frontend(1), Proto::UDP);
    assert_eq!(sendmsg(&fake, 7, backend(1)), Outcome::Untouched);
    assert_eq!(recvmsg(&fake, 7, backend(1)), Some(frontend(1)));
}

#[test]
fn a_socket_that_connects_again_is_free_to_take_the_same_backend() {
    let fake = Fake::default().serve(1, &[1]).serve(2, &[1]);
    connect(&fake, 7, frontend(1), Proto::UDP);
    assert_eq!(
        connect(&fake, 7, frontend(2), Proto::UDP),
        Outcome::To(backend(1))
    );
    assert_eq!(getpeername(&fake, 7, backend(1)), Some(frontend(2)));
}

#[test]
fn a_closed_socket_leaves_nothing_of_its_connection() {
    let fake = Fake::default().serve(1, &[1]);
    connect(&fake, 7, frontend(1), Proto::UDP);
    connect(&fake, 8, frontend(1), Proto::TCP);
    for cookie in [7, 8] {
        release(&fake, cookie);
    }
    assert!(fake.conns.borrow().is_empty());
    assert!(fake.revs.borrow().is_empty());
}
