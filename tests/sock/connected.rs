//! Connected sockets: translated once, at connect().

use std::collections::BTreeSet;
use std::net::TcpStream;

use crate::families;
use crate::rig::Rig;
use crate::servers::{ask, backend, dial, exchange, frontend, start, udp};

families! {
    fn a_tcp_connection_reaches_a_backend_and_getpeername_shows_the_frontend(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[2]);
        let stream = dial(family, 1);
        assert_eq!(ask(&stream), 2);
        assert_eq!(stream.peer_addr().unwrap(), frontend(family, 1));
    }

    fn a_connected_udp_socket_reaches_a_backend_and_sees_the_frontend(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[3]);
        let socket = udp(family);
        socket.connect(frontend(family, 1)).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), frontend(family, 1));
        for _ in 0..3 {
            socket.send(b"?").unwrap();
            let mut answer = [0];
            assert_eq!(socket.recv_from(&mut answer).unwrap(), (1, frontend(family, 1)));
            assert_eq!(answer, [3]);
        }
    }

    fn connections_spread_over_all_backends(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1, 2, 3, 4]);
        // 100 draws miss one of four with a probability of 4 * 0.75^100 < 10^-11.
        let seen: BTreeSet<u8> = (0..100).map(|_| ask(&dial(family, 1))).collect();
        assert_eq!(seen, BTreeSet::from([1, 2, 3, 4]));
    }

    fn a_connection_to_a_backends_own_address_is_untouched(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        let stream = TcpStream::connect(backend(family, 1)).unwrap();
        assert_eq!(ask(&stream), 1);
        assert_eq!(stream.peer_addr().unwrap(), backend(family, 1));
        let other = TcpStream::connect(backend(family, 5)).unwrap();
        assert_eq!(ask(&other), 5);
        assert_eq!(other.peer_addr().unwrap(), backend(family, 5));
        assert_eq!(exchange(&udp(family), backend(family, 1)), (1, backend(family, 1)));
        assert_eq!(rig.connections(), 0);
    }

    fn a_socket_that_connects_again_shows_what_it_is_connected_to_now(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        rig.serve(family, 2, &[1]);
        let socket = udp(family);
        socket.connect(frontend(family, 1)).unwrap();
        socket.connect(frontend(family, 2)).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), frontend(family, 2));
        socket.send(b"?").unwrap();
        assert_eq!(socket.recv_from(&mut [0]).unwrap(), (1, frontend(family, 2)));
        socket.connect(backend(family, 1)).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), backend(family, 1));
        socket.send(b"?").unwrap();
        assert_eq!(socket.recv_from(&mut [0]).unwrap(), (1, backend(family, 1)));
    }

    fn a_closed_socket_is_forgotten(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        let stream = dial(family, 1);
        let socket = udp(family);
        socket.connect(frontend(family, 1)).unwrap();
        assert_eq!(rig.connections(), 2);
        drop(stream);
        drop(socket);
        assert_eq!(rig.connections(), 0);
    }
}
