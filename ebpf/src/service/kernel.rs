//! The service maps, and [`Tables`] over them. Kernel only.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap};
use weir_abi::map::{MAX_AFFINITY, MAX_BACKENDS, MAX_SERVICES, MAX_SLOTS, MAX_SOURCE_RANGES};
use weir_abi::node::node_addr;

use super::*;
use crate::{dry_run, maps};

#[map]
static SERVICES: HashMap<ServiceKey, Service> =
    HashMap::with_max_entries(MAX_SERVICES, BPF_F_NO_PREALLOC);
#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(MAX_SLOTS, BPF_F_MMAPABLE);
#[map]
static BACKENDS: Array<Backend> = Array::with_max_entries(MAX_BACKENDS, BPF_F_MMAPABLE);

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
    fn slot(&self, key: &SlotKey) -> Option<Slot> {
        let slot = SLOTS.get_ptr(key.at())?;
        // SAFETY: an array's element is valid for reading until the program ends, and begins at a
        // multiple of 8 bytes. Its one word is written by one store, and read by one load.
        let slot = Slot::unpack(unsafe { slot.cast::<u64>().read_volatile() });
        (slot.backend.0 != 0).then_some(slot)
    }

    /// Certainly one backend's: see [`Backend`].
    #[inline(always)]
    fn backend(&self, id: BackendId) -> Option<Backend> {
        let at = BACKENDS.get_ptr(id.0)?.cast::<u64>();
        // SAFETY: an array's element is valid for reading until the program ends, has four
        // words, and begins at a multiple of 8 bytes.
        let word = |n: usize| unsafe { at.add(n).read_volatile() };
        // The last word is the same before and after only if the others are of one backend: another
        // one's come behind a zero.
        for _ in 0..2 {
            let last = word(3);
            let words = [word(0), word(1), word(2), last];
            if word(3) == last {
                return Backend::unpack(words);
            }
        }
        None
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper takes nothing and only returns a word.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn has_node_ports(&self, addr: &Addr) -> bool {
        maps::node_addr_flags(addr) & node_addr::NODE_PORTS != 0
    }

    #[inline(always)]
    fn in_ranges(&self, key: &RangeKey) -> bool {
        let [a, b, c, d] = key.addr;
        let key = Key::new(key.prefix_len, [key.ranges, key.family, a, b, c, d]);
        SOURCE_RANGES.get(key).is_some()
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        let at = AFFINITY.get_ptr(key)?;
        // SAFETY: a map value is valid for reading until the program ends.
        let value = unsafe { at.read() };
        // An LRU recycles an element at once: another client's says nothing of this one.
        (AFFINITY.get_ptr(key) == Some(at)).then_some(value)
    }

    #[inline(always)]
    fn set_affinity(&self, key: &AffinityKey, value: &Affinity) {
        if !dry_run::is_on() {
            // A map that is full forgets who came longest ago; then the client starts anew.
            let _ = AFFINITY.insert(key, value, 0);
        }
    }
}

/// [`frontend_for`] over the maps.
#[inline(always)]
pub fn frontend(ask: &Ask) -> Frontend {
    frontend_for(&Maps, ask)
}

/// One turn of [`choose`] over the maps, of all backends.
#[inline(always)]
pub fn choose_for(ask: &Ask, key: &ServiceKey) -> Selection {
    choose_once(&Maps, ask, key, &|_: &Backend| true)
}

/// Whether a Service has the destination (then [`frontend`] is not [`Frontend::NotAService`]).
#[inline(always)]
pub fn is_service(dst: &Addr, port: PortBe, proto: Proto) -> bool {
    !matches!(frontend_in(&Maps, dst, port, proto), Frontend::NotAService)
        || !matches!(node_wide_in(&Maps, dst, port, proto), Frontend::NotAService)
}

/// Whether those outside may dial this: a frontend that is no ClusterIP's.
#[inline(always)]
pub fn is_external(addr: &Addr, port: PortBe, proto: Proto) -> bool {
    let wide = ServiceKey {
        addr: ServiceKey::node_wide(addr.is_v4()),
        port,
        proto,
        scope: scope::EVERYONE,
    };
    if Maps.service(&wide).is_some() {
        return true;
    }
    let marker = Maps.service(&ServiceKey::marker(*addr));
    let own = ServiceKey {
        addr: *addr,
        ..wide
    };
    marker.is_some_and(|m| m.flags & marker::REFUSE_UNSERVED == 0) && Maps.service(&own).is_some()
}

/// Whether an address has frontends of its own.
#[inline(always)]
pub fn has_services(dst: &Addr) -> bool {
    Maps.service(&ServiceKey::marker(*dst)).is_some()
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
