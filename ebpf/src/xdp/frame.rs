//! An XDP frame, by the kernel's copying helpers (Linux 5.18), which also reach into the fragments
//! of a large one.
//!
//! Frames here come from the wire: their checksums are whole, and are corrected directly.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup, xdp_md};
use aya_ebpf::helpers::generated as bpf;
use weir_abi::Proto;

use crate::packet::Bytes;
use crate::scratch::Scratch;
use crate::skb::Failed;
use crate::{checksum, maps, nat};

/// A frame.
#[derive(Clone, Copy)]
pub struct XdpFrame(*mut xdp_md);

impl XdpFrame {
    /// From the context of an XDP program.
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        Self(ctx)
    }

    /// Index of the device.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: the context is valid for the whole program.
        unsafe { (*self.0).ingress_ifindex }
    }

    /// Whether the frame is addressed to this very device: a promiscuous one sees others' too.
    #[inline(always)]
    pub fn is_for(self, ifindex: u32) -> bool {
        self.read::<6>(0)
            .is_some_and(|mac| maps::is_uplink_mac(ifindex, mac))
    }

    #[inline(always)]
    fn store<const N: usize>(self, offset: u32, bytes: &[u8; N]) -> Result<(), Failed> {
        let from = bytes.as_ptr().cast_mut().cast();
        // SAFETY: `bytes` is N readable bytes; the helper checks the offset.
        let code = unsafe { bpf::bpf_xdp_store_bytes(self.0, offset, from, N as u32) };
        if code < 0 { Err(Failed) } else { Ok(()) }
    }
}

#[repr(align(8))]
struct Aligned<T>(T);

impl Bytes for XdpFrame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // Not zeroed first, and aligned: see `crate::skb`.
        let mut out = Aligned(MaybeUninit::<[u8; N]>::uninit());
        let to = out.0.as_mut_ptr().cast();
        // SAFETY: `to` is N writable bytes; the helper checks the offset.
        let code = unsafe { bpf::bpf_xdp_load_bytes(self.0, offset, to, N as u32) };
        if code != 0 {
            return None;
        }
        // SAFETY: the helper has written all N bytes.
        Some(unsafe { out.0.assume_init() })
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the helper takes the program's own context (Linux 5.18).
        unsafe { bpf::bpf_xdp_get_buff_len(self.0) as u32 }
    }
}

/// Asks the kernel's routes and neighbours for the way of the translated packet: the device, or 0.
/// The frame's new addresses go into the first three words of `answer`.
#[inline(never)]
pub fn resolve(frame: XdpFrame, s: &mut Scratch) -> u32 {
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    let v4 = s.packet.family == 4;
    // SAFETY: integers only.
    let mut way: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    way.family = if v4 { AF_INET } else { AF_INET6 };
    way.l4_protocol = s.packet.proto.0;
    way.ifindex = frame.ifindex();
    way.__bindgen_anon_1.tot_len = s.packet.ip_len() as u16;
    if v4 {
        way.__bindgen_anon_3.ipv4_src = s.out.src.v4_word();
        way.__bindgen_anon_4.ipv4_dst = s.out.dst.v4_word();
    } else {
        way.__bindgen_anon_3.ipv6_src = s.out.src.0;
        way.__bindgen_anon_4.ipv6_dst = s.out.dst.0;
    }
    let size = size_of::<bpf_fib_lookup>() as i32;
    // SAFETY: `way` is `size` bytes that may be read and written.
    let code = unsafe { bpf::bpf_fib_lookup(frame.0.cast(), &raw mut way, size, 0) };
    if code != BPF_FIB_LKUP_RET_SUCCESS as i64 {
        return 0;
    }
    let [a, b, c, d, e, f] = way.dmac;
    let [g, h, i, j, k, l] = way.smac;
    s.answer[0] = u32::from_ne_bytes([a, b, c, d]);
    s.answer[1] = u32::from_ne_bytes([e, f, g, h]);
    s.answer[2] = u32::from_ne_bytes([i, j, k, l]);
    way.ifindex
}

/// Rewrites the frame: its addresses, one hop less, the translation. 1 if it worked.
#[inline(never)]
pub fn rewrite(frame: XdpFrame, s: &Scratch) -> u32 {
    try_rewrite(frame, s).is_ok() as u32
}

#[inline(always)]
fn try_rewrite(frame: XdpFrame, s: &Scratch) -> Result<(), Failed> {
    let p = &s.packet;
    let sum = if p.family == 4 {
        addresses_v4(frame, s)?
    } else {
        addresses_v6(frame, s)?
    };
    let (from, to) = (&p.tuple, &s.out);
    let sum = sum
        + (!from.sport.0) as u64
        + to.sport.0 as u64
        + (!from.dport.0) as u64
        + to.dport.0 as u64;
    let ([a, b], [c, d]) = (to.sport.0.to_ne_bytes(), to.dport.0.to_ne_bytes());
    frame.store(p.l4, &[a, b, c, d])?;
    let udp = p.proto.0 == Proto::UDP.0;
    let at = p.l4 + if udp { 6 } else { 16 };
    let old = u16::from_ne_bytes(frame.read(at).ok_or(Failed)?);
    if !(udp && old == 0) {
        let mut new = !checksum::fold((!old) as u64 + sum);
        if udp && new == 0 {
            new = !0;
        }
        frame.store(at, &new.to_ne_bytes())?;
    }
    let [m, n, o] = [s.answer[0], s.answer[1], s.answer[2]].map(u32::to_ne_bytes);
    frame.store(0, &m)?;
    frame.store(4, &n)?;
    frame.store(8, &o)
}

/// TTL, header checksum and addresses stand together. Answers the sum that the addresses add.
#[inline(always)]
fn addresses_v4(frame: XdpFrame, s: &Scratch) -> Result<u64, Failed> {
    let p = &s.packet;
    let [ttl, proto, a, b] = frame.read(p.l3 + 8).ok_or(Failed)?;
    let (src, dst) = (s.out.src.v4_word(), s.out.dst.v4_word());
    let (old_src, old_dst) = (p.tuple.src.v4_word(), p.tuple.dst.v4_word());
    let sum = (!old_src) as u64 + src as u64 + (!old_dst) as u64 + dst as u64;
    let new = ttl.wrapping_sub(1);
    let hops = (!u16::from_ne_bytes([ttl, proto])) as u64 + u16::from_ne_bytes([new, proto]) as u64;
    let check = !checksum::fold((!u16::from_ne_bytes([a, b])) as u64 + sum + hops);
    let [a, b] = check.to_ne_bytes();
    frame.store(p.l3 + 8, &[new, proto, a, b])?;
    frame.store(p.l3 + 12, &src.to_ne_bytes())?;
    frame.store(p.l3 + 16, &dst.to_ne_bytes())?;
    Ok(sum)
}

#[inline(always)]
fn addresses_v6(frame: XdpFrame, s: &Scratch) -> Result<u64, Failed> {
    let p = &s.packet;
    frame.store(p.l3 + 7, &[p.ttl.wrapping_sub(1)])?;
    frame.store(p.l3 + 8, &s.out.src.octets())?;
    frame.store(p.l3 + 24, &s.out.dst.octets())?;
    Ok(nat::difference(&p.tuple.src, &s.out.src) as u64
        + nat::difference(&p.tuple.dst, &s.out.dst) as u64)
}
