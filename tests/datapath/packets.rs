//! Packets, built byte by byte, and the checks of what came out.

use weir_abi::conntrack::Tuple;
use weir_abi::endpoint::{GATEWAY_V4, GATEWAY_V6};
use weir_abi::{Addr, PortBe, Proto};

pub const MAC_POD_A: [u8; 6] = [2, 0, 0, 0, 0, 0xa1];
pub const MAC_HOST_A: [u8; 6] = [2, 0, 0, 0, 0, 0xa0];
pub const MAC_POD_B: [u8; 6] = [2, 0, 0, 0, 0, 0xb1];
pub const MAC_HOST_B: [u8; 6] = [2, 0, 0, 0, 0, 0xb0];
pub const MAC_UPLINK: [u8; 6] = [2, 0, 0, 0, 0, 0xc0];

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 0x10;

/// An address family, and the addresses of the tests in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn addr(self, net: u8, host: u8) -> Addr {
        match self {
            Self::V4 => Addr::from_v4([10, net, 0, host]),
            Self::V6 => Addr::from_v6([0xfd, 0, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]),
        }
    }
    /// Pod A, on this node.
    pub fn a(self) -> Addr {
        self.addr(1, 10)
    }
    /// Pod B, on this node.
    pub fn b(self) -> Addr {
        self.addr(1, 11)
    }
    /// A pod on another node.
    pub fn remote(self) -> Addr {
        self.addr(2, 20)
    }
    /// The prefix of the other node's pods.
    pub fn remote_cidr(self) -> (Addr, u8) {
        (self.addr(2, 0), if self == Self::V4 { 24 } else { 64 })
    }
    /// This node.
    pub fn node(self) -> Addr {
        self.addr(100, 1)
    }
    /// Another node.
    pub fn other_node(self) -> Addr {
        self.addr(200, 2)
    }
    /// Somewhere outside.
    pub fn world(self) -> Addr {
        self.addr(200, 9)
    }
    /// A Service.
    pub fn vip(self) -> Addr {
        self.addr(96, 5)
    }
    pub fn gateway(self) -> Addr {
        match self {
            Self::V4 => GATEWAY_V4,
            Self::V6 => GATEWAY_V6,
        }
    }
    pub fn icmp(self) -> Proto {
        match self {
            Self::V4 => Proto::ICMP,
            Self::V6 => Proto::ICMPV6,
        }
    }
    pub fn echo(self) -> (u8, u8) {
        match self {
            Self::V4 => (8, 0),
            Self::V6 => (128, 129),
        }
    }
    pub fn ip_header(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
    /// Offset of the transport header in a frame without options.
    pub fn l4(self) -> usize {
        14 + self.ip_header()
    }
}

pub fn tuple(src: Addr, sport: u16, dst: Addr, dport: u16) -> Tuple {
    Tuple {
        src,
        dst,
        sport: PortBe::new(sport),
        dport: PortBe::new(dport),
    }
}

/// A frame in the making.
#[derive(Clone, Debug)]
pub struct Packet {
    pub src: Addr,
    pub dst: Addr,
    pub proto: Proto,
    pub ttl: u8,
    pub dst_mac: [u8; 6],
    /// IPv4 options, or IPv6 extension headers (their first byte is the next header's place; the
    /// first header's type is `first_extension`).
    pub options: Vec<u8>,
    pub first_extension: Option<u8>,
    /// IPv4 only: flags and offset.
    pub fragment: u16,
    /// Transport header and payload, checksum zero.
    pub l4: Vec<u8>,
    /// Leave the transport checksum zero.
    pub no_checksum: bool,
}

impl Packet {
    pub fn new(src: Addr, dst: Addr, proto: Proto, l4: Vec<u8>) -> Self {
        Self {
            src,
            dst,
            proto,
            ttl: 64,
            dst_mac: MAC_HOST_A,
            options: Vec::new(),
            first_extension: None,
            fragment: 0,
            l4,
            no_checksum: false,
        }
    }

