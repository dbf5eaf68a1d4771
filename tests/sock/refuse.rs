//! What a Service does not serve is refused, and never leaves for the network.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};

use crate::families;
use crate::rig::{Family, PORT, Rig};
use crate::servers::{frontend, start, udp};

fn assert_refused(family: Family, to: SocketAddr) {
    let refused = Some(libc::ECONNREFUSED);
    let tcp = TcpStream::connect(to).unwrap_err();
    assert_eq!(
        (tcp.kind(), tcp.raw_os_error()),
        (ErrorKind::ConnectionRefused, refused)
    );
    assert_eq!(udp(family).connect(to).unwrap_err().raw_os_error(), refused);
    assert_eq!(
        udp(family).send_to(b"?", to).unwrap_err().raw_os_error(),
        refused
    );
}

families! {
    fn a_service_without_endpoints_refuses(family) {
        let mut rig = Rig::new();
        rig.serve(family, 1, &[]);
        assert_refused(family, frontend(family, 1));
    }

    fn a_port_that_the_cluster_ip_does_not_serve_is_refused(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        assert_refused(family, family.dialled(family.vip(1), PORT + 1));
    }

    fn an_address_next_to_the_services_is_not_refused_but_unreachable(family) {
        let mut rig = Rig::new();
        rig.serve(family, 1, &[1]);
        let neighbour = family.dialled(family.vip(2), PORT);
        let error = TcpStream::connect(neighbour).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
        let error = udp(family).send_to(b"?", neighbour).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
    }

    fn a_socket_that_was_refused_may_try_elsewhere(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[]);
        rig.serve(family, 2, &[2]);
        let socket = udp(family);
        socket.connect(frontend(family, 1)).unwrap_err();
        socket.connect(frontend(family, 2)).unwrap();
        socket.send(b"?").unwrap();
        assert_eq!(socket.recv_from(&mut [0]).unwrap(), (1, frontend(family, 2)));
    }
}
