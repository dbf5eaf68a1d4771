//! Whether another socket has the flow already that a bound socket would get. Kernel only.
//!
//! The kernel gives a socket that is not bound a port of its own for each peer. One that is bound,
//! and shares its port, may dial two frontends; with one backend for both they would be one flow.

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr, bpf_sock_tuple};
use aya_ebpf::helpers::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use weir_abi::node::NetnsOwner;
use weir_abi::sock::SockAddr;
use weir_abi::{Addr, PortBe, Proto};

use super::kernel::{opaque, owner_of};

/// `BPF_F_CURRENT_NETNS`: the socket's own namespace.
const OWN_NETNS: u64 = u64::MAX;
/// `BPF_TCP_ESTABLISHED`, which a connected UDP socket is in, too, and `BPF_TCP_LISTEN`.
const ESTABLISHED: u32 = 1;
const LISTEN: u32 = 10;
/// What the helpers take for an IPv4 and for an IPv6 tuple, by its size.
const TUPLE4: u32 = 12;
const TUPLE6: u32 = 36;

/// Whether a socket other than the context's has the flow to this peer from the port that this one
/// is bound to: 1 if so. A source address that follows from the route, as for the node's sockets
/// that are bound to a port only, is not known: the kernel then refuses the second connection.
#[inline(never)]
pub(super) fn is_taken(ctx: *mut bpf_sock_addr, peer: &SockAddr, proto: Proto) -> u32 {
    // SAFETY: the context is the kernel's, its socket too; each field is read by one load.
    let (sk, port) = unsafe {
        let sk = (&raw const (*ctx).__bindgen_anon_1.sk).read_volatile();
        if sk.is_null() {
            return 0;
        }
        (sk, (&raw const (*sk).src_port).read_volatile())
    };
    if port == 0 {
        return 0;
    }
    let v4 = peer.addr.is_v4();
    let mut local = bound_address(sk, v4);
    if local.is_none() {
        let mut owner = NetnsOwner::default();
        if owner_of(ctx, &mut owner) == 0 {
            return 0;
        }
        local = if v4 { owner.addr4 } else { owner.addr6 };
    }
    let flow = Flow {
        peer: *peer,
        local: SockAddr::new(local, PortBe::new(port as u16)),
        proto,
    };
    opaque(is_anothers(ctx, &flow))
}

/// The address that the socket is bound to; [`Addr::NONE`] if to none.
#[inline(always)]
fn bound_address(sk: *mut bpf_sock, v4: bool) -> Addr {
    // SAFETY: as in `is_taken`. An IPv6 socket that is bound to an IPv4-mapped address has it in
    // both fields.
    unsafe {
        if v4 {
            match (&raw const (*sk).src_ip4).read_volatile() {
                0 => Addr::NONE,
                word => Addr::from_v4_word(word),
            }
        } else {
            let words = (&raw const (*sk).src_ip6).cast::<u32>();
            Addr([
                words.read_volatile(),
                words.add(1).read_volatile(),
                words.add(2).read_volatile(),
                words.add(3).read_volatile(),
            ])
        }
    }
}

/// A flow.
struct Flow {
    peer: SockAddr,
    local: SockAddr,
    proto: Proto,
}

/// The lookup that a packet of the peer would make: 1 if another socket has the flow.
#[inline(never)]
fn is_anothers(ctx: *mut bpf_sock_addr, flow: &Flow) -> u32 {
    let Flow { peer, local, proto } = flow;
    // SAFETY: a tuple of zero words is one.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if peer.addr.is_v4() {
        let v4 = &raw mut tuple.__bindgen_anon_1.ipv4;
        // SAFETY: the union's IPv4 form is within it.
        unsafe {
            (*v4).saddr = peer.addr.v4_word();
            (*v4).daddr = local.addr.v4_word();
            (*v4).sport = peer.port.0;
            (*v4).dport = local.port.0;
        }
        TUPLE4
    } else {
        let v6 = &raw mut tuple.__bindgen_anon_1.ipv6;
        // SAFETY: the union's IPv6 form is within it.
        unsafe {
            (*v6).saddr = peer.addr.0;
            (*v6).daddr = local.addr.0;
            (*v6).sport = peer.port.0;
            (*v6).dport = local.port.0;
        }
        TUPLE6
    };
    let tcp = proto.0 == Proto::TCP.0;
    // SAFETY: the helpers take the hook's own context and a tuple of that size; what they find is
    // released below.
    let taken = unsafe {
        let found = if tcp {
            bpf_skc_lookup_tcp(ctx.cast(), &raw mut tuple, size, OWN_NETNS, 0)
        } else {
            bpf_sk_lookup_udp(ctx.cast(), &raw mut tuple, size, OWN_NETNS, 0)
        };
        if found.is_null() {
            return 0;
        }
        let state = (&raw const (*found).state).read_volatile();
        let own = (&raw const (*ctx).__bindgen_anon_1.sk).read_volatile();
        // A TCP socket that dials is in no table yet; a UDP one may be connected.
        let other = tcp || core::hint::black_box(found) != own;
        bpf_sk_release(found.cast());
        if tcp {
            state != LISTEN
        } else {
            other && state == ESTABLISHED
        }
    };
    opaque(u32::from(taken))
}
