//! A frame's headers, read in place. Kernel only.

use aya_ebpf::programs::TcContext;
use weir_abi::conntrack::Tuple;
use weir_abi::{Addr, PortBe, Proto};

use crate::{checksum, overlay};
use crate::packet::{Bytes, ETH_LEN, tcp};
use crate::skb::{Failed, Skb};

/// From the ethertype on. Frames stand at even addresses only, and the IP header not always at a multiple of 4.
#[repr(C, packed(2))]
struct V4 {
    ethertype: u16,
    version: [u8; 2],
    total: [u8; 2],
    id: u16,
    fragment: [u8; 2],
    life: [u8; 2],
    check: u16,
    src: u32,
    dst: u32,
}

/// The same of IPv6.
#[repr(C, packed(2))]
struct V6 {
    ethertype: u16,
    version: [u8; 4],
    payload: [u8; 2],
    life: [u8; 2],
    src: [u32; 4],
    dst: [u32; 4],
}

/// UDP's header, and the beginning of TCP's.
#[repr(C, packed(2))]
struct Ports {
    sport: u16,
    dport: u16,
    udp_len: [u8; 2],
    check: u16,
}

/// What follows in TCP.
#[repr(C, packed(2))]
struct Tcp {
    ack: [u16; 2],
    flags: [u8; 2],
}

const ETHERTYPE: usize = 12;
const V4_LEN: u32 = 20;
const V6_LEN: u32 = 40;
const UDP_LEN: u32 = 8;
const TCP_LEAST: u32 = 20;

/// TCP's flags that change what is known of a connection.
const UNUSUAL: u8 = tcp::SYN | tcp::FIN | tcp::RST;

/// A frame's two MAC addresses and its ethertype.
#[repr(C, packed(2))]
struct Front {
    macs: [u32; 3],
    ethertype: [u8; 2],
}

/// What changes in a frame's header of IPv4.
#[repr(C, packed(2))]
struct V4Life {
    ttl: u8,
    proto: u8,
    check: u16,
}

/// Where it stands.
const V4_LIFE: usize = ETH_LEN as usize + 8;
/// Where IPv6's hop limit stands, with the next header before it.
const V6_LIFE: usize = ETH_LEN as usize + 6;

/// The headers of a packet that is not fragmented and has neither IP options nor extension headers.
pub struct Head {
    pub tuple: Tuple,
    pub proto: Proto,
    /// 0 for UDP.
    pub tcp_flags: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    pub v4: bool,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// Length by the IP header.
    ip_len: u32,
    /// Length of the IP and the transport header.
    headers: u32,
}

/// A place in the frame, if all of it is in the linear part.
#[inline(always)]
fn place<T>(ctx: &TcContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    Some(start as *mut T)
}

/// A header to be read there.
#[inline(always)]
pub(super) fn at<T>(ctx: &TcContext, offset: usize) -> Option<&T> {
    // SAFETY: in the frame, where every bit pattern is a header, and an even address is aligned.
    place(ctx, offset).map(|there| unsafe { &*there })
}

/// A header to be written there. What others hold as well (a clone) the kernel copies before a program begins
/// that does so.
#[inline(always)]
pub(super) fn at_mut<T>(ctx: &TcContext, offset: usize) -> Option<&mut T> {
    // SAFETY: as above, and no other reference into the frame is alive.
    place(ctx, offset).map(|there| unsafe { &mut *there })
}

impl Head {
    /// Of TCP or UDP in the frame that begins at `BASE`; nothing if anything is unusual about them.
    #[inline(always)]
    pub fn read<const BASE: usize>(ctx: &TcContext, skb: Skb) -> Option<Self> {
        let ethertype: &[u8; 2] = at(ctx, BASE + ETHERTYPE)?;
        match *ethertype {
            [0x08, 0x00] => Self::v4::<BASE>(ctx, skb),
            [0x86, 0xdd] => Self::v6::<BASE>(ctx, skb),
            _ => None,
        }
    }

    #[inline(always)]
    fn v4<const BASE: usize>(ctx: &TcContext, skb: Skb) -> Option<Self> {
        let h: &V4 = at(ctx, BASE + ETHERTYPE)?;
        let [ttl, proto] = h.life;
        if h.version[0] != 0x45 || h.fragment[0] & 0x3f != 0 || h.fragment[1] != 0 {
            return None;
        }
        let head = Self {
            tuple: Tuple {
                src: Addr::from_v4(h.src.to_ne_bytes()),
                dst: Addr::from_v4(h.dst.to_ne_bytes()),
                ..Tuple::default()
            },
            proto: Proto(proto),
            tcp_flags: 0,
            ttl,
            v4: true,
            tos: h.version[1],
            ip_len: u16::from_be_bytes(h.total) as u32,
            headers: V4_LEN,
        };
        head.transport::<BASE>(ctx, skb)
    }

