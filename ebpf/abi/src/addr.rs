//! Addresses, ports and protocols as they stand in maps.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address in 16 bytes, network order; IPv4 as an IPv4-mapped IPv6 address
/// (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2). The all-zero value means "no address".
///
/// Each word holds four bytes as they stand on the wire (native-endian words of network-order
/// bytes), so that the BPF back end copies words instead of bytes.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Addr(pub [u32; 4]);

/// The third word of an IPv4-mapped address.
const V4_MAPPED_WORD: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Addr {
    /// No address at all.
    pub const NONE: Self = Self([0; 4]);

    /// An IPv4 address from the word that stands in the header (network order).
    #[inline(always)]
    pub const fn from_v4_word(word_be: u32) -> Self {
        Self([0, 0, V4_MAPPED_WORD, word_be])
    }

    /// An IPv4 address from its four octets.
    pub const fn from_v4(octets: [u8; 4]) -> Self {
        Self::from_v4_word(u32::from_ne_bytes(octets))
    }

    /// An IPv6 address from its sixteen octets.
    pub const fn from_v6(o: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
            u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
            u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        ])
    }

    /// Whether this is an IPv4-mapped address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        // One comparison: a word that a program has compared with 0 is a constant to the verifier,
        // which then follows every way that leads to it apart.
        self.0[0] | self.0[1] | (self.0[2] ^ V4_MAPPED_WORD) == 0
    }

    /// Whether this is [`Addr::NONE`].
    #[inline(always)]
    pub const fn is_none(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    /// The word of an IPv4 address as it stands in the header; meaningless for IPv6.
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.0[3]
    }

    /// The sixteen octets.
    pub const fn octets(&self) -> [u8; 16] {
        let [a, b, c, d] = [
            self.0[0].to_ne_bytes(),
            self.0[1].to_ne_bytes(),
            self.0[2].to_ne_bytes(),
            self.0[3].to_ne_bytes(),
        ];
        [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1],
            d[2], d[3],
        ]
    }

    /// The address as the standard library has it (an IPv4-mapped one as IPv4).
    pub const fn to_ip(&self) -> IpAddr {
        let o = self.octets();
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::new(o[12], o[13], o[14], o[15]))
        } else {
            IpAddr::V6(Ipv6Addr::from_octets(o))
        }
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(ip: Ipv4Addr) -> Self {
        Self::from_v4(ip.octets())
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(ip: Ipv6Addr) -> Self {
        Self::from_v6(ip.octets())
    }
}

/// A transport port in network order, as it stands in the header.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PortBe(pub u16);

impl PortBe {
    /// From a port number in host order.
    #[inline(always)]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// The port number in host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers").
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Proto(pub u8);

impl Proto {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
}

crate::pod!(Addr, PortBe, Proto);
