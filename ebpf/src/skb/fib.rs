//! What the kernel's routes say of a packet's way. Kernel only.

use aya_ebpf::helpers::generated as bpf;
use weir_abi::conntrack::Tuple;
use weir_abi::{Addr, Proto};

use super::{LOOPBACK, Skb};

impl Skb {
    /// The interface by which the kernel's routes would send a packet that came in by `ifindex` from
    /// `src` to `dst`; 0 if there is no such route.
    #[inline(always)]
    pub fn routed_by(self, ifindex: u32, src: &Addr, dst: &Addr) -> u32 {
        let mut ask = FibLookup::between(ifindex, src, dst);
        let code = self.ask_fib(&mut ask);
        if matches!(code, FIB_SUCCESS | FIB_NO_NEIGHBOUR | FIB_TOO_BIG) {
            ask.ifindex
        } else {
            0
        }
    }

    /// The MTU of the way of a packet that came in by `ifindex` from `src` to `dst`, with what routers
    /// have said of it; 0 if there is no such way.
    #[inline(always)]
    pub fn path_mtu(self, ifindex: u32, src: &Addr, dst: &Addr) -> u32 {
        let mut ask = FibLookup::between(ifindex, src, dst);
        // Larger than any way, so that the kernel looks and says how large its own is.
        ask.tot_len = u16::MAX;
        if self.ask_fib(&mut ask) == FIB_TOO_BIG {
            ask.tot_len as u32
        } else {
            0
        }
    }

    /// Where the node itself would send a packet of `size` bytes, from its IP header on, and to whose MAC address;
    /// none if there is no such way, it is too narrow, or nobody knows the neighbour yet.
    #[inline(always)]
    pub fn next_hop(self, ends: &Tuple, proto: Proto, size: u16) -> Option<NextHop> {
        let mut ask = FibLookup::between(LOOPBACK, &ends.src, &ends.dst);
        // Rules may ask for these, and a choice among several hops may depend on them.
        ask.l4_protocol = proto.0;
        ask.sport = ends.sport.0;
        ask.dport = ends.dport.0;
        ask.tot_len = size;
        if self.ask_fib(&mut ask) != FIB_SUCCESS {
            return None;
        }
        // VLAN's two fields, then the device's own address and the neighbour's.
        let [_, a, b, c] = ask.rest;
        Some(NextHop {
            ifindex: ask.ifindex,
            macs: [b >> 16 | c << 16, c >> 16 | a << 16, a >> 16 | b << 16],
        })
    }

    #[inline(always)]
    fn ask_fib(self, ask: &mut FibLookup) -> i64 {
        let len = size_of::<FibLookup>() as i32;
        // SAFETY: the structure is the kernel's `struct bpf_fib_lookup`, and its length is told.
        unsafe { bpf::bpf_fib_lookup(self.0.cast(), (&raw mut *ask).cast(), len, 0) }
    }
}

/// The next hop of a packet's way.
pub struct NextHop {
    /// The interface that it leaves by.
    pub ifindex: u32,
    /// The MAC addresses of a frame to there: its own and this device's.
    pub macs: [u32; 3],
}

/// `struct bpf_fib_lookup`, with its unions as they go in.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FibLookup {
    family: u8,
    l4_protocol: u8,
    sport: u16,
    dport: u16,
    tot_len: u16,
    ifindex: u32,
    tos: u32,
    src: [u32; 4],
    dst: [u32; 4],
    rest: [u32; 4],
}

impl FibLookup {
    /// The question for the way of what came in by `ifindex`.
    #[inline(always)]
    fn between(ifindex: u32, src: &Addr, dst: &Addr) -> Self {
        let v4 = dst.is_v4();
        let mut ask = Self {
            family: if v4 { AF_INET } else { AF_INET6 },
            ifindex,
            ..Self::default()
        };
        if v4 {
            ask.src[0] = src.v4_word();
            ask.dst[0] = dst.v4_word();
        } else {
            ask.src = src.0;
            ask.dst = dst.0;
        }
        ask
    }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `BPF_FIB_LKUP_RET_*` with an interface filled in.
const FIB_SUCCESS: i64 = 0;
const FIB_NO_NEIGHBOUR: i64 = 7;
const FIB_TOO_BIG: i64 = 8;
