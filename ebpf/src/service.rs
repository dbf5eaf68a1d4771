//! Services: from a frontend to one of its backends.
//!
//! The choice is a function over [`Tables`], so that host tests run the very code that the kernel
//! runs. Maps are private to this module; other modules ask [`select`], [`current`] and
//! [`backend_usable`].

use weir_abi::service::{
    Backend, BackendId, BackendState, Service, ServiceKey, Slot, SlotKey, marker,
};
use weir_abi::{Addr, PortBe, Proto};

/// What a destination is, and where a new flow to it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selection {
    /// No Service has this address: leave the packet as it is.
    NotAService,
    /// A Service's address, but nothing serves there: answer with a refusal, never route it out.
    Refuse,
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
}

/// How often the frontend is read again when its set turns out to be one that is being collected.
const SERVICE_TRIES: u32 = 2;
/// How many neighbouring slots are tried from a random start: covers every set of up to this size.
const SLOT_TRIES: u32 = 8;

/// Chooses a backend for a new flow to `dst`; for protocols without ports, `port` is 0.
#[inline(always)]
pub fn select_in<T: Tables>(tables: &T, dst: &Addr, port: PortBe, proto: Proto) -> Selection {
    match frontend_in(tables, dst, port, proto) {
        Frontend::NotAService => Selection::NotAService,
        Frontend::Refuse => Selection::Refuse,
        Frontend::Serves(key) => match pick(tables, &key, |_| true) {
            Pick::Backend(id, backend) => Selection::Backend { id, backend },
            Pick::Empty | Pick::NoneAccepted => Selection::Refuse,
        },
    }
}

/// What stands at a destination, before a backend is chosen.
pub(crate) enum Frontend {
    NotAService,
    Refuse,
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
        let mut index = scale(tables.random(), service.count);
        for _ in 0..SLOT_TRIES {
            let slot = SlotKey {
                set: service.set,
                index,
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
            index += 1;
            if index >= service.count {
                index = 0;
            }
        }
    }
    found
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
pub use kernel::{backend_usable, current, is_service, select};

#[cfg(target_arch = "bpf")]
mod kernel;

#[cfg(test)]
mod tests;