    #[inline(always)]
    fn v6<const BASE: usize>(ctx: &TcContext, skb: Skb) -> Option<Self> {
        let h: &V6 = at(ctx, BASE + ETHERTYPE)?;
        let [next, hops] = h.life;
        let (src, dst) = (Addr(h.src), Addr(h.dst));
        if h.version[0] >> 4 != 6 || src.is_v4() || dst.is_v4() {
            return None;
        }
        let head = Self {
            tuple: Tuple {
                src,
                dst,
                ..Tuple::default()
            },
            proto: Proto(next),
            tcp_flags: 0,
            ttl: hops,
            v4: false,
            tos: h.version[0] << 4 | h.version[1] >> 4,
            ip_len: V6_LEN + u16::from_be_bytes(h.payload) as u32,
            headers: V6_LEN,
        };
        head.transport::<BASE>(ctx, skb)
    }

    /// Reads the transport header.
    #[inline(always)]
    fn transport<const BASE: usize>(mut self, ctx: &TcContext, skb: Skb) -> Option<Self> {
        let offset = BASE + (ETH_LEN + self.headers) as usize;
        let ports: &Ports = at(ctx, offset)?;
        self.tuple.sport = PortBe(ports.sport);
        self.tuple.dport = PortBe(ports.dport);
        let room = self.ip_len.wrapping_sub(self.headers);
        if BASE as u32 + ETH_LEN + self.ip_len > skb.len() || self.ip_len < self.headers {
            return None;
        }
        let len = if self.proto.0 == Proto::TCP.0 {
            let tcp: &Tcp = at(ctx, offset + size_of::<Ports>())?;
            let [words, flags] = tcp.flags;
            self.tcp_flags = flags;
            if flags & UNUSUAL != 0 || flags & tcp::ACK == 0 {
                return None;
            }
            let len = ((words >> 4) as u32) << 2;
            if len < TCP_LEAST {
                return None;
            }
            len
        } else if self.proto.0 == Proto::UDP.0 {
            let stated = u16::from_be_bytes(ports.udp_len) as u32;
            if stated < UDP_LEN || stated > room {
                return None;
            }
            UDP_LEN
        } else {
            return None;
        };
        if len > room {
            return None;
        }
        self.headers += len;
        Some(self)
    }

    /// Whether there is nothing behind it in its frame.
    #[inline(always)]
    pub fn fills(&self, skb: Skb) -> bool {
        ETH_LEN + self.ip_len == skb.len()
    }

    /// Whether it is to the overlay's port.
    #[inline(always)]
    pub fn is_packed(&self) -> bool {
        self.proto.0 == Proto::UDP.0 && overlay::is_port(self.tuple.dport.get())
    }

    /// Length of the packet, or of each of the packets that a device will make of it.
    #[inline(always)]
    pub fn size(&self, skb: Skb) -> u32 {
        match skb.gso_size() {
            0 => self.ip_len,
            payload => payload + self.headers,
        }
    }

    /// Writes what changes on the way to another node: one hop less, in the frame that begins at `BASE`.
    #[inline(always)]
    pub fn forward<const BASE: usize>(&self, ctx: &TcContext, skb: Skb) -> Result<(), Failed> {
        if self.v4 {
            let life: &mut V4Life = at_mut(ctx, BASE + V4_LIFE).ok_or(Failed)?;
            let old = u16::from_ne_bytes([self.ttl, self.proto.0]);
            let new = u16::from_ne_bytes([self.ttl.wrapping_sub(1), self.proto.0]);
            life.ttl = self.ttl.wrapping_sub(1);
            // The header's checksum balances the change in a sum over the whole packet (CHECKSUM_COMPLETE).
            life.check = checksum::replace16(life.check, old, new);
        } else {
            let life: &mut [u8; 2] = at_mut(ctx, BASE + V6_LIFE).ok_or(Failed)?;
            let old = u16::from_ne_bytes(*life);
            life[1] = self.ttl.wrapping_sub(1);
            // No checksum in the header does.
            skb.checksum_changed(old, u16::from_ne_bytes(*life));
        }
        Ok(())
    }

    /// Writes what changes on the way into a pod.
    #[inline(always)]
    pub fn deliver(&self, ctx: &TcContext, skb: Skb, macs: &[u32; 3]) -> Result<(), Failed> {
        self.forward::<0>(ctx, skb)?;
        let front: &mut Front = at_mut(ctx, 0).ok_or(Failed)?;
        front.macs = *macs;
        front.ethertype = self.ethertype();
        Ok(())
    }

    /// The ethertype of its frame.
    #[inline(always)]
    pub fn ethertype(&self) -> [u8; 2] {
        if self.v4 { [0x08, 0x00] } else { [0x86, 0xdd] }
    }
}
