//! The tunnel's metadata that a packet carries to and from a device. Kernel only.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_F_DONT_FRAGMENT, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX};
use aya_ebpf::helpers::generated as bpf;
use weir_abi::Addr;

use super::{Failed, Skb, check};
use crate::packet::ETH_LEN;

impl Skb {
    /// The tunnel that the packet came by: the address of its other end, if it has the number `id`.
    #[inline(always)]
    pub fn tunnel_from(self, id: u32, v4: bool) -> Option<Addr> {
        let mut key = MaybeUninit::<TunnelKey>::uninit();
        let flags = if v4 { 0 } else { BPF_F_TUNINFO_IPV6 as u64 };
        let len = size_of::<TunnelKey>() as u32;
        // SAFETY: the structure is the kernel's `struct bpf_tunnel_key`, and its length is told.
        let code = unsafe {
            bpf::bpf_skb_get_tunnel_key(self.0, key.as_mut_ptr().cast(), len, flags)
        };
        if code != 0 {
            return None;
        }
        // SAFETY: the helper has written it whole.
        let key = unsafe { key.assume_init_ref() };
        if key.id != id {
            return None;
        }
        let [a, b, c, d] = key.remote;
        Some(if v4 {
            // The kernel has IPv4 addresses in host order here, IPv6 ones not.
            Addr::from_v4(a.to_be_bytes())
        } else {
            Addr([a, b, c, d])
        })
    }

    /// Sends the packet through the tunnel with the number `id` from the node's own address to
    /// another's, both of one family. A `whole` outer packet is never fragmented.
    #[inline(always)]
    pub fn tunnel_to(
        self,
        id: u32,
        local: &Addr,
        remote: &Addr,
        whole: bool,
    ) -> Result<(), Failed> {
        let v4 = remote.is_v4();
        let (from, to, family) = if v4 {
            let word = |addr: &Addr| [u32::from_be(addr.v4_word()), 0, 0, 0];
            // The inner packet has checksums of its own (RFC 6935 lets no IPv6 go without).
            (word(local), word(remote), BPF_F_ZERO_CSUM_TX)
        } else {
            (local.0, remote.0, BPF_F_TUNINFO_IPV6)
        };
        let mut key = MaybeUninit::<TunnelKey>::uninit();
        let words = [id, to[0], to[1], to[2], to[3], LIFE, 0, from[0], from[1], from[2], from[3]];
        let at = key.as_mut_ptr().cast::<u32>();
        for (i, word) in words.into_iter().enumerate() {
            // SAFETY: the structure is these words. Volatile, or clearing them becomes a byte-wise loop.
            unsafe { at.add(i).write_volatile(word) };
        }
        let len = size_of::<TunnelKey>() as u32;
        let whole = if whole { BPF_F_DONT_FRAGMENT } else { 0 };
        let flags = (family | whole) as u64;
        // SAFETY: as above.
        check(unsafe { bpf::bpf_skb_set_tunnel_key(self.0, key.as_mut_ptr().cast(), len, flags) })
    }
}

/// Makes room behind a frame's MAC addresses and ethertype for outer headers of IPv4, UDP and VXLAN and an inner
/// frame's (`BPF_F_ADJ_ROOM_ENCAP_*`, linux/bpf.h): what it was goes inside.
const PACK: u64 = 1 << 1 | 1 << 4 | 1 << 6 | (ETH_LEN as u64) << 56;
/// The packet that comes out is IPv6 (`BPF_F_ADJ_ROOM_DECAP_L3_IPV6`, Linux 6.3).
const UNPACK_V6: u64 = 1 << 8;
/// Behind the MAC addresses and the ethertype (`BPF_ADJ_ROOM_MAC`).
const BEHIND_MAC: u32 = 1;

impl Skb {
    /// Makes room for the headers of an outer packet of IPv4, `len` bytes, and tells devices what they are.
    #[inline(always)]
    pub fn grow_to_pack(self, len: i32) -> Result<(), Failed> {
        // SAFETY: scalars only.
        check(unsafe { bpf::bpf_skb_adjust_room(self.0, len, BEHIND_MAC, PACK) })
    }

    /// Takes an outer packet's headers of IPv4 away, `len` bytes. The frame keeps the outer one's front.
    #[inline(always)]
    pub fn shrink_to_unpack(self, len: i32, v4: bool) -> Result<(), Failed> {
        let flags = if v4 { 0 } else { UNPACK_V6 };
        // SAFETY: scalars only.
        check(unsafe { bpf::bpf_skb_adjust_room(self.0, -len, BEHIND_MAC, flags) })
    }

    /// The hash of the packet's flow, which devices choose a tunnel's source port by.
    #[inline(always)]
    pub fn flow_hash(self) -> u32 {
        // SAFETY: no parameters beside the context.
        unsafe { bpf::bpf_get_hash_recalc(self.0) }
    }
}

/// `struct bpf_tunnel_key`.
#[repr(C)]
struct TunnelKey {
    id: u32,
    /// IPv4 in the first word, in host order; IPv6 as on the wire.
    remote: [u32; 4],
    tos: u8,
    ttl: u8,
    flags: u16,
    label: u32,
    local: [u32; 4],
}

const _: () = assert!(size_of::<TunnelKey>() == 4 * 11);

/// The word of [`TunnelKey`] that says the outer packets' hop limit.
const LIFE: u32 = u32::from_ne_bytes([0, 64, 0, 0]);
