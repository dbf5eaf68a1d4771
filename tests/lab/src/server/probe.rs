//! The prober: one attempt to reach somebody, with everything the lab must know to judge it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use super::listen::{MAGIC, stream_of};
use super::socket;
use crate::wire::{Outcome, Probe, Proto};

/// How long a datagram waits for its answer before it is sent again.
const RESEND: Duration = Duration::from_millis(300);

/// Makes one attempt.
pub async fn run(probe: Probe, source: Option<IpAddr>) -> Outcome {
    let limit = Duration::from_millis(probe.timeout_ms);
    let opened = match open(&probe, source) {
        Ok(opened) => opened,
        Err(error) => return from_error(&error),
    };
    let local = match socket::local(&opened) {
        Ok(local) => local,
        Err(error) => return from_error(&error),
    };
    let attempt = async {
        match probe.proto {
            Proto::Udp => datagram(opened, probe, local).await,
            Proto::Tcp | Proto::Sctp => stream(opened, probe, local).await,
        }
    };
    match timeout(limit, attempt).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => from_error(&error),
        Err(_) => Outcome::Timeout { local },
    }
}

/// Opens the socket and sends the first packet of a stream, so that its own port is known.
fn open(probe: &Probe, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let mut opened = socket::open(probe.target.ip(), probe.proto)?;
    let unconnected = probe.proto == Proto::Udp && probe.unconnected;
    if source.is_some() || probe.source_port != 0 || unconnected {
        let any = socket::any(probe.target);
        let source = SocketAddr::new(source.unwrap_or(any), probe.source_port);
        opened = socket::bind_to(opened, source)?;
    }
    if !unconnected {
        socket::start_connect(&opened, probe.target)?;
    }
    Ok(opened)
}

/// What an error of a socket means.
pub fn from_error(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Outcome::Refused,
        Some(libc::ECONNRESET | libc::EPIPE) => Outcome::Reset,
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => Outcome::Unreachable,
        _ if socket::is_unsupported(error) => Outcome::Unsupported,
        _ => Outcome::Failed {
            error: error.to_string(),
        },
    }
}

async fn stream(opened: OwnedFd, probe: Probe, local: SocketAddr) -> io::Result<Outcome> {
    let mut stream = stream_of(opened)?;
    stream.writable().await?;
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    let Some(from) = greeting(&mut stream).await? else {
        return Ok(Outcome::Reset);
    };
    let peer = socket::peer(&stream)?;
    if probe.bytes > 0
        && let Err(error) = echo(&mut stream, probe.bytes as usize).await
    {
        return Ok(Outcome::Failed {
            error: format!("echo of {} bytes: {error}", probe.bytes),
        });
    }
    Ok(Outcome::Answer { from, peer, local })
}

/// Reads the server's name; none when the stream ends before a whole greeting.
pub async fn greeting(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => return Ok(name_in(&line)),
            Ok(byte) if line.len() < 1024 => line.push(byte),
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn name_in(line: &[u8]) -> Option<String> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    (words.next()? == MAGIC).then(|| words.next().map(str::to_owned))?
}

async fn echo(stream: &mut TcpStream, bytes: usize) -> io::Result<()> {
    let sent: Vec<u8> = (0..bytes).map(pattern).collect();
    let mut back = vec![0; bytes];
    let (mut reader, mut writer) = stream.split();
    let (write, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut back));
    write?;
    read?;
    if sent == back {
        Ok(())
    } else {
        Err(io::Error::other("other bytes came back"))
    }
}

fn pattern(index: usize) -> u8 {
    (index % 251) as u8
}

/// A text that no other probe of this process sends.
fn nonce() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!(
        "{}-{};",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

async fn datagram(opened: OwnedFd, probe: Probe, local: SocketAddr) -> io::Result<Outcome> {
    let socket = UdpSocket::from_std(std::net::UdpSocket::from(opened))?;
    let mut payload = nonce().into_bytes();
    let wanted = probe.bytes as usize;
    payload.extend((payload.len()..wanted.max(payload.len())).map(pattern));
    let mut buffer = vec![0; 65_536];
    loop {
        let sent = if probe.unconnected {
            socket.send_to(&payload, probe.target).await
        } else {
            socket.send(&payload).await
        };
        unless_narrow(sent)?;
        let resend = Instant::now() + RESEND;
        while let Ok(received) =
            tokio::time::timeout_at(resend, socket.recv_from(&mut buffer)).await
        {
            let Some((length, peer)) = unless_narrow(received)? else {
                continue;
            };
            if let Some(from) = answer_in(&buffer[..length], &payload) {
                let peer = SocketAddr::new(socket::plain(peer.ip()), peer.port());
                return Ok(Outcome::Answer { from, peer, local });
            }
        }
    }
}

/// Takes the news that the way is narrower for none: the next datagram goes in smaller fragments.
fn unless_narrow<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Ok(None),
        other => other.map(Some),
    }
}

/// The name in an answer to this very payload.
fn answer_in(datagram: &[u8], payload: &[u8]) -> Option<String> {
    let end = datagram.iter().position(|&byte| byte == b'\n')?;
    (datagram[end + 1..] == *payload).then(|| name_in(&datagram[..end]))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_another_payload_is_not_taken() {
        assert_eq!(
            answer_in(b"weir-lab shop/cart-0 3\nabc", b"abc"),
            Some("shop/cart-0".into())
        );
        assert_eq!(answer_in(b"weir-lab shop/cart-0 3\nabd", b"abc"), None);
        assert_eq!(answer_in(b"other shop/cart-0 3\nabc", b"abc"), None);
        assert_eq!(answer_in(b"abc", b"abc"), None);
    }
}
