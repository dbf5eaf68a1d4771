//! The wire between the nodes, for the tests of the overlay: packets that are seen on it, and
//! packets that are made by hand.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use weir_abi::node::OVERLAY_MAC;
use weir_lab::spawn::{Place, run_in};

/// What a packet on the wire shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OnWire {
    pub from: IpAddr,
    pub to: IpAddr,
    /// UDP's destination port.
    pub port: Option<u16>,
    /// Source and destination of the packet inside, if this is one of the overlay's (VXLAN).
    pub inside: Option<[IpAddr; 2]>,
}

/// A packet of the overlay's (VXLAN).
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    /// Source and destination of the packet inside.
    pub inside: [IpAddr; 2],
    /// The outer one's.
    pub source_port: u16,
}

/// A packet socket on all devices of a place.
pub struct Sniffer(OwnedFd);

/// Bytes of packets that are kept until they are read.
static ROOM: libc::c_int = 64 << 20;

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: a system call without pointers; the number it returns is ours alone.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned by socket() and is owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Sniffer {
    /// Begins to keep what passes.
    pub fn start(place: &Place) -> anyhow::Result<Self> {
        run_in(&place.net_only(), || {
            let every = i32::from((libc::ETH_P_ALL as u16).to_be());
            let fd = socket(
                libc::AF_PACKET,
                libc::SOCK_DGRAM | libc::SOCK_NONBLOCK,
                every,
            )?;
            // SAFETY: the pointer is to a live integer of the size given.
            let set = unsafe {
                libc::setsockopt(
                    fd.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_RCVBUFFORCE,
                    (&raw const ROOM).cast(),
                    size_of::<libc::c_int>() as u32,
                )
            };
            anyhow::ensure!(set == 0, io::Error::last_os_error());
            Ok(Self(fd))
        })
    }

    /// What has passed, and how often. An error if some was lost.
    pub fn stop(self) -> anyhow::Result<BTreeMap<OnWire, u64>> {
        let mut seen = BTreeMap::new();
        self.read(|packet| {
            if let Some(packet) = parse(packet) {
                *seen.entry(packet).or_default() += 1;
            }
        })?;
        Ok(seen)
    }

    /// The overlay's packets that have passed. An error if some was lost.
    pub fn packed(self) -> anyhow::Result<Vec<Packed>> {
        let mut all = Vec::new();
        self.read(|packet| {
            let source_port = ip_header(packet).and_then(|(_, _, l4)| packet.get(l4..l4 + 2));
            let inside = parse(packet).and_then(|seen| seen.inside);
            if let (Some(port), Some(inside)) = (source_port, inside) {
                let source_port = u16::from_be_bytes([port[0], port[1]]);
                all.push(Packed {
                    inside,
                    source_port,
                });
            }
        })?;
        Ok(all)
    }

    /// Gives what has passed, cut to what headers need.
    fn read(self, mut take: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let mut buffer = [0u8; 128];
        loop {
            // SAFETY: the pointer is to a live buffer of the size given.
            let length = unsafe {
                libc::recv(
                    self.0.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                )
            };
            let Ok(length) = usize::try_from(length) else {
                break;
            };
            take(&buffer[..length]);
        }
        let (mut stats, mut size) = ([0u32; 2], size_of::<[u32; 2]>() as u32);
        // SAFETY: the pointers are to live objects of the sizes given.
        let got = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                stats.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        anyhow::ensure!(got == 0 && stats[1] == 0, "packets were lost: {stats:?}");
        Ok(())
    }
}

fn parse(packet: &[u8]) -> Option<OnWire> {
    let (ends, proto, l4) = ip_header(packet)?;
    let port = packet.get(l4 + 2..l4 + 4).filter(|_| proto == 17);
    let port = port.map(|port| u16::from_be_bytes([port[0], port[1]]));
    // UDP, VXLAN and Ethernet.
    let inner = packet.get(l4 + 8 + 8 + 14..).filter(|_| port == Some(8472));
    let inside = inner.and_then(|inner| Some(ip_header(inner)?.0));
    let [from, to] = ends;
    Some(OnWire {
        from,
        to,
        port,
        inside,
    })
}

/// Source and destination, protocol, and where the next header is.
fn ip_header(packet: &[u8]) -> Option<([IpAddr; 2], u8, usize)> {
    let ip = |at: usize, len: usize| -> Option<IpAddr> {
        let bytes = packet.get(at..at + len)?;
        Some(match <[u8; 4]>::try_from(bytes) {
            Ok(v4) => v4.into(),
            Err(_) => <[u8; 16]>::try_from(bytes).ok()?.into(),
        })
    };
    match packet.first()? >> 4 {
        4 => Some(([ip(12, 4)?, ip(16, 4)?], *packet.get(9)?, 20)),
        6 => Some(([ip(8, 16)?, ip(24, 16)?], *packet.get(6)?, 40)),
        _ => None,
    }
}

/// An IP packet in VXLAN, as a node's overlay sends it.
pub fn vxlan(packet: &[u8]) -> Vec<u8> {
    let mut all = vec![8, 0, 0, 0, 0, 0, 0x57, 0];
    all.extend(OVERLAY_MAC);
    all.extend([0x0a, 0x58, 0, 0, 0, 1]);
    all.extend(if packet[0] >> 4 == 4 {
        [8, 0]
    } else {
        [0x86, 0xdd]
    });
    all.extend(packet);
    all
}

/// Sends an IP packet as it is, by the routes of a place.
pub fn send_ip(place: &Place, packet: &[u8], to: IpAddr) -> anyhow::Result<()> {
    run_in(&place.net_only(), || {
        let family = if to.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let fd = socket(family, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
        let address = kernel_address(to);
        // SAFETY: the pointers are to live objects of the sizes given.
        let sent = unsafe {
            libc::sendto(
                fd.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                if to.is_ipv4() {
                    size_of::<libc::sockaddr_in>()
                } else {
                    size_of::<libc::sockaddr_in6>()
                } as u32,
            )
        };
        anyhow::ensure!(sent == packet.len() as isize, io::Error::last_os_error());
        Ok(())
    })
}

/// An address without a port, as the kernel wants it.
fn kernel_address(to: IpAddr) -> libc::sockaddr_in6 {
    // SAFETY: all-zero bytes are a valid sockaddr_in6, which is larger than a sockaddr_in.
    let mut v6: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    match to {
        IpAddr::V6(ip) => {
            v6.sin6_family = libc::AF_INET6 as u16;
            v6.sin6_addr.s6_addr = ip.octets();
        }
        IpAddr::V4(ip) => {
            v6.sin6_family = libc::AF_INET as u16;
            // A sockaddr_in has its address where this one has its flow information.
            v6.sin6_flowinfo = u32::from_ne_bytes(ip.octets());
        }
    }
    v6
}
