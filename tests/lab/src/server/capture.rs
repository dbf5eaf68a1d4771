//! A packet socket that records the first packet of every new flow that arrives in the pod. It
//! sees packets before the pod's own stack judges them, so it also proves what a lost answer or a
//! closed port would hide.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use crate::wire::{Proto, Seen};

/// What arrived so far; clones share it.
#[derive(Clone, Default)]
pub struct Record(Arc<Mutex<BTreeSet<Seen>>>);

impl Record {
    /// Everything seen, sorted.
    pub fn list(&self) -> Vec<Seen> {
        self.0
            .lock()
            .map(|seen| seen.iter().copied().collect())
            .unwrap_or_default()
    }

    fn add(&self, seen: Seen) {
        if let Ok(mut set) = self.0.lock() {
            set.insert(seen);
        }
    }
}

/// Opens the packet socket and records in the background, until the task that this returns is aborted;
/// with `only`, what is for that address.
pub fn start(record: Record, only: Option<IpAddr>) -> io::Result<JoinHandle<()>> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let every = i32::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: a system call without pointers; the number it returns is ours alone.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, every) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned by socket() and is owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: an OwnedFd names the same open socket until it is dropped.
    let socket = unsafe { AsyncFd::register(socket) }?;
    Ok(tokio::spawn(async move {
        let mut buffer = [0; 256];
        while let Ok(mut ready) = socket.readable().await {
            if let Ok(Ok(Some(length))) = ready.try_io(|fd| receive(fd.get_ref(), &mut buffer))
                && let Some((seen, to)) = parse(&buffer[..length])
                && only.is_none_or(|only| only == to)
            {
                record.add(seen);
            }
        }
    }))
}

/// Length of the next packet that came in for this host; none for one that it sent or that only
/// passes by (a bridge's).
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: all-zero bytes are a valid sockaddr_ll.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointers are to live objects of the sizes given.
    let length = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut from).cast(),
            &raw mut size,
        )
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok((from.sll_pkttype == libc::PACKET_HOST).then_some(length))
}

/// The first packet of a flow (a TCP SYN, an SCTP INIT, any UDP datagram) and whom it is for.
fn parse(packet: &[u8]) -> Option<(Seen, IpAddr)> {
    let (protocol, source, to, payload) = match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x1fff;
            if fragment != 0 {
                return None;
            }
            (
                *packet.get(9)?,
                v4_at(packet, 12)?,
                v4_at(packet, 16)?,
                packet.get(header..)?,
            )
        }
        6 => (
            *packet.get(6)?,
            v6_at(packet, 8)?,
            v6_at(packet, 24)?,
            packet.get(40..)?,
        ),
        _ => return None,
    };
    let port = |at: usize| {
        Some(u16::from_be_bytes([
            *payload.get(at)?,
            *payload.get(at + 1)?,
        ]))
    };
    let proto = match protocol {
        // SYN without ACK.
        6 if payload.get(13)? & 0x12 == 0x02 => Proto::Tcp,
        17 => Proto::Udp,
        // The first chunk is INIT.
        132 if *payload.get(12)? == 1 => Proto::Sctp,
        _ => return None,
    };
    let seen = Seen {
        proto,
        from: SocketAddr::new(source, port(0)?),
        port: port(2)?,
    };
    Some((seen, to))
}

fn v4_at(packet: &[u8], at: usize) -> Option<IpAddr> {
    let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(Ipv4Addr::from(bytes).into())
}

fn v6_at(packet: &[u8], at: usize) -> Option<IpAddr> {
    let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp4(flags: u8) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[9] = 6;
        packet[12..16].copy_from_slice(&[10, 0, 0, 7]);
        packet[20..24].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        packet[33] = flags;
        packet
    }

    #[test]
    fn a_syn_is_recorded_with_its_source_and_port() {
        let (seen, _) = parse(&tcp4(0x02)).unwrap();
        assert_eq!(seen.from, "10.0.0.7:40000".parse().unwrap());
        assert_eq!((seen.proto, seen.port), (Proto::Tcp, 80));
    }

    #[test]
    fn answers_and_later_packets_are_not_recorded() {
        for flags in [0x12, 0x10, 0x18, 0x04, 0x11] {
            assert_eq!(parse(&tcp4(flags)), None, "{flags:#x}");
        }
    }

    #[test]
    fn an_ipv6_datagram_is_recorded_and_short_packets_are_passed_over() {
        let mut packet = vec![0; 48];
        packet[0] = 0x60;
        packet[6] = 17;
        packet[8..24].copy_from_slice(&"fd00::7".parse::<Ipv6Addr>().unwrap().octets());
        packet[40..44].copy_from_slice(&[0x9c, 0x40, 0, 53]);
        assert_eq!(
            parse(&packet).unwrap().0.from,
            "[fd00::7]:40000".parse().unwrap()
        );
        for length in 0..44 {
            assert_eq!(parse(&packet[..length]), None, "{length}");
        }
    }
}
