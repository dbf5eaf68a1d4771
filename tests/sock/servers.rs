//! Servers that answer with the number of the backend they are.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::rig::{BACKENDS, Family, PORT, TARGET};

/// How long an answer may take that must come.
const PATIENCE: Duration = Duration::from_secs(5);

/// TCP and UDP servers on every backend address of the family. They end with the process.
pub fn start(family: Family) {
    for n in 1..=BACKENDS {
        start_at(family.pod(n), n);
    }
}

fn start_at(ip: IpAddr, n: u8) {
    let tcp = TcpListener::bind((ip, TARGET)).unwrap();
    let udp = UdpSocket::bind((ip, TARGET)).unwrap();
    thread::spawn(move || {
        for stream in tcp.incoming() {
            // Echoes its number for each byte it gets.
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut byte = [0];
                while stream.read(&mut byte).is_ok_and(|len| len == 1) {
                    stream.write_all(&[n]).unwrap();
                }
            });
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            udp.send_to(&[n], from).unwrap();
        }
    });
}

/// A connection to the Service on `vip(n)`.
pub fn dial(family: Family, n: u8) -> TcpStream {
    let stream = TcpStream::connect(frontend(family, n)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Which backend answers on this connection.
pub fn ask(mut stream: &TcpStream) -> u8 {
    stream.write_all(b"?").unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    answer[0]
}

/// A UDP socket of the family that is not connected.
pub fn udp(family: Family) -> UdpSocket {
    let socket = UdpSocket::bind(family.any()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends a datagram there: which backend answers, and from which address as the socket sees it.
pub fn exchange(socket: &UdpSocket, to: SocketAddr) -> (u8, SocketAddr) {
    socket.send_to(b"?", to).unwrap();
    let mut answer = [0];
    let (_, from) = socket.recv_from(&mut answer).unwrap();
    (answer[0], from)
}

/// The Service on `vip(n)` as sockets of the family dial it.
pub fn frontend(family: Family, n: u8) -> SocketAddr {
    family.dialled(family.vip(n), PORT)
}

/// Backend `n` itself as sockets of the family dial it.
pub fn backend(family: Family, n: u8) -> SocketAddr {
    family.dialled(family.pod(n), TARGET)
}
