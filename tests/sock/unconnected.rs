//! UDP sockets that name their peer with each datagram.

use std::collections::BTreeSet;

use crate::families;
use crate::rig::{Rig, TARGET};
use crate::servers::{backend, exchange, frontend, start, udp};

families! {
    fn a_reply_shows_the_frontend(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[4]);
        assert_eq!(exchange(&udp(family), frontend(family, 1)), (4, frontend(family, 1)));
    }

    fn a_socket_keeps_its_backend_over_many_datagrams(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1, 2, 3, 4, 5, 6]);
        let socket = udp(family);
        let (first, _) = exchange(&socket, frontend(family, 1));
        for _ in 0..200 {
            assert_eq!(exchange(&socket, frontend(family, 1)), (first, frontend(family, 1)));
        }
        let others: BTreeSet<u8> =
            (0..100).map(|_| exchange(&udp(family), frontend(family, 1)).0).collect();
        assert!(others.len() > 1, "other sockets get other backends");
    }

    fn two_frontends_of_one_socket_each_show_their_own_address(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1, 2]);
        rig.serve(family, 2, &[1, 2]);
        for _ in 0..20 {
            let socket = udp(family);
            let (one, from_one) = exchange(&socket, frontend(family, 1));
            let (two, from_two) = exchange(&socket, frontend(family, 2));
            assert_ne!(one, two, "replies of one backend could be of either frontend");
            assert_eq!((from_one, from_two), (frontend(family, 1), frontend(family, 2)));
        }
    }

    fn a_second_frontend_of_the_only_backend_is_left_to_the_packet_path(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        rig.serve(family, 2, &[1]);
        let socket = udp(family);
        assert_eq!(exchange(&socket, frontend(family, 1)), (1, frontend(family, 1)));
        // No packet path in this namespace, nor a route: the frontend's own address has gone out.
        let error = socket.send_to(b"?", frontend(family, 2)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
        assert_eq!(exchange(&socket, frontend(family, 1)), (1, frontend(family, 1)));
        assert_eq!(exchange(&udp(family), frontend(family, 2)), (1, frontend(family, 2)));
    }

    fn a_backend_dialled_by_its_own_address_shows_its_own_address(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        let socket = udp(family);
        assert_eq!(exchange(&socket, frontend(family, 1)), (1, frontend(family, 1)));
        assert_eq!(exchange(&socket, backend(family, 1)), (1, backend(family, 1)));
        assert_eq!(exchange(&socket, frontend(family, 1)), (1, frontend(family, 1)));
    }

    fn a_connected_socket_may_name_another_frontend_for_one_datagram(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1, 2]);
        let socket = udp(family);
        socket.connect(family.dialled(family.pod(3), TARGET)).unwrap();
        socket.send_to(b"?", frontend(family, 1)).unwrap();
        // The reply does not come from the connected peer: the kernel drops it, as without Services.
        assert_eq!(socket.peer_addr().unwrap(), backend(family, 3));
        socket.send(b"?").unwrap();
        assert_eq!(socket.recv_from(&mut [0]).unwrap(), (1, backend(family, 3)));
    }
}
