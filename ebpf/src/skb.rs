//! The kernel's packet buffer, by its helpers. Kernel only.
//!
//! All access is by copying helpers, which take any offset and check it themselves: no packet
//! pointer has to survive a helper call, and a packet need not be linear.

mod fib;
mod tunnel;

pub use fib::NextHop;

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM,
};
use aya_ebpf::helpers::generated as bpf;
use weir_abi::conntrack::Tuple;

use crate::packet::Bytes;

/// A packet buffer.
#[derive(Clone, Copy)]
pub struct Skb(*mut __sk_buff);

/// `pkt_type` of a frame that is addressed to this machine.
pub const PACKET_HOST: u32 = 0;

/// Index of the loopback device in every network namespace: what the node itself sends comes from there, as
/// rules about routes see it.
pub const LOOPBACK: u32 = 1;

/// Answer of a helper that failed; the packet is then dropped and counted as internal.
#[derive(Clone, Copy)]
pub struct Failed;

/// Turns a helper's return code into a result.
#[inline(always)]
fn check(code: i64) -> Result<(), Failed> {
    if code < 0 { Err(Failed) } else { Ok(()) }
}

macro_rules! field {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(self) -> u32 {
            // SAFETY: the context is valid for the whole program; the verifier turns the load
            // into the field's own.
            unsafe { (*self.0).$name }
        }
    };
}

impl Skb {
    /// From the context of a tc program.
    #[inline(always)]
    pub fn new(ctx: *mut __sk_buff) -> Self {
        Self(ctx)
    }

    field!(
        /// Index of the interface whose hook runs.
        ifindex
    );
    field!(
        /// Index of the interface the packet came in by; 0 for what this machine itself sends.
        ingress_ifindex
    );
    field!(
        /// Not 0 if the frame had a VLAN tag.
        vlan_present
    );
    field!(
        /// Whom the frame is addressed to, see [`PACKET_HOST`].
        pkt_type
    );
    field!(
        /// The EtherType, in network order.
        protocol
    );
    field!(
        /// Payload of each segment, 0 if the packet is one.
        gso_size
    );

    field!(
        /// What programs and rules of the node tell each other of the packet.
        mark
    );

    /// Sets the mark.
    #[inline(always)]
    pub fn set_mark(self, mark: u32) {
        // SAFETY: a tc program may write the field.
        unsafe { (*self.0).mark = mark };
    }

    /// Writes bytes.
    #[inline(always)]
    pub fn store<const N: usize>(self, offset: u32, bytes: &[u8; N]) -> Result<(), Failed> {
        // SAFETY: `bytes` is N readable bytes; the helper checks the offset.
        check(unsafe {
            bpf::bpf_skb_store_bytes(self.0, offset, bytes.as_ptr().cast(), N as u32, 0)
        })
    }

    /// Writes words.
    #[inline(always)]
    pub fn store_words<const N: usize>(self, offset: u32, words: &[u32; N]) -> Result<(), Failed> {
        // SAFETY: `words` is 4 * N readable bytes; the helper checks the offset.
        check(unsafe {
            bpf::bpf_skb_store_bytes(self.0, offset, words.as_ptr().cast(), 4 * N as u32, 0)
        })
    }

    /// Writes words, and keeps the device's checksum over the whole packet right
    /// (CHECKSUM_COMPLETE): for headers that have no checksum of their own to balance the change.
    #[inline(always)]
    pub fn store_summed<const N: usize>(self, offset: u32, words: &[u32; N]) -> Result<(), Failed> {
        // SAFETY: `words` is 4 * N readable bytes; the helper checks the offset.
        check(unsafe {
            bpf::bpf_skb_store_bytes(
                self.0,
                offset,
                words.as_ptr().cast(),
                4 * N as u32,
                BPF_F_RECOMPUTE_CSUM as u64,
            )
        })
    }

    /// Keeps the device's checksum over the whole packet right (CHECKSUM_COMPLETE) after 16 bits at an even
    /// place were changed that no checksum in the packet balances.
    #[inline(always)]
    pub fn checksum_changed(self, old: u16, new: u16) {
        let difference = !old as u32 + new as u32;
        // SAFETY: scalars only. It fails where there is no such sum.
        unsafe { bpf::bpf_csum_update(self.0, difference) };
    }

