//! The hooks' side of the kernel: maps, the context, return values.

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::{bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use weir_abi::map::{MAX_SOCK_CONNS, MAX_UDP_FLOWS};
use weir_abi::service::{Backend, BackendId, Service, ServiceKey, Slot, SlotKey};

use weir_abi::{Addr, PortBe};

use super::*;
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
/// `SOCK_STREAM` and `SOCK_DGRAM`, as the context's `type`.
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
/// The kernel turns a listening-side or fallen-back MPTCP socket into TCP on the wire.
const IPPROTO_MPTCP: u32 = 262;

struct All;

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
}

// An element of an LRU may be recycled for another key at any time: values are copied at once, and
// a copy mixed of two entries names a backend that the address checks of the callers do not match.
impl Sockets for All {
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
        (SOCK_STREAM, IPPROTO_TCP | IPPROTO_MPTCP) => Some(Proto::TCP),
        (SOCK_DGRAM, IPPROTO_UDP) => Some(Proto::UDP),
        _ => None,
    }
}

#[inline(always)]
fn act<const V6: bool>(ctx: *mut bpf_sock_addr, outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Untouched => PROCEED,
        Outcome::Refuse => {
            // A bare 0 would make the system call fail with EPERM.
            // SAFETY: the helper takes a number (Linux 5.18).
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            STOP
        }
        Outcome::To(to) => {
            set_address::<V6>(ctx, to);
            PROCEED
        }
    }
}

/// Body of `sock_connect4` and `sock_connect6`.
#[inline(always)]
pub fn run_connect<const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    let Some(proto) = protocol(ctx) else {
        return PROCEED;
    };
    let outcome = connect(&All, cookie(ctx), address::<V6>(ctx), proto);
    act::<V6>(ctx, outcome)
}

/// Body of `sock_sendmsg4` and `sock_sendmsg6`.
#[inline(always)]
pub fn run_sendmsg<const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    let outcome = sendmsg(&All, cookie(ctx), address::<V6>(ctx));
    act::<V6>(ctx, outcome)
}

/// Body of `sock_recvmsg4` and `sock_recvmsg6`.
#[inline(always)]
pub fn run_recvmsg<const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    if let Some(frontend) = recvmsg(&All, cookie(ctx), address::<V6>(ctx)) {
        set_address::<V6>(ctx, frontend);
    }
    PROCEED
}

/// Body of `sock_getpeername4` and `sock_getpeername6`.
#[inline(always)]
pub fn run_getpeername<const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    if let Some(frontend) = getpeername(&All, cookie(ctx), address::<V6>(ctx)) {
        set_address::<V6>(ctx, frontend);
    }
    PROCEED
}

/// Body of `sock_release`.
#[inline(always)]
pub fn run_release(sock: *mut bpf_sock) -> i32 {
    // SAFETY: the helper takes the hook's own context.
    let cookie = unsafe { bpf_get_socket_cookie(sock.cast()) };
    release(&All, cookie);
    PROCEED
}