    pub fn tcp(t: &Tuple, flags: u8) -> Self {
        let mut l4 = ports(t);
        l4.extend(1000u32.to_be_bytes());
        l4.extend(2000u32.to_be_bytes());
        l4.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
        l4.extend(if flags & SYN == 0 {
            &b"some data"[..]
        } else {
            b""
        });
        Self::new(t.src, t.dst, Proto::TCP, l4)
    }

    pub fn udp(t: &Tuple, payload: &[u8]) -> Self {
        let mut l4 = ports(t);
        l4.extend((8 + payload.len() as u16).to_be_bytes());
        l4.extend([0, 0]);
        l4.extend(payload);
        Self::new(t.src, t.dst, Proto::UDP, l4)
    }

    /// SCTP with one chunk of a type, and a right CRC32c.
    pub fn sctp(t: &Tuple, chunk: u8) -> Self {
        let mut l4 = ports(t);
        l4.extend(0x1122_3344u32.to_be_bytes());
        l4.extend([0; 4]);
        l4.extend([chunk, 0, 0, 20]);
        l4.extend((0..16).map(|i| i * 3));
        let crc = crc32c(&l4);
        l4[8..12].copy_from_slice(&crc.to_le_bytes());
        Self::new(t.src, t.dst, Proto::SCTP, l4)
    }

