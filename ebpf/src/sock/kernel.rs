//! The hooks' side of the kernel: maps, the context, return values.

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_set_retval,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use weir_abi::map::{MAX_SOCK_CONNS, MAX_UDP_FLOWS};
use weir_abi::node::config;
use weir_abi::service::{
    Affinity, AffinityKey, Backend, BackendId, RangeKey, Service, ServiceKey, Slot, SlotKey,
};

use weir_abi::{Addr, PortBe};

use super::*;
use crate::maps;
use crate::service::Maps;

#[map]
static SOCK_CONNS: LruHashMap<u64, SockConn> = LruHashMap::with_max_entries(MAX_SOCK_CONNS, 0);
#[map]
static UDP_FLOWS: LruHashMap<SockKey, UdpFlow> = LruHashMap::with_max_entries(MAX_UDP_FLOWS, 0);
#[map]
static UDP_REVS: LruHashMap<SockKey, SockAddr> = LruHashMap::with_max_entries(MAX_UDP_FLOWS, 0);

/// What a hook of this kind returns to let the system call go on, and to stop it.
const PROCEED: i32 = 1;
const STOP: i32 = 0;

const ECONNREFUSED: i32 = 111;
const EADDRNOTAVAIL: i32 = 99;
/// `SOCK_STREAM` and `SOCK_DGRAM`, as the context's `type`.
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
/// The kernel turns a listening-side or fallen-back MPTCP socket into TCP on the wire.
const IPPROTO_MPTCP: u32 = 262;

/// The maps and a hook's context; where that is null, only the maps are asked.
struct All(*mut bpf_sock_addr);

/// The word, which is below 256, without what the verifier knows of it: it then follows one way from
/// here on for all that lead here, and not each to the end of the program.
#[inline(always)]
pub(super) fn opaque(word: u32) -> u32 {
    let mut byte = 0u8;
    // SAFETY: both are accesses of the variable; of a byte on the stack the verifier keeps no value.
    unsafe {
        (&raw mut byte).write_volatile(word as u8 | OPAQUE);
        u32::from((&raw const byte).read_volatile()) & !u32::from(OPAQUE)
    }
}

/// A byte of zero is the one that the verifier knows.
const OPAQUE: u8 = 0x80;

#[inline(never)]
fn find(ctx: *mut bpf_sock_addr, dialled: &mut Dialled) -> u32 {
    opaque(frontend::find(&All(ctx), dialled))
}

#[inline(never)]
fn kept(ctx: *mut bpf_sock_addr, dialled: &Dialled, chosen: &mut Chosen) -> u32 {
    opaque(u32::from(frontend::kept(&All(ctx), dialled, chosen)))
}

#[inline(never)]
fn rules(ctx: *mut bpf_sock_addr, dialled: &Dialled, chosen: &mut Chosen) -> u32 {
    opaque(frontend::rules(&All(ctx), dialled, chosen))
}

#[inline(never)]
fn stick(ctx: *mut bpf_sock_addr, dialled: &Dialled, chosen: &Chosen) -> u32 {
    frontend::stick(&All(ctx), dialled, chosen);
    0
}

#[inline(never)]
fn any(ctx: *mut bpf_sock_addr, dialled: &Dialled, chosen: &mut Chosen) -> u32 {
    opaque(frontend::any(&All(ctx), dialled, chosen))
}

/// `NETNS` of the context's socket; 1 if there is an entry.
#[inline(never)]
pub(super) fn owner_of(ctx: *mut bpf_sock_addr, to: &mut NetnsOwner) -> u32 {
    // SAFETY: the helper takes the hook's own context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.cast()) };
    match maps::netns_owner(cookie) {
        Some(owner) => {
            *to = owner;
            1
        }
        None => 0,
    }
}

impl Tables for All {
    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        Maps.service(key)
    }
    #[inline(always)]
    fn slot(&self, key: &SlotKey) -> Option<Slot> {
        Maps.slot(key)
    }
    #[inline(always)]
    fn backend(&self, id: BackendId) -> Option<Backend> {
        Maps.backend(id)
    }
    #[inline(always)]
    fn random(&self) -> u32 {
        Maps.random()
    }
    #[inline(always)]
    fn has_node_ports(&self, addr: &Addr) -> bool {
        Maps.has_node_ports(addr)
    }
    #[inline(always)]
    fn in_ranges(&self, key: &RangeKey) -> bool {
        Maps.in_ranges(key)
    }
    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        Maps.affinity(key)
    }
    #[inline(always)]
    fn set_affinity(&self, key: &AffinityKey, value: &Affinity) {
        Maps.set_affinity(key, value);
    }
}

