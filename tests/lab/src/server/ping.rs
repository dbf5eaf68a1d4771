//! ICMP echo from a raw socket, which needs no sysctl.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use super::probe::from_error;
use super::socket;
use crate::wire::{ECHO, Outcome, Ping};

/// How long a request waits for its reply before it is sent again.
const RESEND: Duration = Duration::from_millis(300);
/// Types of the request and the reply (RFC 792, RFC 4443).
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);

/// Asks until it is answered.
pub async fn run(ping: Ping, source: Option<IpAddr>) -> Outcome {
    let limit = Duration::from_millis(ping.timeout_ms);
    let (socket, local) = match open(ping.target, source) {
        Ok(opened) => opened,
        Err(error) => return from_error(&error),
    };
    match timeout(limit, ask(&socket, ping.target)).await {
        Ok(Ok(())) => Outcome::Answer {
            from: ECHO.to_owned(),
            peer: SocketAddr::new(ping.target, 0),
            local,
        },
        Ok(Err(error)) => from_error(&error),
        Err(_) => Outcome::Timeout { local },
    }
}

/// A raw socket that is connected, so that it gets errors, and what comes from its peer alone.
fn open(target: IpAddr, source: Option<IpAddr>) -> io::Result<(UdpSocket, SocketAddr)> {
    let (family, proto) = if target.is_ipv4() {
        (libc::AF_INET, libc::IPPROTO_ICMP)
    } else {
        (libc::AF_INET6, libc::IPPROTO_ICMPV6)
    };
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: a system call without pointers; the number it returns is ours alone.
    let fd = unsafe { libc::socket(family, kind, proto) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned by socket() and is owned by nobody else.
    let mut fd = unsafe { OwnedFd::from_raw_fd(fd) };
    if let Some(source) = source {
        fd = socket::bind_to(fd, SocketAddr::new(source, 0))?;
    }
    socket::start_connect(&fd, SocketAddr::new(target, 0))?;
    let local = socket::local(&fd)?;
    Ok((
        UdpSocket::from_std(std::net::UdpSocket::from(fd))?,
        SocketAddr::new(local.ip(), 0),
    ))
}

async fn ask(socket: &UdpSocket, target: IpAddr) -> io::Result<()> {
    // Two processes of one node have identifiers of their own, mostly; the number below settles it.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let pid = std::process::id();
    let id = (pid as u16)
        .wrapping_mul(251)
        .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    let v4 = target.is_ipv4();
    let request = request(if v4 { V4.0 } else { V6.0 }, id, pid);
    let mut buffer = [0; 256];
    loop {
        socket.send(&request).await?;
        let resend = Instant::now() + RESEND;
        while let Ok(received) = tokio::time::timeout_at(resend, socket.recv(&mut buffer)).await {
            let length = received?;
            if answers(&buffer[..length], v4, &request) {
                return Ok(());
            }
        }
    }
}

/// An echo request. IPv6's checksum is the kernel's to write.
fn request(kind: u8, id: u16, pid: u32) -> [u8; 12] {
    let mut packet = [0; 12];
    packet[0] = kind;
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[8..].copy_from_slice(&pid.to_be_bytes());
    let words = packet.chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    packet[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    packet
}

/// Whether this is the reply to a request; raw IPv4 sockets see the IP header as well.
fn answers(packet: &[u8], v4: bool, request: &[u8; 12]) -> bool {
    let header = match packet.first() {
        Some(first) if v4 => usize::from(first & 0xf) * 4,
        _ => 0,
    };
    let reply = if v4 { V4.1 } else { V6.1 };
    packet.get(header..header + 12).is_some_and(|message| {
        message[0] == reply && message[1] == 0 && message[4..] == request[4..]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_repeats_its_request_and_others_do_not() {
        let sent = request(8, 700, 9);
        let mut reply = vec![0x45; 20];
        reply.extend([0, 0, 1, 2]);
        reply.extend(&sent[4..]);
        assert!(answers(&reply, true, &sent));
        assert!(!answers(&reply, true, &request(8, 701, 9)));
        assert!(!answers(&reply, true, &request(8, 700, 10)));
        assert!(!answers(&reply[..30], true, &sent));
        let looped: Vec<u8> = reply[..20].iter().chain(&sent).copied().collect();
        assert!(!answers(&looped, true, &sent), "the request itself");
    }

    #[test]
    fn the_checksum_of_a_request_adds_up() {
        for id in [0, 1, 0xffff] {
            let sum: u32 = request(8, id, 0xffff_fffe)
                .chunks(2)
                .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
                .sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "{id}");
        }
    }
}
