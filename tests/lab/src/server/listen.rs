//! Listeners: each greets with the pod's name and a running number, then echoes.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::{Shared, socket};
use crate::wire::{Listen, Proto};

/// First word of every greeting.
pub const MAGIC: &str = "weir-lab";

/// Starts listening; returns the ports whose protocol the kernel lacks.
pub fn listen(shared: &Arc<Shared>, ports: &[Listen]) -> Result<Vec<Listen>> {
    let mut unsupported = Vec::new();
    for &port in ports {
        let bound = match socket::bound(port.proto, port.port, shared.bind) {
            Err(error) if socket::is_unsupported(&error) => {
                unsupported.push(port);
                continue;
            }
            other => other.with_context(|| {
                format!(
                    "{}: binding {} port {}",
                    shared.name,
                    port.proto.name(),
                    port.port
                )
            })?,
        };
        if port.proto == Proto::Udp {
            let udp = UdpSocket::from_std(std::net::UdpSocket::from(bound))?;
            tokio::spawn(serve_datagrams(Arc::clone(shared), udp));
        } else {
            socket::listen(&bound)?;
            // SAFETY: an OwnedFd names the same open socket until it is dropped.
            let listener = unsafe { AsyncFd::register(bound) }?;
            tokio::spawn(accept(Arc::clone(shared), listener));
        }
    }
    Ok(unsupported)
}

async fn accept(shared: Arc<Shared>, listener: AsyncFd<OwnedFd>) {
    let count = AtomicU64::new(0);
    loop {
        let Ok(mut ready) = listener.readable().await else {
            return;
        };
        // A client that left before it was accepted is no reason to stop.
        if let Ok(Ok(stream)) = ready.try_io(|listener| accept_one(listener.get_ref())) {
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            let greeting = format!("{MAGIC} {} {number}\n", shared.name);
            tokio::spawn(greet_and_echo(Arc::clone(&shared), stream, greeting));
        }
    }
}

fn accept_one(listener: &OwnedFd) -> io::Result<TcpStream> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null is allowed for an address that is not asked for.
    let fd = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            flags,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned by accept4() and is owned by nobody else.
    stream_of(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A connected stream socket as a tokio stream; one-to-one SCTP reads and writes like TCP.
pub fn stream_of(fd: OwnedFd) -> io::Result<TcpStream> {
    // SAFETY: the descriptor is owned and handed over; std only calls read, write and close on it.
    let stream = unsafe { std::net::TcpStream::from_raw_fd(fd.into_raw_fd()) };
    TcpStream::from_std(stream)
}

async fn greet_and_echo(shared: Arc<Shared>, mut stream: TcpStream, greeting: String) {
    if stream.write_all(greeting.as_bytes()).await.is_err() {
        return;
    }
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = stream.read(&mut buffer).await {
        if length == 0 || stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        if shared.draining.load(Ordering::Relaxed) {
            return;
        }
    }
}

async fn serve_datagrams(shared: Arc<Shared>, socket: UdpSocket) {
    let mut buffer = vec![0; 65_536];
    let mut number = 0_u64;
    loop {
        // An ICMP error for an earlier answer comes back here; the next datagram is unaffected.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        number += 1;
        let mut answer = format!("{MAGIC} {} {number}\n", shared.name).into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        let _ = socket.send_to(&answer, from).await;
    }
}
