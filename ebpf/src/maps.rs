//! The maps that more than one module reads, and the counters. Kernel only.
//!
//! Control-plane tables are hashes without preallocation: an empty one costs little. The kernel may
//! give a deleted element to another key at once, under the eyes of a program that has just looked
//! it up: so values are copied here, and one of several words is compared with its key afterwards.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray};
use weir_abi::Addr;
use weir_abi::counter;
use weir_abi::endpoint::Endpoint;
use weir_abi::map::*;
use weir_abi::node::{NetnsOwner, NodeAddr, NodeCidr, UplinkInfo, config, node_cidr};
use weir_abi::policy::{
    ClassId, Decision, DecisionKey, IdKey, Interval, LpmKey, PolicySlot, RuleId, RuleInfo,
};

use crate::dry_run;
use crate::scratch::Local;

#[map(name = "ENDPOINTS")]
static ENDPOINTS_MAP: HashMap<u32, Endpoint> =
    HashMap::with_max_entries(MAX_ENDPOINTS, BPF_F_NO_PREALLOC);
#[map(name = "LOCAL_PODS")]
static LOCAL_PODS_MAP: HashMap<Addr, Endpoint> =
    HashMap::with_max_entries(2 * MAX_ENDPOINTS, BPF_F_NO_PREALLOC);
#[map(name = "INCARNATIONS")]
static INCARNATIONS_MAP: Array<Endpoint> = Array::with_max_entries(MAX_ENDPOINTS, BPF_F_MMAPABLE);
#[map(name = "POLICY_SLOTS")]
static POLICY_SLOTS_MAP: Array<PolicySlot> = Array::with_max_entries(MAX_ENDPOINTS, BPF_F_MMAPABLE);
#[map(name = "PEERS")]
static PEERS_MAP: HashMap<Addr, ClassId> = HashMap::with_max_entries(MAX_PEERS, BPF_F_NO_PREALLOC);
#[map(name = "CIDRS")]
static CIDRS_MAP: LpmTrie<[u32; 5], ClassId> = LpmTrie::with_max_entries(MAX_CIDRS, 0);
#[map(name = "DECISIONS")]
static DECISIONS_MAP: HashMap<DecisionKey, Decision> =
    HashMap::with_max_entries(MAX_DECISIONS, BPF_F_NO_PREALLOC);
#[map(name = "INTERVALS")]
static INTERVALS_MAP: Array<Interval> = Array::with_max_entries(MAX_INTERVALS, 0);
#[map(name = "RULES")]
static RULES_MAP: HashMap<RuleId, RuleInfo> =
    HashMap::with_max_entries(MAX_RULES, BPF_F_NO_PREALLOC);
#[map(name = "IDS")]
static IDS_MAP: HashMap<IdKey, u32> = HashMap::with_max_entries(MAX_IDS, BPF_F_NO_PREALLOC);
#[map(name = "NODE_ADDRS")]
static NODE_ADDRS_MAP: HashMap<Addr, NodeAddr> =
    HashMap::with_max_entries(MAX_NODE_ADDRS, BPF_F_NO_PREALLOC);
#[map(name = "NODE_CIDRS")]
static NODE_CIDRS_MAP: LpmTrie<[u32; 5], NodeCidr> = LpmTrie::with_max_entries(MAX_NODE_CIDRS, 0);
#[map(name = "UPLINKS")]
static UPLINKS_MAP: HashMap<u32, UplinkInfo> =
    HashMap::with_max_entries(MAX_UPLINKS, BPF_F_NO_PREALLOC);
#[map(name = "NETNS")]
static NETNS_MAP: HashMap<u64, NetnsOwner> =
    HashMap::with_max_entries(MAX_NETNS, BPF_F_NO_PREALLOC);
