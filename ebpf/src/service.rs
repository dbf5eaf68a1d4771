//! Services: from a frontend to one of its backends.
//!
//! The choice is a function over [`Tables`], so that host tests run the very code that the kernel
//! runs. Maps are private to this module; other modules ask the functions of `kernel`.

use core::hint::black_box;

use weir_abi::service::{
    Affinity, AffinityKey, Backend, BackendId, BackendState, RangeKey, Service, ServiceKey, Slot,
    SlotKey, frontend, marker, scope,
};
use weir_abi::{Addr, PortBe, Proto};

mod affinity;
mod spread;

use affinity::Last;

/// Who asks for a frontend.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// A pod of this node.
    Pod,
    /// The node itself.
    Node,
    /// Somebody whose packets come in by an uplink. The choice is then the same on every node.
    Outside,
}

/// A new flow to a destination that may be a Service's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Where the client sends it.
    pub dst: Addr,
    /// The port; 0 for protocols without ports.
    pub port: PortBe,
    /// The protocol.
    pub proto: Proto,
    /// Who sends it; [`Addr::NONE`] if nobody knows: then no source range holds it, and it has no
    /// affinity.
    pub client: Addr,
    /// The port it sends from.
    pub client_port: PortBe,
    /// Where the flow is met.
    pub from: Asker,
    /// Now, in ticks of 2^30 ns of the monotonic clock.
    pub now: u32,
}

/// What a destination is, and where a new flow to it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selection {
    /// No Service has this address: leave the packet as it is.
    NotAService,
    /// A Service's address, but nothing serves there: answer with a refusal, never route it out.
    Refuse,
    /// Nothing serves there, and the client is not to be told.
    Silent,
    /// The client is in none of the frontend's source ranges.
    OutOfRange,
    /// There are usable backends, but the caller accepted none of those it was shown.
    NoneAccepted,
    /// The set turned out to be one that is being collected: read the frontend again.
    Again,
    /// Translate the destination to this backend.
    Backend {
        /// Kept in the flow's state, for [`backend_usable`].
        id: BackendId,
        /// Address, port and incarnation.
        backend: Backend,
    },
}

/// The maps, or their stand-in in a host test.
pub trait Tables {
    /// `SERVICES`.
    fn service(&self, key: &ServiceKey) -> Option<Service>;
    /// `SLOTS`.
    fn slot(&self, key: &SlotKey) -> Option<Slot>;
    /// `BACKENDS`.
    fn backend(&self, id: BackendId) -> Option<Backend>;
    /// A uniformly distributed word.
    fn random(&self) -> u32;

    /// `SERVICES`, certainly of this key, also while the maps change.
    #[inline(always)]
    fn stable_service(&self, key: &ServiceKey) -> Option<Service> {
        self.service(key)
    }
    /// `BACKENDS`, certainly of this id.
    #[inline(always)]
    fn stable_backend(&self, id: BackendId) -> Option<Backend> {
        self.backend(id)
    }
    /// Whether the address serves NodePorts (`NODE_ADDRS`).
    #[inline(always)]
    fn has_node_ports(&self, _: &Addr) -> bool {
        false
    }
    /// Whether a source range holds the client (`SOURCE_RANGES`).
    #[inline(always)]
    fn in_ranges(&self, _: &RangeKey) -> bool {
        false
    }
    /// `AFFINITY`.
    #[inline(always)]
    fn affinity(&self, _: &AffinityKey) -> Option<Affinity> {
        None
    }
    /// Writes `AFFINITY`.
    #[inline(always)]
    fn set_affinity(&self, _: &AffinityKey, _: &Affinity) {}
}

/// How often the frontend is read again when its set turns out to be one that is being collected.
pub const SERVICE_TRIES: u32 = 2;
/// How many neighbouring slots are tried from a random start: covers every set of up to this size.
const SLOT_TRIES: u32 = 8;

/// Chooses a backend for a new flow.
#[inline(always)]
pub fn select_in<T: Tables>(tables: &T, ask: &Ask) -> Selection {
    match frontend_for(tables, ask) {
        Frontend::NotAService => Selection::NotAService,
        Frontend::Refuse => Selection::Refuse,
        Frontend::Serves(key) => choose(tables, ask, &key, |_| true),
    }
}