    pub fn icmp(src: Addr, dst: Addr, kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Self {
        let proto = if src.is_v4() {
            Proto::ICMP
        } else {
            Proto::ICMPV6
        };
        let mut l4 = vec![kind, code, 0, 0];
        l4.extend(rest);
        l4.extend(body);
        Self::new(src, dst, proto, l4)
    }

    pub fn echo(family: Family, src: Addr, dst: Addr, id: u16, reply: bool) -> Self {
        let (request, answer) = family.echo();
        let [a, b] = id.to_be_bytes();
        Self::icmp(
            src,
            dst,
            if reply { answer } else { request },
            0,
            [a, b, 0, 1],
            b"ping",
        )
    }

    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    pub fn addressed(mut self, mac: [u8; 6]) -> Self {
        self.dst_mac = mac;
        self
    }

    pub fn payload(mut self, len: usize) -> Self {
        self.l4.resize(self.l4.len() + len, 0x5a);
        if self.proto == Proto::UDP {
            let len = (self.l4.len() as u16).to_be_bytes();
            self.l4[4..6].copy_from_slice(&len);
        }
        self
    }

    /// The IP packet without its Ethernet header.
    pub fn ip(&self) -> Vec<u8> {
        let mut l4 = self.l4.clone();
        if !self.no_checksum
            && let Some(at) = checksum_at(self.proto)
            && l4.len() >= at + 2
        {
            let sum = transport_checksum(&self.src, &self.dst, self.proto, &l4);
            l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        let mut ip = Vec::new();
        if self.src.is_v4() {
            let header = 20 + self.options.len();
            let total = (header + l4.len()) as u16;
            ip.extend([0x40 | (header / 4) as u8, 0]);
            ip.extend(total.to_be_bytes());
            ip.extend([0x12, 0x34]);
            ip.extend(self.fragment.to_be_bytes());
            ip.extend([self.ttl, self.proto.0, 0, 0]);
            ip.extend(&self.src.octets()[12..]);
            ip.extend(&self.dst.octets()[12..]);
            ip.extend(&self.options);
            let sum = checksum(0, &ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            ip.extend([0x60, 0, 0, 0]);
            ip.extend(((self.options.len() + l4.len()) as u16).to_be_bytes());
            ip.extend([self.first_extension.unwrap_or(self.proto.0), self.ttl]);
            ip.extend(self.src.octets());
            ip.extend(self.dst.octets());
            ip.extend(&self.options);
        }
        ip.extend(&l4);
        ip
    }

    pub fn frame(&self) -> Vec<u8> {
        let mut frame = self.dst_mac.to_vec();
        frame.extend([2, 0, 0, 0, 0, 0xee]);
        frame.extend(if self.src.is_v4() {
            [8, 0]
        } else {
            [0x86, 0xdd]
        });
        frame.extend(self.ip());
        frame
    }
}

fn ports(t: &Tuple) -> Vec<u8> {
    [t.sport.get().to_be_bytes(), t.dport.get().to_be_bytes()].concat()
}

fn checksum_at(proto: Proto) -> Option<usize> {
    match proto {
        Proto::TCP => Some(16),
        Proto::UDP => Some(6),
        Proto::ICMP | Proto::ICMPV6 => Some(2),
        _ => None,
    }
}

/// RFC 1071, the slow way, so that it shares nothing with the code under test.
pub fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn transport_checksum(src: &Addr, dst: &Addr, proto: Proto, l4: &[u8]) -> u16 {
    let mut covered = Vec::new();
    if proto != Proto::ICMP {
        let from = if src.is_v4() { 12 } else { 0 };
        covered.extend(&src.octets()[from..]);
        covered.extend(&dst.octets()[from..]);
        covered.extend((l4.len() as u32).to_be_bytes());
        covered.extend([0, 0, 0, proto.0]);
    }
    covered.extend(l4);
    match checksum(0, &covered) {
        0 if proto == Proto::UDP => 0xffff,
        sum => sum,
    }
}

/// CRC32c, bit by bit.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// What stands in a frame, after checking that every length and checksum is right.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub src: Addr,
    pub dst: Addr,
    pub proto: Proto,
    pub ttl: u8,
    pub sport: u16,
    pub dport: u16,
    /// The transport header and payload.
    pub l4: Vec<u8>,
    /// (destination, source).
    pub macs: ([u8; 6], [u8; 6]),
}

/// Reads a frame without options or extension headers.
#[track_caller]
pub fn see(frame: &[u8]) -> Seen {
    let macs = (
        frame[..6].try_into().unwrap(),
        frame[6..12].try_into().unwrap(),
    );
    let mut seen = see_ip(&frame[14..], true);
    seen.macs = macs;
    seen
}

/// Reads an IP packet; `whole` says that its lengths and transport checksum must be right.
#[track_caller]
pub fn see_ip(ip: &[u8], whole: bool) -> Seen {
    let (src, dst, proto, ttl, l4, len) = if ip[0] >> 4 == 4 {
        assert_eq!(ip[0] & 15, 5, "IPv4 options are not expected");
        assert_eq!(
            checksum(0, &ip[..20]),
            0,
            "the IPv4 header checksum is wrong"
        );
        let src = Addr::from_v4(ip[12..16].try_into().unwrap());
        let dst = Addr::from_v4(ip[16..20].try_into().unwrap());
        let len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        (src, dst, Proto(ip[9]), ip[8], &ip[20..], len)
    } else {
        let src = Addr::from_v6(ip[8..24].try_into().unwrap());
        let dst = Addr::from_v6(ip[24..40].try_into().unwrap());
        let len = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        (src, dst, Proto(ip[6]), ip[7], &ip[40..], len)
    };
    if whole {
        assert_eq!(len, ip.len(), "the IP length does not match the frame");
        if proto == Proto::SCTP {
            let mut copy = l4.to_vec();
            copy[8..12].fill(0);
            assert_eq!(
                crc32c(&copy).to_le_bytes(),
                l4[8..12],
                "the SCTP checksum is wrong"
            );
        } else if let Some(at) = checksum_at(proto)
            && !(proto == Proto::UDP && l4[at..at + 2] == [0, 0])
        {
            let mut copy = l4.to_vec();
            copy[at..at + 2].fill(0);
            let right = transport_checksum(&src, &dst, proto, &copy);
            assert_eq!(
                right.to_be_bytes(),
                l4[at..at + 2],
                "the transport checksum is wrong"
            );
        }
    }
    let port = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
    let (sport, dport) = (port(0), port(2));
    Seen {
        src,
        dst,
        proto,
        ttl,
        sport,
        dport,
        l4: l4.to_vec(),
        macs: Default::default(),
    }
}