// An element of an LRU may be recycled for another key at any time: values are copied at once, and
// a copy mixed of two entries names a backend that the address checks of the callers do not match.
impl Sockets for All {
    #[inline(always)]
    fn netns(&self) -> u64 {
        // SAFETY: the helper takes the hook's own context.
        unsafe { bpf_get_netns_cookie(self.0.cast()) }
    }
    #[inline(always)]
    fn owner(&self) -> Option<NetnsOwner> {
        let mut owner = NetnsOwner::default();
        (owner_of(self.0, &mut owner) != 0).then_some(owner)
    }
    #[inline(always)]
    fn is_taken(&self, peer: &SockAddr, proto: Proto) -> bool {
        taken::is_taken(self.0, peer, proto) != 0
    }
    #[inline(always)]
    fn config_flags(&self) -> u64 {
        maps::config_word(config::FLAGS)
    }
    #[inline(always)]
    fn ticks(&self) -> u32 {
        // SAFETY: the helper takes nothing and only returns a word.
        (unsafe { bpf_ktime_get_ns() } >> 30) as u32
    }
    #[inline(always)]
    fn kept(&self, dialled: &Dialled, chosen: &mut Chosen) -> bool {
        kept(self.0, dialled, chosen) != 0
    }
    #[inline(always)]
    fn find(&self, dialled: &mut Dialled) -> u32 {
        find(self.0, dialled)
    }
    #[inline(always)]
    fn rules(&self, dialled: &Dialled, chosen: &mut Chosen) -> u32 {
        rules(self.0, dialled, chosen)
    }
    #[inline(always)]
    fn stick(&self, dialled: &Dialled, chosen: &Chosen) {
        stick(self.0, dialled, chosen);
    }
    #[inline(always)]
    fn any(&self, dialled: &Dialled, chosen: &mut Chosen) -> u32 {
        any(self.0, dialled, chosen)
    }
    #[inline(always)]
    fn conn(&self, cookie: u64) -> Option<SockConn> {
        // SAFETY: the value is copied at once.
        unsafe { SOCK_CONNS.get(cookie).copied() }
    }
    #[inline(always)]
    fn set_conn(&self, cookie: u64, conn: &SockConn) {
        // An LRU makes room for itself; a connection that is not noted shows its backend's address.
        let _ = SOCK_CONNS.insert(cookie, conn, 0);
    }
    #[inline(always)]
    fn drop_conn(&self, cookie: u64) {
        let _ = SOCK_CONNS.remove(cookie);
    }
    #[inline(always)]
    fn flow(&self, key: &SockKey) -> Option<UdpFlow> {
        // SAFETY: the value is one word pair, copied at once.
        unsafe { UDP_FLOWS.get(key).copied() }
    }
    #[inline(always)]
    fn set_flow(&self, key: &SockKey, flow: &UdpFlow) -> bool {
        UDP_FLOWS.insert(key, flow, 0).is_ok()
    }
    #[inline(always)]
    fn rev(&self, key: &SockKey) -> Option<SockAddr> {
        // SAFETY: the value is copied at once.
        unsafe { UDP_REVS.get(key).copied() }
    }
    #[inline(always)]
    fn set_rev(&self, key: &SockKey, frontend: &SockAddr) -> bool {
        UDP_REVS.insert(key, frontend, 0).is_ok()
    }
    #[inline(always)]
    fn drop_rev(&self, key: &SockKey) {
        let _ = UDP_REVS.remove(key);
    }
}

/// The address in the context, as hooks of one family see it.
#[inline(always)]
fn address<const V6: bool>(ctx: *mut bpf_sock_addr) -> SockAddr {
    // SAFETY: the context is the kernel's; each word is read by a load of its own at a constant
    // offset, which the verifier demands.
    unsafe {
        let port = PortBe((&raw const (*ctx).user_port).read_volatile() as u16);
        let addr = if V6 {
            let words = (&raw const (*ctx).user_ip6).cast::<u32>();
            Addr([
                words.read_volatile(),
                words.add(1).read_volatile(),
                words.add(2).read_volatile(),
                words.add(3).read_volatile(),
            ])
        } else {
            Addr::from_v4_word((&raw const (*ctx).user_ip4).read_volatile())
        };
        SockAddr::new(addr, port)
    }
}

