//! From what a socket dials to the backend it gets.

use weir_abi::node::{config::flags, netns};
use weir_abi::service::{
    Affinity, AffinityKey, Backend, BackendId, BackendState, RangeKey, Service, ServiceKey, scope,
};
use weir_abi::sock::{SockAddr, SockKey};
use weir_abi::{Addr, Proto};

use super::Sockets;
use crate::service::{Frontend, Pick, current_in, frontend_in, pick};

/// What a socket dials.
pub struct Dialled {
    /// The socket.
    pub cookie: u64,
    /// The destination.
    pub dst: SockAddr,
    /// TCP or UDP.
    pub proto: Proto,
    /// The frontend that [`find`] finds there.
    pub key: ServiceKey,
}

impl Dialled {
    /// Not looked up yet.
    #[inline(always)]
    pub fn new(cookie: u64, dst: SockAddr, proto: Proto) -> Self {
        Self {
            cookie,
            dst,
            proto,
            key: ServiceKey {
                addr: dst.addr,
                port: dst.port,
                proto,
                scope: scope::EVERYONE,
            },
        }
    }
}

/// The backend that a socket gets.
#[derive(Clone, Copy, Default)]
pub struct Chosen {
    /// Its address and port.
    pub to: SockAddr,
    /// Its number.
    pub id: BackendId,
    /// Its incarnation.
    pub incarnation: u32,
}

impl Chosen {
    /// A backend.
    #[inline(always)]
    pub fn of(id: BackendId, backend: &Backend) -> Self {
        Self {
            to: SockAddr::new(backend.addr, backend.port),
            id,
            incarnation: backend.incarnation,
        }
    }
}

/// What stands at a destination.
pub struct Found;

impl Found {
    /// Nothing of a Service.
    pub const NOTHING: u32 = 0;
    /// A Service's address on a port that it does not serve.
    pub const REFUSES: u32 = 1;
    /// A frontend.
    pub const SERVES: u32 = 2;
}

/// What became of choosing a backend.
pub struct Choice;

impl Choice {
    /// There is none, or none for who asks.
    pub const EMPTY: u32 = 0;
    /// There are some, but a reply of those that were tried could not be told from another's.
    pub const NONE_ACCEPTED: u32 = 1;
    /// One is chosen.
    pub const BACKEND: u32 = 2;
}

/// What stands at the destination for this socket: a word of [`Found`], and the frontend's key. An
/// address of its own beats a frontend that all the node's addresses have.
#[inline(always)]
pub(super) fn find<S: Sockets>(sockets: &S, dialled: &mut Dialled) -> u32 {
    if is_left_alone(sockets) {
        return Found::NOTHING;
    }
    let SockAddr { addr, port, .. } = dialled.dst;
    // A pod's own loopback is not the node's.
    if is_loopback(&addr) && !is_nodes(sockets) {
        return Found::NOTHING;
    }
    match frontend_in(sockets, &addr, port, dialled.proto) {
        Frontend::NotAService => {}
        Frontend::Refuse => return Found::REFUSES,
        Frontend::Serves(_) => return Found::SERVES,
    }
    if !has_node_ports(sockets, &addr) {
        return Found::NOTHING;
    }
    dialled.key.addr = ServiceKey::node_wide(addr.is_v4());
    match sockets.service(&dialled.key) {
        Some(_) => Found::SERVES,
        None => Found::NOTHING,
    }
}

/// Whether replies from the backend to this socket can only mean the frontend that it dials. A
/// connected TCP socket has one peer.
#[inline(always)]
pub(super) fn free<S: Sockets>(sockets: &S, dialled: &Dialled, backend: &Backend) -> bool {
    if dialled.proto.0 != Proto::UDP.0 {
        return true;
    }
    let peer = SockAddr::new(backend.addr, backend.port);
    match sockets.rev(&SockKey::new(dialled.cookie, peer)) {
        Some(frontend) => frontend == dialled.dst,
        None => true,
    }
}

/// Where the socket's datagrams to this frontend went so far, if they may go on going there.
#[inline(always)]
pub(super) fn kept<S: Sockets>(sockets: &S, dialled: &Dialled, chosen: &mut Chosen) -> bool {
    if dialled.proto.0 != Proto::UDP.0 {
        return false;
    }
    let Some(flow) = sockets.flow(&SockKey::new(dialled.cookie, dialled.dst)) else {
        return false;
    };
    let Some(backend) = current_in(sockets, flow.backend, flow.incarnation) else {
        return false;
    };
    if !free(sockets, dialled, &backend) {
        return false;
    }
    *chosen = Chosen::of(flow.backend, &backend);
    true
}

/// Whether the packet path is to do all (`--socket-lb=host-only`): a proxy in the pod's namespace
/// must see what the pod dials.
#[inline(always)]
fn is_left_alone<S: Sockets>(sockets: &S) -> bool {
    sockets.config_flags() & flags::SOCKET_LB_HOST_ONLY != 0 && !is_nodes(sockets)
}

/// Whether the socket is in the node's own namespace.
#[inline(always)]
pub(super) fn is_nodes<S: Sockets>(sockets: &S) -> bool {
    sockets
        .owner()
        .is_some_and(|owner| owner.flags & netns::NODE != 0)
}

/// Whether NodePorts answer at this address, which is no pod's loopback.
#[inline(always)]
fn has_node_ports<S: Sockets>(sockets: &S, addr: &Addr) -> bool {
    is_loopback(addr) || sockets.has_node_ports(addr)
}

