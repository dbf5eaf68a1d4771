//! The service maps, and [`Tables`] over them. Kernel only.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use aya_ebpf::maps::{LpmTrie, LruHashMap};
use weir_abi::map::{MAX_AFFINITY, MAX_BACKENDS, MAX_SERVICES, MAX_SLOTS, MAX_SOURCE_RANGES};
use weir_abi::service::{Affinity, AffinityKey};

use super::*;

#[map]
static SERVICES: HashMap<ServiceKey, Service> =
    HashMap::with_max_entries(MAX_SERVICES, BPF_F_NO_PREALLOC);
#[map]
static SLOTS: HashMap<SlotKey, BackendId> = HashMap::with_max_entries(MAX_SLOTS, BPF_F_NO_PREALLOC);
#[map]
static BACKENDS: HashMap<BackendId, Backend> =
    HashMap::with_max_entries(MAX_BACKENDS, BPF_F_NO_PREALLOC);

#[map]
static SOURCE_RANGES: LpmTrie<[u32; 6], u32> =
    LpmTrie::with_max_entries(MAX_SOURCE_RANGES, BPF_F_NO_PREALLOC);
#[map]
static AFFINITY: LruHashMap<AffinityKey, Affinity> = LruHashMap::with_max_entries(MAX_AFFINITY, 0);

/// The maps of this module.
pub(crate) struct Maps;

/// Reads a value by `read` and makes sure that it was still the key's afterwards: the kernel gives
/// an element that was replaced to another key at once, so what a program had looked up may
/// change under it (bpf_mem_alloc, Linux 6.1). Two tries; a key that changes that fast is
/// being replaced, and the caller tries again from further up.
#[inline(always)]
fn stable<K, V, R>(map: &HashMap<K, V>, key: &K, read: impl Fn(*const V) -> R) -> Option<R> {
    for _ in 0..2 {
        let at = map.get_ptr(key)?;
        let value = read(at);
        if map.get_ptr(key) == Some(at) {
            return Some(value);
        }
    }
    None
}

#[inline(always)]
fn read_service(value: *const Service) -> Service {
    // SAFETY: a map value is valid for reading until the program ends, and begins at a
    // multiple of 8 bytes. `set` and `count` must come from one write, hence one load.
    let set_and_count = unsafe { value.cast::<u64>().read_volatile() };
    // SAFETY: as above; these fields are not paired with the others.
    let (flags, affinity_secs, ranges) =
        unsafe { ((*value).flags, (*value).affinity_secs, (*value).ranges) };
    Service::unpack(set_and_count, flags, affinity_secs, ranges)
}

impl Tables for Maps {
    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        SERVICES.get_ptr(key).map(read_service)
    }

    #[inline(always)]
    fn stable_service(&self, key: &ServiceKey) -> Option<Service> {
        stable(&SERVICES, key, read_service)
    }

    #[inline(always)]
    fn stable_backend(&self, id: BackendId) -> Option<Backend> {
        // SAFETY: a map value is valid for reading until the program ends.
        stable(&BACKENDS, &id, |value| unsafe { value.read() })
    }

    #[inline(always)]
    fn slot(&self, key: &SlotKey) -> Option<BackendId> {
        // SAFETY: the value is one word, copied at once. A slot is never replaced, and deleted only
        // when no program can have seen its set for seconds.
        unsafe { SLOTS.get(key).copied() }
    }

    #[inline(always)]
    fn backend(&self, id: BackendId) -> Option<Backend> {
        // SAFETY: the value is copied at once. Should the element be another backend's by then, its
        // incarnation is not the one that `current_in` compares with.
        unsafe { BACKENDS.get(id).copied() }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper takes nothing and only returns a word.
        unsafe { bpf_get_prandom_u32() }
    }
}

/// [`select_in`] over the maps. For protocols without ports, `port` is 0.
#[inline(always)]
pub fn select(dst: &Addr, port: PortBe, proto: Proto) -> Selection {
    select_in(&Maps, dst, port, proto)
}

/// Whether a Service has the destination (then [`select`] is not [`Selection::NotAService`]).
#[inline(always)]
pub fn is_service(dst: &Addr, port: PortBe, proto: Proto) -> bool {
    !matches!(frontend_in(&Maps, dst, port, proto), Frontend::NotAService)
}

/// [`current_in`] over the maps.
#[inline(always)]
pub fn current(id: BackendId, incarnation: u32) -> Option<Backend> {
    current_in(&Maps, id, incarnation)
}

/// Whether flows to the backend may go on. For UDP ask it for every packet and treat "no" as a
/// new flow; for TCP and SCTP ask it for a packet that opens a connection: an established one
/// cannot move, and stays with a backend that is going away until either end closes it.
#[inline(always)]
pub fn backend_usable(id: BackendId, incarnation: u32) -> bool {
    current(id, incarnation).is_some()
}
