//! Endpoints come and go while sockets are open.

use crate::families;
use crate::rig::Rig;
use crate::servers::{ask, dial, exchange, frontend, start, udp};

families! {
    fn a_datagram_socket_leaves_a_removed_backend_with_its_next_datagram(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        let socket = udp(family);
        assert_eq!(exchange(&socket, frontend(family, 1)).0, 1);
        rig.serve(family, 1, &[1, 2]);
        assert_eq!(exchange(&socket, frontend(family, 1)).0, 1, "a backend more moves nobody");
        rig.serve(family, 1, &[2]);
        assert_eq!(exchange(&socket, frontend(family, 1)), (2, frontend(family, 1)));
        rig.serve(family, 1, &[]);
        let error = socket.send_to(b"?", frontend(family, 1)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    }

    fn a_connection_outlives_its_backends_removal_and_new_ones_go_elsewhere(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        let old = dial(family, 1);
        assert_eq!(ask(&old), 1);
        rig.serve(family, 1, &[2]);
        assert_eq!(ask(&old), 1);
        assert_eq!(old.peer_addr().unwrap(), frontend(family, 1));
        for _ in 0..20 {
            assert_eq!(ask(&dial(family, 1)), 2);
        }
    }

    fn a_backend_that_leaves_one_service_keeps_the_flows_of_another(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        rig.serve(family, 2, &[1]);
        let (one, two) = (udp(family), udp(family));
        assert_eq!(exchange(&one, frontend(family, 1)).0, 1);
        assert_eq!(exchange(&two, frontend(family, 2)).0, 1);
        rig.serve(family, 1, &[2]);
        assert_eq!(exchange(&one, frontend(family, 1)), (2, frontend(family, 1)));
        assert_eq!(exchange(&two, frontend(family, 2)), (1, frontend(family, 2)));
    }
}