#[map(name = "CONFIG")]
static CONFIG_MAP: Array<u64> = Array::with_max_entries(config::WORDS, BPF_F_MMAPABLE);
#[map(name = "COUNTERS")]
static COUNTERS_MAP: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNTERS, 0);
/// Ticks and answers in it: see [`may_answer`].
#[map(name = "ANSWERS")]
static ANSWERS_MAP: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Copies what is known of the pod whose host interface this is; whether there is one.
#[inline(always)]
pub fn endpoint(ifindex: u32, to: &mut Endpoint) -> bool {
    let Some(found) = ENDPOINTS_MAP.get_ptr(ifindex) else {
        return false;
    };
    copy(found, to);
    to.ifindex == ifindex
}

/// Copies what is known of the pod of this node that has the address; whether there is one.
#[inline(always)]
pub fn local_pod(addr: &Addr, to: &mut Local) -> bool {
    let Some(found) = LOCAL_PODS_MAP.get_ptr(addr) else {
        return false;
    };
    // SAFETY: a map value is valid memory until the program ends.
    let found = unsafe { &*found };
    *to = Local::of(found);
    // The address is the first that a new owner of the element would write.
    found.addr4 == *addr || found.addr6 == *addr
}

/// What the short way must know of a pod that sends.
pub struct Sender {
    /// Its address of the family that was asked for.
    pub addr: Addr,
    /// See [`Endpoint`].
    pub ifindex: u32,
    /// See [`Endpoint`].
    pub slot: u32,
}

/// The pod with this incarnation, read in place.
#[inline(always)]
pub fn sender(incarnation: u32, v4: bool) -> Option<Sender> {
    let found = incarnate(incarnation)?;
    // SAFETY: a map value, valid memory until the program ends; volatile, as the key is compared last.
    unsafe {
        let sender = Sender {
            addr: addr_of(found, v4).read_volatile(),
            ifindex: (&raw const (*found).ifindex).read_volatile(),
            slot: (&raw const (*found).slot).read_volatile(),
        };
        is_still(found, incarnation).then_some(sender)
    }
}

/// What the short way must know of a pod that receives.
pub struct Receiver {
    /// Its address of the family that was asked for.
    pub addr: Addr,
    /// See [`Endpoint`].
    pub slot: u32,
    /// See [`Endpoint`].
    pub ifindex: u32,
    /// See [`Endpoint`].
    pub mtu: u32,
    /// See [`Local::macs`].
    pub macs: [u32; 3],
}

/// The pod with this incarnation, read in place.
#[inline(always)]
pub fn receiver(incarnation: u32, v4: bool) -> Option<Receiver> {
    let found = incarnate(incarnation)?;
    // SAFETY: as above. The two MAC addresses are three words.
    unsafe {
        let receiver = Receiver {
            addr: addr_of(found, v4).read_volatile(),
            slot: (&raw const (*found).slot).read_volatile(),
            ifindex: (&raw const (*found).ifindex).read_volatile(),
            mtu: (&raw const (*found).mtu).read_volatile(),
            macs: (&raw const (*found).pod_mac).cast::<[u32; 3]>().read_volatile(),
        };
        is_still(found, incarnation).then_some(receiver)
    }
}

/// The element that is an incarnation's, if it has it: the agent gives it to another one only by way of 0, and only
/// after as many endpoints as there are places (on machines that load out of order, no program takes so long).
#[inline(always)]
fn incarnate(incarnation: u32) -> Option<*const Endpoint> {
    let found = INCARNATIONS_MAP.get_ptr(Endpoint::place(incarnation))?;
    is_still(found, incarnation).then_some(found)
}

#[inline(always)]
fn is_still(found: *const Endpoint, incarnation: u32) -> bool {
    // SAFETY: a map value is valid memory until the program ends.
    let there = unsafe { (&raw const (*found).incarnation).read_volatile() };
    there == incarnation && there != 0
}

#[inline(always)]
fn addr_of(found: *const Endpoint, v4: bool) -> *const Addr {
    // SAFETY: as above; nothing is read.
    unsafe { if v4 { &raw const (*found).addr4 } else { &raw const (*found).addr6 } }
}