/// What stands at a destination, before a backend is chosen.
pub enum Frontend {
    /// Nothing: leave the packet as it is.
    NotAService,
    /// An address of which every port is a Service's, and this one serves nothing.
    Refuse,
    /// A frontend.
    Serves(ServiceKey),
}

/// What [`pick`] found.
pub(crate) enum Pick {
    /// A backend that takes the flow.
    Backend(BackendId, Backend),
    /// The set has no usable backend.
    Empty,
    /// There are usable backends, but the caller accepted none of those it was shown.
    NoneAccepted,
}

/// One lookup for an address that is no Service's, two for one that is.
#[inline(always)]
pub(crate) fn frontend_in<T: Tables>(
    tables: &T,
    dst: &Addr,
    port: PortBe,
    proto: Proto,
) -> Frontend {
    let marker_key = ServiceKey::marker(*dst);
    let Some(address) = tables.service(&marker_key) else {
        return Frontend::NotAService;
    };
    let key = ServiceKey {
        port,
        proto,
        ..marker_key
    };
    // Protocol 0 (IPv6 hop-by-hop, or not parsed) with port 0 is the marker, which serves nothing.
    match tables.service(&key) {
        Some(_) if proto.0 != 0 => Frontend::Serves(key),
        _ if address.flags & marker::REFUSE_UNSERVED != 0 => Frontend::Refuse,
        _ => Frontend::NotAService,
    }
}

/// The frontend that an asker gets: an address's own wins over that of all the node's addresses, and
/// who comes from outside may have one of their own.
#[inline(always)]
pub(crate) fn frontend_for<T: Tables>(tables: &T, ask: &Ask) -> Frontend {
    let found = match frontend_in(tables, &ask.dst, ask.port, ask.proto) {
        Frontend::NotAService => node_wide_in(tables, &ask.dst, ask.port, ask.proto),
        found => found,
    };
    let Frontend::Serves(mut key) = found else {
        return found;
    };
    if ask.from == Asker::Outside
        && let Some(service) = tables.service(&key)
        && service.flags & frontend::OUTSIDE_OWN != 0
    {
        key.scope = scope::OUTSIDE;
    }
    Frontend::Serves(key)
}

/// The NodePort, or HostPort without an address, at an address of the node.
#[inline(always)]
pub(crate) fn node_wide_in<T: Tables>(
    tables: &T,
    dst: &Addr,
    port: PortBe,
    proto: Proto,
) -> Frontend {
    if proto.0 == 0 || !tables.has_node_ports(dst) {
        return Frontend::NotAService;
    }
    let key = ServiceKey {
        addr: ServiceKey::node_wide(dst.is_v4()),
        port,
        proto,
        scope: scope::EVERYONE,
    };
    match tables.service(&key) {
        Some(_) => Frontend::Serves(key),
        None => Frontend::NotAService,
    }
}

/// Chooses among those of a frontend's backends that `accept` accepts: where the client went last
/// if it has affinity, else by lot, and for who comes from outside by [`spread::consistent`], unless
/// its affinity has run out.
#[inline(always)]
pub(crate) fn choose<T: Tables>(
    tables: &T,
    ask: &Ask,
    key: &ServiceKey,
    accept: impl Fn(&Backend) -> bool,
) -> Selection {
    let mut found = Selection::Refuse;
    for _ in 0..SERVICE_TRIES {
        match choose_once(tables, ask, key, &accept) {
            Selection::Again => {}
            Selection::NoneAccepted => found = Selection::NoneAccepted,
            other => return other,
        }
    }
    found
}