    /// Corrects a transport checksum for a change of the pseudo header.
    #[inline(always)]
    pub fn checksum_pseudo(
        self,
        at: u32,
        old: u32,
        new: u32,
        zero_is_none: bool,
    ) -> Result<(), Failed> {
        let flags = BPF_F_PSEUDO_HDR as u64 | 4 | mangled(zero_is_none);
        // SAFETY: scalars only; the helper checks the offset.
        check(unsafe { bpf::bpf_l4_csum_replace(self.0, at, old as u64, new as u64, flags) })
    }

    /// Corrects a transport checksum for a change of the pseudo header by the sum of all changes.
    #[inline(always)]
    pub fn checksum_pseudo_sum(self, at: u32, sum: u32, zero_is_none: bool) -> Result<(), Failed> {
        let flags = BPF_F_PSEUDO_HDR as u64 | mangled(zero_is_none);
        // SAFETY: scalars only; size 0 says that the fourth argument is a sum of differences.
        check(unsafe { bpf::bpf_l4_csum_replace(self.0, at, 0, sum as u64, flags) })
    }

    /// Corrects a checksum for a change of what it covers, by the sum of all changes.
    #[inline(always)]
    pub fn checksum_sum(self, at: u32, sum: u32, zero_is_none: bool) -> Result<(), Failed> {
        // SAFETY: as above.
        check(unsafe {
            bpf::bpf_l4_csum_replace(self.0, at, 0, sum as u64, mangled(zero_is_none))
        })
    }

    /// Sets the packet's length, cutting it or filling it with zeros.
    #[inline(always)]
    pub fn resize(self, len: u32) -> Result<(), Failed> {
        // SAFETY: scalars only.
        check(unsafe { bpf::bpf_skb_change_tail(self.0, len, 0) })
    }

    /// Makes room before the packet for a header that the device has not given it: zeros. What goes on to
    /// the stack loses it again there.
    #[inline(always)]
    pub fn push_header(self, len: u32) -> Result<(), Failed> {
        // SAFETY: scalars only.
        check(unsafe { bpf::bpf_skb_change_head(self.0, len, 0) })
    }

    /// Makes room behind the fixed part of the IP header.
    #[inline(always)]
    pub fn adjust_room(self, len: i32, mode: u32) -> Result<(), Failed> {
        // SAFETY: scalars only.
        check(unsafe { bpf::bpf_skb_adjust_room(self.0, len, mode, 0) })
    }

    /// Copies bytes of the packet into part of a buffer.
    #[inline(always)]
    pub fn load_into(self, offset: u32, to: *mut u8, len: u32) -> Result<(), Failed> {
        // SAFETY: the verifier proves that `len` bytes from `to` on may be written.
        check(unsafe { bpf::bpf_skb_load_bytes(self.0.cast(), offset, to.cast(), len) })
    }

    /// Writes part of a buffer into the packet.
    #[inline(always)]
    pub fn store_from(self, offset: u32, from: *const u8, len: u32) -> Result<(), Failed> {
        // SAFETY: the verifier proves that `len` bytes from `from` on may be read.
        check(unsafe { bpf::bpf_skb_store_bytes(self.0, offset, from.cast(), len, 0) })
    }

    /// Marks the frame as addressed to whom it is delivered.
    #[inline(always)]
    pub fn set_to_host(self) {
        // SAFETY: scalars only; it cannot fail for this type.
        unsafe { bpf::bpf_skb_change_type(self.0, PACKET_HOST) };
    }

    /// Takes away what must not follow a packet into a pod.
    #[inline(always)]
    pub fn clear_marks(self) {
        // SAFETY: both fields may be written by a tc program.
        unsafe {
            (*self.0).mark = 0;
            (*self.0).priority = 0;
        }
    }

    /// Into the pod behind a host interface, past the host interface's own egress hook.
    #[inline(always)]
    pub fn redirect_peer(self, ifindex: u32) {
        // SAFETY: scalars only; a bad index makes the kernel drop the packet.
        unsafe { bpf::bpf_redirect_peer(ifindex, 0) };
    }

