//! Sockets that share a source port and dial two frontends with the same backends.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::families;
use crate::owner::Owner;
use crate::rig::{Family, Rig};
use crate::servers::{ask, backend, frontend, start};

/// A socket bound to a port that others may be bound to as well.
fn bound(address: SocketAddr, kind: i32) -> OwnedFd {
    let domain = match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    // SAFETY: socket takes numbers; the descriptor is this function's own.
    let socket = unsafe {
        let fd = libc::socket(domain, kind | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    for option in [libc::SO_REUSEADDR, libc::SO_REUSEPORT] {
        let one: libc::c_int = 1;
        // SAFETY: the option reads an int.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const one).cast(),
                size_of_val(&one) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
    call(&socket, address, libc::bind).unwrap();
    socket
}

type Call = unsafe extern "C" fn(i32, *const libc::sockaddr, libc::socklen_t) -> i32;

fn call(socket: &OwnedFd, address: SocketAddr, call: Call) -> io::Result<()> {
    let result = match address {
        SocketAddr::V4(v4) => {
            // SAFETY: a zero address is one.
            let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            raw.sin_family = libc::AF_INET as libc::sa_family_t;
            raw.sin_port = v4.port().to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            let len = size_of_val(&raw) as libc::socklen_t;
            // SAFETY: the call reads an address of that length.
            unsafe { call(socket.as_raw_fd(), (&raw const raw).cast(), len) }
        }
        SocketAddr::V6(v6) => {
            // SAFETY: a zero address is one.
            let mut raw: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            raw.sin6_port = v6.port().to_be();
            raw.sin6_addr.s6_addr = v6.ip().octets();
            let len = size_of_val(&raw) as libc::socklen_t;
            // SAFETY: the call reads an address of that length.
            unsafe { call(socket.as_raw_fd(), (&raw const raw).cast(), len) }
        }
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A connection from the port to an address.
fn tcp(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = bound(from, libc::SOCK_STREAM);
    call(&socket, to, libc::connect)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// The same of UDP.
fn udp(from: SocketAddr, to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bound(from, libc::SOCK_DGRAM);
    call(&socket, to, libc::connect)?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

fn ask_udp(socket: &UdpSocket) -> u8 {
    socket.send(b"?").unwrap();
    let mut answer = [0];
    socket.recv(&mut answer).unwrap();
    answer[0]
}

/// Where the clients are bound: to the owner's address, or to a port only.
fn source(family: Family, n: u16, address: bool) -> SocketAddr {
    let port = 20_000 + n;
    if address {
        family.dialled(Owner::address(family), port)
    } else {
        SocketAddr::new(family.any().ip(), port)
    }
}

/// Makes the owner's address the source of what is sent to the backends, as it is in a pod: else
/// what is local has its own address for its source.
fn route(family: Family, n: u8) {
    let ip = if family == Family::V6 { "-6" } else { "-4" };
    let to = family.pod(n).to_string();
    let source = Owner::address(family).to_string();
    let route = ["route", "local", &to, "dev", "lo", "table", "local"];
    let change = |verb: &str, more: &[&str]| {
        let (route, rest) = route.split_at(1);
        let args = [&[ip], route, &[verb], rest, more].concat();
        let output = std::process::Command::new("ip").args(args).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    // The kernel's own goes first: an IPv6 route beside it would come after it.
    change("del", &[]);
    change("add", &["src", &source]);
}

families! {
    fn one_port_towards_two_frontends_never_is_one_flow(family) {
        start(family);
        let mut rig = Rig::new();
        rig.own(Owner::Pod);
        for n in [1, 2] {
            rig.serve(family, n, &[1, 2]);
            route(family, n);
        }
        let mut two_backends = 0;
        for n in 0..20 {
            for address in [true, false] {
                let from = source(family, 2 * n + u16::from(address), address);
                let one = tcp(from, frontend(family, 1)).unwrap();
                let answer = ask(&one);
                assert_eq!(one.local_addr().unwrap().ip().to_canonical(), Owner::address(family));
                match tcp(from, frontend(family, 2)) {
                    Ok(two) => assert_ne!(answer, ask(&two)),
                    // Left to the packet path, which this namespace has not.
                    Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ENETUNREACH)),
                }
                let one = udp(from, frontend(family, 1)).unwrap();
                let answer = ask_udp(&one);
                if let Ok(two) = udp(from, frontend(family, 2)) {
                    assert_ne!(answer, ask_udp(&two));
                    two_backends += 1;
                }
                assert_eq!(ask_udp(&one), answer);
            }
        }
        assert!(two_backends > 0, "some got another backend");
    }

    fn the_second_flow_of_a_port_to_the_only_backend_is_the_packet_paths_in_a_pod(family) {
        start(family);
        let mut rig = Rig::new();
        rig.own(Owner::Pod);
        for n in [1, 2] {
            rig.serve(family, n, &[1]);
        }
        route(family, 1);
        for address in [true, false] {
            let from = source(family, u16::from(address), address);
            let one = tcp(from, frontend(family, 1)).unwrap();
            // No packet path in this namespace, nor a route.
            let error = tcp(from, frontend(family, 2)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
            assert_eq!(ask(&one), 1);
            let one = udp(from, frontend(family, 1)).unwrap();
            let error = udp(from, frontend(family, 2)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
            assert_eq!(ask_udp(&one), 1);
        }
    }

    fn the_second_flow_of_a_port_to_the_only_backend_is_an_error_on_the_node(family) {
        start(family);
        let mut rig = Rig::new();
        rig.own(Owner::Node);
        for n in [1, 2] {
            rig.serve(family, n, &[1]);
        }
        route(family, 1);
        let from = source(family, 0, true);
        let one = tcp(from, frontend(family, 1)).unwrap();
        let error = tcp(from, frontend(family, 2)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        assert_eq!(ask(&one), 1);
        let one = udp(from, frontend(family, 1)).unwrap();
        let error = udp(from, frontend(family, 2)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        assert_eq!(ask_udp(&one), 1);
    }

    fn a_bound_datagram_socket_may_connect_again_to_the_backend_it_has(family) {
        start(family);
        let mut rig = Rig::new();
        rig.own(Owner::Pod);
        for n in [1, 2] {
            rig.serve(family, n, &[1]);
        }
        let socket = udp(source(family, 0, true), frontend(family, 1)).unwrap();
        assert_eq!(ask_udp(&socket), 1);
        socket.connect(frontend(family, 2)).unwrap();
        assert_eq!(ask_udp(&socket), 1);
        assert_eq!(socket.peer_addr().unwrap(), frontend(family, 2));
    }

    fn a_listener_on_the_port_and_a_flow_to_another_peer_are_no_clash(family) {
        start(family);
        let mut rig = Rig::new();
        rig.own(Owner::Pod);
        rig.serve(family, 1, &[1]);
        let from = source(family, 0, true);
        let listener = bound(from, libc::SOCK_STREAM);
        // SAFETY: listen takes numbers.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
        let _direct = tcp(from, backend(family, 3)).unwrap();
        assert_eq!(ask(&tcp(from, frontend(family, 1)).unwrap()), 1);
        let _direct = udp(from, backend(family, 3)).unwrap();
        assert_eq!(ask_udp(&udp(from, frontend(family, 1)).unwrap()), 1);
    }
}
