//! Exchanges: numbered messages to an echo server, for tests of what an established flow survives.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

use super::probe::greeting;
use crate::wire::{Exchange, ExchangeReport, Proto};

/// How long one message may take to come back before the exchange counts as broken.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends numbered messages until stopped; each must come back before the next is sent.
pub async fn run(exchange: Exchange, stopped: watch::Receiver<bool>) -> ExchangeReport {
    let mut report = ExchangeReport::default();
    let result = match exchange.proto {
        Proto::Tcp => tcp(exchange, stopped, &mut report).await,
        Proto::Udp => udp(exchange, stopped, &mut report).await,
        Proto::Sctp => Err(io::Error::other("exchanges are TCP or UDP")),
    };
    report.error = result.err().map(|error| error.to_string());
    report
}

async fn pause(exchange: Exchange, stopped: &mut watch::Receiver<bool>) -> bool {
    let every = Duration::from_millis(exchange.every_ms);
    timeout(every, stopped.wait_for(|stop| *stop))
        .await
        .is_err()
}

async fn tcp(
    exchange: Exchange,
    mut stopped: watch::Receiver<bool>,
    report: &mut ExchangeReport,
) -> io::Result<()> {
    let mut stream = in_time(TcpStream::connect(exchange.target)).await?;
    report.from = in_time(greeting(&mut stream)).await?.unwrap_or_default();
    while pause(exchange, &mut stopped).await {
        let message = report.sent.to_be_bytes();
        stream.write_all(&message).await?;
        report.sent += 1;
        let mut back = [0; 8];
        in_time(stream.read_exact(&mut back)).await?;
        if back != message {
            return Err(io::Error::other("other bytes came back"));
        }
        report.received += 1;
    }
    Ok(())
}

async fn udp(
    exchange: Exchange,
    mut stopped: watch::Receiver<bool>,
    report: &mut ExchangeReport,
) -> io::Result<()> {
    let any = if exchange.target.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(exchange.target).await?;
    while pause(exchange, &mut stopped).await {
        let message = report.sent.to_be_bytes();
        socket.send(&message).await?;
        report.sent += 1;
        let mut back = [0; 2048];
        let length = in_time(socket.recv(&mut back)).await?;
        let text = back[..length]
            .split(|&byte| byte == b'\n')
            .next()
            .unwrap_or_default();
        if !back[..length].ends_with(&message) {
            return Err(io::Error::other("another message came back"));
        }
        let name = String::from_utf8_lossy(text);
        name.split(' ')
            .nth(1)
            .unwrap_or_default()
            .clone_into(&mut report.from);
        report.received += 1;
    }
    Ok(())
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| {
        Err(io::Error::other(format!(
            "nothing came back in {PATIENCE:?}"
        )))
    })
}