    /// Out of an interface, to the next hop that the kernel's routes name.
    #[inline(always)]
    pub fn redirect_neigh(self, ifindex: u32) {
        // SAFETY: no parameters: the kernel looks the route up itself.
        unsafe { bpf::bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) };
    }

    /// Out of an interface as the frame is, or with `into_stack` in by it.
    #[inline(always)]
    pub fn redirect(self, ifindex: u32, into_stack: bool) {
        let flags = if into_stack { BPF_F_INGRESS as u64 } else { 0 };
        // SAFETY: scalars only; a bad index makes the kernel drop the packet.
        unsafe { bpf::bpf_redirect(ifindex, flags) };
    }

    /// Whether a socket of the node takes what comes from `src` to `dst`.
    #[inline(always)]
    pub fn has_socket(self, t: &Tuple, tcp: bool) -> bool {
        let mut v4 = [
            t.src.v4_word(),
            t.dst.v4_word(),
            t.sport.0 as u32 | (t.dport.0 as u32) << 16,
        ];
        let [a, b, c, d] = t.src.0;
        let [e, f, g, h] = t.dst.0;
        let mut v6 = [a, b, c, d, e, f, g, h, v4[2]];
        let (at, len) = if t.src.is_v4() {
            (v4.as_mut_ptr(), 12)
        } else {
            (v6.as_mut_ptr(), 36)
        };
        // SAFETY: `at` is `len` bytes in the form of the kernel's `struct bpf_sock_tuple`.
        let found = unsafe {
            if tcp {
                bpf::bpf_skc_lookup_tcp(self.0.cast(), at.cast(), len, THIS_NETNS, 0)
            } else {
                bpf::bpf_sk_lookup_udp(self.0.cast(), at.cast(), len, THIS_NETNS, 0)
            }
        };
        if found.is_null() {
            return false;
        }
        // SAFETY: the reference that the lookup took, given back once.
        unsafe { bpf::bpf_sk_release(found.cast()) };
        true
    }

    /// Whether the packet, of `size` bytes from its IP header on, or each of its segments fits through an
    /// interface; `mtu` is then the interface's.
    #[inline(always)]
    pub fn fits(self, ifindex: u32, size: u32, mtu: &mut u32) -> bool {
        // By itself the kernel compares the frame, and takes this one's Ethernet header for payload where
        // the interface has none (WireGuard). Segments it measures right, and takes no size for them.
        let (asked, flags) = if self.gso_size() == 0 {
            (size, 0)
        } else {
            (0, CHECK_SEGMENTS)
        };
        *mtu = asked;
        // SAFETY: `mtu` may be read and written; the rest are scalars.
        unsafe { bpf::bpf_check_mtu(self.0.cast(), ifindex, mtu, 0, flags) <= 0 }
    }
}

/// `BPF_F_CURRENT_NETNS`.
const THIS_NETNS: u64 = u64::MAX;

/// `BPF_MTU_CHK_SEGS`.
const CHECK_SEGMENTS: u64 = 1;

/// UDP: a checksum of zero says that there is none, and a computed zero is sent as all ones.
#[inline(always)]
fn mangled(zero_is_none: bool) -> u64 {
    if zero_is_none {
        BPF_F_MARK_MANGLED_0 as u64
    } else {
        0
    }
}

#[repr(align(8))]
struct Aligned<T>(T);

impl Bytes for Skb {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // Not zeroed first: that would be a byte-wise loop. Aligned, so that it is copied by words.
        let mut out = Aligned(MaybeUninit::<[u8; N]>::uninit());
        let to = out.0.as_mut_ptr().cast();
        // SAFETY: `to` is N writable bytes; the helper checks the offset.
        let code = unsafe { bpf::bpf_skb_load_bytes(self.0.cast(), offset, to, N as u32) };
        if code != 0 {
            return None;
        }
        // SAFETY: the helper has written all N bytes.
        Some(unsafe { out.0.assume_init() })
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: as in `field!`.
        unsafe { (*self.0).len }
    }
}
