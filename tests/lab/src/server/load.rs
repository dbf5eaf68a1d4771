//! Loads: requests at a steady pace, every failure of which is told.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::probe::greeting;
use super::socket;
use crate::wire::{Load, LoadReport, Requests};

/// How long one request may take. Shorter than TCP's second attempt to send a SYN would wait: a lost
/// packet is a failure, not a delay.
const PATIENCE: Duration = Duration::from_millis(900);
/// How many failures are told.
const TOLD: usize = 10;

/// The open connection of a load, and who answers on it.
struct Open {
    stream: TcpStream,
    from: String,
}

/// Makes requests until stopped, or until a bound is reached.
pub async fn run(
    load: Load,
    source: Option<IpAddr>,
    mut stopped: watch::Receiver<bool>,
) -> LoadReport {
    let mut report = LoadReport::default();
    let end = Instant::now() + Duration::from_millis(load.limit_ms);
    let pause = Duration::from_millis(load.every_ms);
    let source = SocketAddr::new(source.unwrap_or(socket::any(load.target)), 0);
    let udp = match load.requests {
        Requests::Datagrams => match UdpSocket::bind(source).await {
            Ok(socket) => Some(socket),
            Err(error) => {
                report.errors.push(error.to_string());
                return report;
            }
        },
        Requests::Short | Requests::KeepAlive => None,
    };
    let mut open = None;
    while report.sent < load.count && Instant::now() < end {
        if timeout(pause, stopped.wait_for(|stop| *stop)).await.is_ok() {
            break;
        }
        report.sent += 1;
        let number = report.sent;
        let done = match &udp {
            Some(socket) => timeout(PATIENCE, datagram(socket, load.target, number)).await,
            None => {
                let request = one(&load, source, &mut open, number, &mut report.connections);
                timeout(PATIENCE, request).await
            }
        };
        let done = done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match done {
            Ok(from) => {
                report.answered += 1;
                *report.by.entry(from).or_default() += 1;
            }
            Err(error) => {
                open = None;
                if report.errors.len() < TOLD {
                    report.errors.push(format!("request {number}: {error}"));
                }
            }
        }
    }
    report
}

/// One request over TCP, and who answered it.
async fn one(
    load: &Load,
    source: SocketAddr,
    open: &mut Option<Open>,
    number: u64,
    connections: &mut u64,
) -> io::Result<String> {
    let mut connection = match open.take() {
        Some(last) if !has_ended(&last.stream)? => last,
        _ => {
            *connections += 1;
            connect(load.target, source).await?
        }
    };
    let message = number.to_be_bytes();
    connection.stream.write_all(&message).await?;
    let mut back = [0; 8];
    connection.stream.read_exact(&mut back).await?;
    if back != message {
        return Err(io::Error::other("other bytes came back"));
    }
    let from = connection.from.clone();
    if load.requests == Requests::KeepAlive {
        *open = Some(connection);
    }
    Ok(from)
}

async fn connect(target: SocketAddr, source: SocketAddr) -> io::Result<Open> {
    let socket = if target.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if !source.ip().is_unspecified() {
        socket.bind(source)?;
    }
    let mut stream = socket.connect(target).await?;
    let from = greeting(&mut stream).await?;
    let from = from.ok_or_else(|| io::Error::other("no greeting"))?;
    Ok(Open { stream, from })
}

/// Whether the server has closed a connection on which nothing is under way. A reset is an error:
/// a server that ends says so with a FIN.
fn has_ended(stream: &TcpStream) -> io::Result<bool> {
    match stream.try_read(&mut [0; 1]) {
        Ok(0) => Ok(true),
        Ok(_) => Err(io::Error::other("more than the answer came")),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

async fn datagram(socket: &UdpSocket, target: SocketAddr, number: u64) -> io::Result<String> {
    let message = number.to_be_bytes();
    socket.send_to(&message, target).await?;
    let mut buffer = [0; 2048];
    loop {
        let (length, _) = socket.recv_from(&mut buffer).await?;
        let Some(end) = buffer[..length].iter().position(|&byte| byte == b'\n') else {
            continue;
        };
        // An answer to an earlier request may be late.
        if buffer[end + 1..length] == message {
            let text = String::from_utf8_lossy(&buffer[..end]);
            return Ok(text.split(' ').nth(1).unwrap_or_default().to_owned());
        }
    }
}