/// 127.0.0.0/8 or ::1.
#[inline(always)]
fn is_loopback(addr: &Addr) -> bool {
    if addr.is_v4() {
        u32::from_be(addr.v4_word()) >> 24 == 127
    } else {
        addr.0[0] | addr.0[1] | addr.0[2] | (addr.0[3] ^ 1u32.to_be()) == 0
    }
}

/// The address of the socket's owner in the family of `addr`; [`Addr::NONE`] for nobody's.
#[inline(always)]
fn client<S: Sockets>(sockets: &S, addr: &Addr) -> Addr {
    match sockets.owner() {
        Some(owner) if addr.is_v4() => owner.addr4,
        Some(owner) => owner.addr6,
        None => Addr::NONE,
    }
}

/// A backend of the frontend that is free, if the socket's owner may use the frontend: a word of
/// [`Choice`].
#[inline(always)]
pub(super) fn choose<S: Sockets>(sockets: &S, dialled: &Dialled, chosen: &mut Chosen) -> u32 {
    let rule = sockets.rules(dialled, chosen);
    if rule == Rule::NONE_FOR_CLIENT {
        return Choice::EMPTY;
    }
    if rule != Rule::LAST {
        let choice = sockets.any(dialled, chosen);
        if choice != Choice::BACKEND {
            return choice;
        }
    }
    if rule != Rule::ANY {
        sockets.stick(dialled, chosen);
    }
    Choice::BACKEND
}

/// What the frontend's rules say of a client.
pub struct Rule;

impl Rule {
    /// It may not use the frontend, or there is none.
    pub const NONE_FOR_CLIENT: u32 = 0;
    /// It gets any backend.
    pub const ANY: u32 = 1;
    /// It gets any, and keeps it.
    pub const ANY_TO_KEEP: u32 = 2;
    /// It keeps the backend that it had last, which is chosen.
    pub const LAST: u32 = 3;
}

/// Asks the frontend's source ranges and affinity: a word of [`Rule`].
#[inline(always)]
pub(super) fn rules<S: Sockets>(sockets: &S, dialled: &Dialled, chosen: &mut Chosen) -> u32 {
    let Some(service) = sockets.service(&dialled.key) else {
        return Rule::NONE_FOR_CLIENT;
    };
    if service.ranges == 0 && service.affinity_secs == 0 {
        return Rule::ANY;
    }
    let client = client(sockets, &dialled.dst.addr);
    if service.ranges != 0 && !may_use(sockets, service.ranges, client) {
        return Rule::NONE_FOR_CLIENT;
    }
    if service.affinity_secs == 0 || client.is_none() {
        return Rule::ANY;
    }
    let key = affinity_key(client, dialled);
    if last(sockets, &key, &service, dialled, chosen) {
        Rule::LAST
    } else {
        Rule::ANY_TO_KEEP
    }
}

#[inline(always)]
fn affinity_key(client: Addr, dialled: &Dialled) -> AffinityKey {
    AffinityKey {
        client,
        frontend: dialled.key,
        zero: 0,
    }
}

/// Remembers where the client's newest flow goes.
#[inline(always)]
pub(super) fn stick<S: Sockets>(sockets: &S, dialled: &Dialled, chosen: &Chosen) {
    let Some(service) = sockets.service(&dialled.key) else {
        return;
    };
    let client = client(sockets, &dialled.dst.addr);
    let value = Affinity {
        backend: chosen.id,
        incarnation: chosen.incarnation,
        last_used: sockets.ticks(),
        set: service.set,
    };
    sockets.set_affinity(&affinity_key(client, dialled), &value);
}

/// Any backend of the frontend that is free: a word of [`Choice`].
#[inline(always)]
pub(super) fn any<S: Sockets>(sockets: &S, dialled: &Dialled, chosen: &mut Chosen) -> u32 {
    match pick(sockets, &dialled.key, |b| free(sockets, dialled, b)) {
        Pick::Backend(id, backend) => {
            *chosen = Chosen::of(id, &backend);
            Choice::BACKEND
        }
        Pick::Empty => Choice::EMPTY,
        Pick::NoneAccepted => Choice::NONE_ACCEPTED,
    }
}

/// Whether a range holds the client. `::/0` holds the address that stands for nobody, who is in none.
#[inline(always)]
fn may_use<S: Sockets>(sockets: &S, ranges: u32, client: Addr) -> bool {
    !client.is_none() && sockets.in_ranges(&RangeKey::host(ranges, client))
}

/// Whether there is a backend that the client had last, and may still have.
#[inline(always)]
fn last<S: Sockets>(
    sockets: &S,
    key: &AffinityKey,
    service: &Service,
    dialled: &Dialled,
    chosen: &mut Chosen,
) -> bool {
    let Some(last) = sockets.affinity(key) else {
        return false;
    };
    let age_ns = u64::from(sockets.ticks().wrapping_sub(last.last_used)) << 30;
    if age_ns > u64::from(service.affinity_secs) * 1_000_000_000 {
        return false;
    }
    let Some(backend) = current_in(sockets, last.backend, last.incarnation) else {
        return false;
    };
    // A backend that drains is in no set any more.
    if backend.state != BackendState::Active as u32 || !free(sockets, dialled, &backend) {
        return false;
    }
    *chosen = Chosen::of(last.backend, &backend);
    true
}