/// The host interface of the pod of this node that has the address; 0 if none has it.
#[inline(always)]
pub fn local_ifindex(addr: &Addr) -> u32 {
    // SAFETY: one word, copied at once.
    LOCAL_PODS_MAP
        .get_ptr(addr)
        .map_or(0, |found| unsafe { (*found).ifindex })
}

/// Copies a map value by words.
#[inline(always)]
fn copy<T: Copy>(from: *const T, to: &mut T) {
    // SAFETY: a map value is valid memory until the program ends, and never `to`'s.
    unsafe { core::ptr::copy_nonoverlapping(from, to, 1) };
}

/// One endpoint's policy words.
#[inline(always)]
pub fn policy_slot(slot: u32) -> Option<*const PolicySlot> {
    POLICY_SLOTS_MAP.get_ptr(slot)
}

/// The class of an address that is a live pod's.
#[inline(always)]
pub fn peer(addr: &Addr) -> Option<ClassId> {
    // SAFETY: one word, copied at once.
    unsafe { PEERS_MAP.get(addr).copied() }
}

/// The class of the longest prefix that holds the address.
#[inline(always)]
pub fn cidr(key: &LpmKey) -> Option<ClassId> {
    CIDRS_MAP.get(lpm(key)).copied()
}

/// Where the verdicts of (group, class) stand.
#[inline(always)]
pub fn decision(key: &DecisionKey) -> Option<Decision> {
    let found = DECISIONS_MAP.get_ptr(key)?;
    // SAFETY: a map value, which begins at a multiple of 8 bytes. Both words must be of one
    // write, hence one load.
    let [a, b, c, d, e, f, g, h] = unsafe { found.cast::<u64>().read_volatile() }.to_ne_bytes();
    Some(Decision {
        at: u32::from_ne_bytes([a, b, c, d]),
        len: u32::from_ne_bytes([e, f, g, h]),
    })
}

/// One interval of a decision table.
#[inline(always)]
pub fn interval(index: u32) -> Option<*const Interval> {
    INTERVALS_MAP.get_ptr(index)
}

/// Whether the address is this node's own.
#[inline(always)]
pub fn is_node_addr(addr: &Addr) -> bool {
    NODE_ADDRS_MAP.get_ptr(addr).is_some()
}

/// What the node's own address serves: bits of [`weir_abi::node::node_addr`]; 0 also for an
/// address that is not the node's.
#[inline(always)]
pub fn node_addr_flags(addr: &Addr) -> u32 {
    // SAFETY: one word, copied at once.
    NODE_ADDRS_MAP
        .get_ptr(addr)
        .map_or(0, |found| unsafe { (*found).flags })
}

/// Whose sockets are in the network namespace with this cookie.
#[inline(always)]
pub fn netns_owner(cookie: u64) -> Option<NetnsOwner> {
    let found = NETNS_MAP.get_ptr(cookie)?;
    // SAFETY: a map value is valid memory until the program ends.
    let owner = unsafe { found.read() };
    // A cookie is never given again, so its entry still being there means that it was there.
    (NETNS_MAP.get_ptr(cookie) == Some(found)).then_some(owner)
}

/// A word of the configuration, by its index in [`config`].
#[inline(always)]
pub fn config_word(index: u32) -> u64 {
    // SAFETY: one aligned word, which user space changes by one store.
    CONFIG_MAP
        .get_ptr(index)
        .map_or(0, |word| unsafe { word.read_volatile() })
}

/// Writes a word of the configuration that is the programs' own.
#[inline(always)]
pub fn set_config_word(index: u32, value: u64) {
    if dry_run::is_on() {
        return;
    }
    if let Some(word) = CONFIG_MAP.get_ptr_mut(index) {
        // SAFETY: a map value, valid memory until the program ends; one aligned word.
        unsafe { word.write_volatile(value) };
    }
}

/// Whose the address is, by the longest prefix of `NODE_CIDRS`, read in place: what is read of one is of a node
/// that has or had it.
#[inline(always)]
pub fn owner(addr: &Addr) -> Option<&'static NodeCidr> {
    let found: *const NodeCidr = NODE_CIDRS_MAP.get(lpm(&LpmKey::host(*addr)))?;
    // SAFETY: a map value is valid memory until the program ends.
    Some(unsafe { &*found })
}