/// Replaces it. An IPv4-mapped address of an IPv6 socket is written as it stands in maps.
#[inline(always)]
fn set_address<const V6: bool>(ctx: *mut bpf_sock_addr, to: SockAddr) {
    // SAFETY: as in `address`; these fields are writable in all hooks that come here.
    unsafe {
        if V6 {
            let words = (&raw mut (*ctx).user_ip6).cast::<u32>();
            words.write_volatile(to.addr.0[0]);
            words.add(1).write_volatile(to.addr.0[1]);
            words.add(2).write_volatile(to.addr.0[2]);
            words.add(3).write_volatile(to.addr.0[3]);
        } else {
            (&raw mut (*ctx).user_ip4).write_volatile(to.addr.v4_word());
        }
        (&raw mut (*ctx).user_port).write_volatile(u32::from(to.port.0));
    }
}

#[inline(always)]
fn cookie(ctx: *mut bpf_sock_addr) -> u64 {
    // SAFETY: the helper takes the hook's own context.
    unsafe { bpf_get_socket_cookie(ctx.cast()) }
}

/// The protocol that the socket will speak, if it is one that Services have.
#[inline(always)]
fn protocol(ctx: *mut bpf_sock_addr) -> Option<Proto> {
    // SAFETY: as in `address`.
    let (kind, protocol) = unsafe {
        (
            (&raw const (*ctx).type_).read_volatile(),
            (&raw const (*ctx).protocol).read_volatile(),
        )
    };
    match (kind, protocol) {
        (SOCK_STREAM, IPPROTO_TCP | IPPROTO_MPTCP) => {
            Some(Proto(opaque(Proto::TCP.0.into()) as u8))
        }
        (SOCK_DGRAM, IPPROTO_UDP) => Some(Proto(opaque(Proto::UDP.0.into()) as u8)),
        _ => None,
    }
}

#[inline(always)]
fn act<const V6: bool>(ctx: *mut bpf_sock_addr, outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Untouched => PROCEED,
        Outcome::Refuse => fail(ECONNREFUSED),
        Outcome::Taken => fail(EADDRNOTAVAIL),
        Outcome::To(to) => {
            set_address::<V6>(ctx, to);
            PROCEED
        }
    }
}

/// Makes the system call fail.
#[inline(always)]
fn fail(errno: i32) -> i32 {
    // A bare 0 would make the system call fail with EPERM.
    // SAFETY: the helper takes a number (Linux 5.18).
    unsafe { bpf_set_retval(-errno) };
    STOP
}

/// Body of `sock_connect4` and `sock_connect6`.
#[inline(always)]
pub fn run_connect<const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    let Some(proto) = protocol(ctx) else {
        return PROCEED;
    };
    let outcome = connect(&All(ctx), cookie(ctx), address::<V6>(ctx), proto);
    act::<V6>(ctx, outcome)
}

/// Body of `sock_sendmsg4` and `sock_sendmsg6`.
#[inline(always)]
pub fn run_sendmsg<const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    let outcome = sendmsg(&All(ctx), cookie(ctx), address::<V6>(ctx));
    act::<V6>(ctx, outcome)
}

/// Body of `sock_recvmsg4` and `sock_recvmsg6`.
#[inline(always)]
pub fn run_recvmsg<const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    if let Some(frontend) = recvmsg(&All(ctx), cookie(ctx), address::<V6>(ctx)) {
        set_address::<V6>(ctx, frontend);
    }
    PROCEED
}

/// Body of `sock_getpeername4` and `sock_getpeername6`.
#[inline(always)]
pub fn run_getpeername<const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    if let Some(frontend) = getpeername(&All(ctx), cookie(ctx), address::<V6>(ctx)) {
        set_address::<V6>(ctx, frontend);
    }
    PROCEED
}

/// Body of `sock_release`.
#[inline(always)]
pub fn run_release(sock: *mut bpf_sock) -> i32 {
    // SAFETY: the helper takes the hook's own context.
    let cookie = unsafe { bpf_get_socket_cookie(sock.cast()) };
    release(&All(core::ptr::null_mut()), cookie);
    PROCEED
}