/// One turn of [`choose`].
#[inline(always)]
fn choose_once<T: Tables>(
    tables: &T,
    ask: &Ask,
    key: &ServiceKey,
    accept: &impl Fn(&Backend) -> bool,
) -> Selection {
    let Some(service) = tables.stable_service(key) else {
        // An own frontend for those outside that is not there (any more).
        return Selection::Refuse;
    };
    if service.ranges != 0 && !tables.in_ranges(&RangeKey::host(service.ranges, ask.client)) {
        return Selection::OutOfRange;
    }
    if service.count == 0 {
        return if service.flags & frontend::SILENT != 0 {
            Selection::Silent
        } else {
            Selection::Refuse
        };
    }
    let sticky = service.affinity_secs != 0 && !ask.client.is_none();
    // The choice for those outside would be the same again, without end.
    let mut anew = false;
    if sticky {
        match affinity::last(tables, ask, key, &service) {
            Last::Kept(id, backend) if accept(&backend) => {
                affinity::remember(tables, ask, key, service.set, (id, backend.incarnation));
                return Selection::Backend { id, backend };
            }
            Last::Expired => anew = true,
            Last::Kept(..) | Last::Nowhere => {}
        }
    }
    let chosen = if ask.from == Asker::Outside && !anew {
        spread::consistent(tables, &service, spread::client_hash(ask, sticky))
    } else {
        by_lot(tables, &service, accept)
    };
    match chosen {
        Pick::Empty => Selection::Again,
        Pick::NoneAccepted => Selection::NoneAccepted,
        Pick::Backend(id, backend) => {
            if sticky {
                affinity::remember(tables, ask, key, service.set, (id, backend.incarnation));
            }
            Selection::Backend { id, backend }
        }
    }
}

/// A uniformly random backend of the frontend's set that is usable and that `accept` accepts. From
/// the random start, neighbours stand in for those that are not.
#[inline(always)]
pub(crate) fn pick<T: Tables>(
    tables: &T,
    key: &ServiceKey,
    accept: impl Fn(&Backend) -> bool,
) -> Pick {
    let mut found = Pick::Empty;
    for _ in 0..SERVICE_TRIES {
        let Some(service) = tables.stable_service(key) else {
            break;
        };
        if service.count == 0 {
            break;
        }
        match by_lot(tables, &service, &accept) {
            Pick::Empty => {}
            Pick::NoneAccepted => found = Pick::NoneAccepted,
            picked => return picked,
        }
    }
    found
}

/// One turn of [`pick`], over a set that is not empty.
#[inline(always)]
fn by_lot<T: Tables>(tables: &T, service: &Service, accept: &impl Fn(&Backend) -> bool) -> Pick {
    let mut found = Pick::Empty;
    let start = scale(tables.random(), service.count);
    for step in 0..SLOT_TRIES {
        if step >= service.count {
            break;
        }
        let slot = SlotKey {
            set: service.set,
            index: around(start, step, service.count),
        };
        // A number that is another backend's by now shows that the set is being collected.
        if let Some(slot) = tables.slot(&slot)
            && let Some(backend) = tables.stable_backend(slot.backend)
            && backend.incarnation == slot.incarnation
            && backend.state != BackendState::Removed as u32
        {
            if accept(&backend) {
                return Pick::Backend(slot.backend, backend);
            }
            found = Pick::NoneAccepted;
        }
    }
    found
}

/// `step` slots behind `start`, around the end of a set; `step` is at most `count`.
#[inline(always)]
fn around(start: u32, step: u32, count: u32) -> u32 {
    let behind = start as u64 + step as u64;
    // Without a branch, after which the verifier would know the one index and not the other, and
    // walk the rest of a loop for each.
    let past_end = black_box((behind.wrapping_sub(count as u64) >> 63) ^ 1);
    (behind - past_end * count as u64) as u32
}

/// Maps a random word to 0..count without a division; the bias is below `count` / 2^32.
#[inline(always)]
fn scale(random: u32, count: u32) -> u32 {
    ((random as u64 * count as u64) >> 32) as u32
}

/// The backend, if flows to it may go on: it exists, is the one the flow was opened to, and is
/// not [`BackendState::Removed`].
#[inline(always)]
pub fn current_in<T: Tables>(tables: &T, id: BackendId, incarnation: u32) -> Option<Backend> {
    tables.backend(id).filter(|backend| {
        backend.incarnation == incarnation && backend.state != BackendState::Removed as u32
    })
}

#[cfg(target_arch = "bpf")]
pub(crate) use kernel::Maps;
#[cfg(target_arch = "bpf")]
pub use kernel::{
    backend_usable, choose_for, current, frontend, has_services, is_external, is_service,
};

#[cfg(target_arch = "bpf")]
mod kernel;

#[cfg(test)]
mod tests;