/// The uplink towards the node whose pods' prefix holds the address; 0 for none.
#[inline(always)]
pub fn uplink_to(addr: &Addr) -> u32 {
    owner(addr).map_or(0, |cidr| cidr.ifindex)
}

/// The address at which tunnels to the node end that has an address, or whose pods' prefix holds it.
#[inline(always)]
pub fn tunnel(addr: &Addr) -> Option<Addr> {
    let tunnel = owner(addr)?.tunnel;
    (!tunnel.is_none()).then_some(tunnel)
}

/// The node's address of a family on an uplink, which must be one; `::` for none.
#[inline(always)]
pub fn uplink_addr(ifindex: u32, v4: bool) -> Addr {
    let Some(found) = UPLINKS_MAP.get_ptr(ifindex) else {
        return Addr::NONE;
    };
    // SAFETY: a map value, copied at once. It names this node either way.
    unsafe { if v4 { (*found).addr4 } else { (*found).addr6 } }
}

/// Answers to those outside in one tick of the clock, for each CPU.
const ANSWERS_PER_TICK: u64 = 250;

/// Whether one more answer may be sent in this tick.
#[inline(always)]
pub fn may_answer(now: u32) -> bool {
    let Some(value) = ANSWERS_MAP.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the element is this CPU's own.
    let word = unsafe { *value };
    let sent = if (word >> 32) as u32 == now {
        word & 0xffff_ffff
    } else {
        0
    };
    if !dry_run::is_on() {
        // SAFETY: as above.
        unsafe { *value = (now as u64) << 32 | (sent + 1) };
    }
    sent < ANSWERS_PER_TICK
}

/// The key as aya's trie wants it; the bytes are the same.
#[inline(always)]
fn lpm(key: &LpmKey) -> Key<[u32; 5]> {
    let [a, b, c, d] = key.addr;
    let family = u32::from_ne_bytes([key.family, 0, 0, 0]);
    Key::new(key.prefix_len, [family, a, b, c, d])
}

/// Whether this is the node's own address on an uplink, the source of what it translates.
#[inline(always)]
pub fn is_uplink_addr(ifindex: u32, addr: &Addr) -> bool {
    let Some(found) = UPLINKS_MAP.get_ptr(ifindex) else {
        return false;
    };
    // SAFETY: a map value is valid memory until the program ends.
    let found = unsafe { &*found };
    !addr.is_none() && (found.addr4 == *addr || found.addr6 == *addr)
}

/// Whether this is an uplink's own MAC address.
#[inline(always)]
pub fn is_uplink_mac(ifindex: u32, mac: [u8; 6]) -> bool {
    UPLINKS_MAP
        .get_ptr(ifindex)
        // SAFETY: as above.
        .is_some_and(|found| unsafe { (*found).mac } == mac)
}

/// Whether an address is a pod's or a node's of the cluster.
#[inline(always)]
pub fn is_in_cluster(addr: &Addr) -> bool {
    owner(addr).is_some_and(|cidr| cidr.flags & node_cidr::EXTERNAL == 0)
}

/// Whether an address is a pod's or a node's of the cluster, or in `--non-masquerade-cidrs`.
#[inline(always)]
pub fn is_in_node_cidrs(addr: &Addr) -> bool {
    owner(addr).is_some()
}

/// Whether an address is another node's own: those stand among the prefixes without an uplink.
#[inline(always)]
pub fn is_other_node(addr: &Addr) -> bool {
    owner(addr).is_some_and(|cidr| cidr.node != 0 && cidr.ifindex == 0)
}

/// Adds one to a counter, by its number.
#[inline(always)]
pub fn count(counter: u32) {
    if let Some(value) = COUNTERS_MAP.get_ptr_mut(counter) {
        // SAFETY: the element is this CPU's own.
        unsafe { *value += 1 };
    }
}
