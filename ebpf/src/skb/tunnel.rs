//! The tunnel's metadata that a packet carries to and from a device. Kernel only.

use aya_ebpf::bindings::{BPF_F_DONT_FRAGMENT, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX};
use aya_ebpf::helpers::generated as bpf;
use weir_abi::Addr;

use super::{Failed, Skb, check};

impl Skb {
    /// The tunnel that the packet came by: the address of its other end, if it has the number `id`.
    #[inline(always)]
    pub fn tunnel_from(self, id: u32, v4: bool) -> Option<Addr> {
        let mut key = TunnelKey::default();
        let flags = if v4 { 0 } else { BPF_F_TUNINFO_IPV6 as u64 };
        let len = size_of::<TunnelKey>() as u32;
        // SAFETY: the structure is the kernel's `struct bpf_tunnel_key`, and its length is told.
        let code = unsafe {
            bpf::bpf_skb_get_tunnel_key(self.0, (&raw mut key).cast(), len, flags)
        };
        if code != 0 || key.id != id {
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
    /// another's, both of one family. The outer packet is never fragmented.
    #[inline(always)]
    pub fn tunnel_to(self, id: u32, local: &Addr, remote: &Addr) -> Result<(), Failed> {
        let mut key = TunnelKey {
            id,
            ttl: TUNNEL_TTL,
            ..TunnelKey::default()
        };
        let v4 = remote.is_v4();
        let family = if v4 {
            key.remote[0] = u32::from_be(remote.v4_word());
            key.local[0] = u32::from_be(local.v4_word());
            // The inner packet has checksums of its own (RFC 6935 lets no IPv6 go without).
            BPF_F_ZERO_CSUM_TX
        } else {
            key.remote = remote.0;
            key.local = local.0;
            BPF_F_TUNINFO_IPV6
        };
        let len = size_of::<TunnelKey>() as u32;
        let flags = (family | BPF_F_DONT_FRAGMENT) as u64;
        // SAFETY: as above.
        check(unsafe { bpf::bpf_skb_set_tunnel_key(self.0, (&raw mut key).cast(), len, flags) })
    }
}

/// `struct bpf_tunnel_key`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
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

/// Hop limit of outer packets.
const TUNNEL_TTL: u8 = 64;
