//! What `SOCK_DESTROY` does to a socket that a hook has translated.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};

use weir_net::sock_diag::{Protocol, SockDiag};

use crate::families;
use crate::rig::Rig;
use crate::servers::{ask, backend, dial, frontend, start, udp};

fn cookie(fd: RawFd) -> u64 {
    let mut cookie = 0u64;
    let mut len = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the option writes 8 bytes.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    assert_eq!(result, 0);
    cookie
}

/// Closes the socket as another process would.
fn destroy(fd: RawFd, protocol: Protocol, peer: std::net::SocketAddr) {
    let diag = SockDiag::open().unwrap();
    let all = diag.connected(protocol).unwrap();
    let socket = all.iter().find(|s| s.cookie == cookie(fd)).unwrap();
    assert_eq!(socket.peer.ip(), peer.ip().to_canonical());
    assert_eq!(socket.peer.port(), peer.port());
    diag.destroy(socket).unwrap();
    assert!(diag.destroy(socket).unwrap_err().is_gone());
}

families! {
    fn a_connected_datagram_socket_that_is_closed_gets_an_error_and_may_connect_again(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        let socket = udp(family);
        socket.connect(frontend(family, 1)).unwrap();
        rig.serve(family, 1, &[2]);
        destroy(socket.as_raw_fd(), Protocol::Udp, backend(family, 1));
        let error = socket.recv(&mut [0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNABORTED));
        socket.connect(frontend(family, 1)).unwrap();
        socket.send(b"?").unwrap();
        let mut answer = [0];
        socket.recv(&mut answer).unwrap();
        assert_eq!(answer, [2]);
    }

    fn a_connection_that_is_closed_ends_at_once_and_one_beside_it_goes_on(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        let mut closed = dial(family, 1);
        let direct = TcpStream::connect(backend(family, 1)).unwrap();
        assert_eq!((ask(&closed), ask(&direct)), (1, 1));
        destroy(closed.as_raw_fd(), Protocol::Tcp, backend(family, 1));
        let error = closed.read(&mut [0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNABORTED));
        assert!(closed.write(b"?").is_err());
        assert_eq!(ask(&direct), 1);
    }
}

#[test]
fn a_kernel_that_closes_sockets_is_known_by_asking_it() {
    crate::rig::isolated(|| {
        let diag = SockDiag::open().unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert!(diag.can_destroy(protocol).unwrap());
        }
    });
}
