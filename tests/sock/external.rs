//! Frontends beside ClusterIPs, and whose sockets are translated at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};

use crate::families;
use crate::owner::{NODE_PORT, Owner, node_address};
use crate::rig::{Family, Rig};
use crate::servers::{ask, dial, exchange, frontend, start, udp};

/// A TCP connection, a UDP one and a datagram get there, and show that address as their peer.
fn reach(family: Family, to: SocketAddr) {
    let stream = TcpStream::connect(to).unwrap();
    assert_eq!((ask(&stream), stream.peer_addr().unwrap()), (3, to));
    let socket = udp(family);
    socket.connect(to).unwrap();
    assert_eq!(socket.peer_addr().unwrap(), to);
    socket.send(b"?").unwrap();
    let mut answer = [0];
    assert_eq!(socket.recv_from(&mut answer).unwrap(), (1, to));
    assert_eq!(answer, [3]);
    assert_eq!(exchange(&udp(family), to), (3, to));
}

/// None of them is translated: nobody listens there, or there is no route.
fn untouched(family: Family, to: SocketAddr) {
    let refused_or_unrouted = |error: std::io::Error| {
        let errno = error.raw_os_error();
        assert!(
            [Some(libc::ECONNREFUSED), Some(libc::ENETUNREACH)].contains(&errno),
            "{error}"
        );
    };
    refused_or_unrouted(TcpStream::connect(to).unwrap_err());
    let socket: UdpSocket = udp(family);
    match socket.send_to(b"?", to) {
        Ok(_) => {
            // Sent to the address itself: no backend answers.
            let timeout = std::time::Duration::from_millis(300);
            socket.set_read_timeout(Some(timeout)).unwrap();
            assert!(socket.recv_from(&mut [0]).is_err());
        }
        Err(error) => refused_or_unrouted(error),
    }
}

families! {
    fn a_node_port_answers_at_the_nodes_address_for_pods_and_node(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[3]);
        rig.node_port(family, 1);
        let to = family.dialled(node_address(family), NODE_PORT);
        untouched(family, to);
        rig.node_address(node_address(family));
        for owner in [Owner::Pod, Owner::Node] {
            rig.own(owner);
            reach(family, to);
        }
    }

    fn a_node_port_answers_at_localhost_for_the_nodes_own_sockets_only(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[3]);
        rig.node_port(family, 1);
        let loopbacks: &[IpAddr] = match family {
            Family::V6 => &[IpAddr::V6(Ipv6Addr::LOCALHOST)],
            Family::V4 | Family::Mapped => &[
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V4(Ipv4Addr::new(127, 9, 9, 9)),
            ],
        };
        for ip in loopbacks {
            let to = family.dialled(*ip, NODE_PORT);
            rig.own(Owner::Pod);
            untouched(family, to);
            rig.own(Owner::Node);
            reach(family, to);
        }
    }

    fn a_host_port_at_localhost_answers_the_nodes_own_sockets_only(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[3]);
        let localhost: IpAddr = match family {
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
            Family::V4 | Family::Mapped => Ipv4Addr::LOCALHOST.into(),
        };
        rig.also_at(family, 1, localhost.into(), NODE_PORT);
        rig.mark(localhost);
        let to = family.dialled(localhost, NODE_PORT);
        rig.own(Owner::Pod);
        untouched(family, to);
        rig.own(Owner::Node);
        reach(family, to);
    }

    fn host_only_translates_the_nodes_sockets_and_leaves_those_of_pods_alone(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[3]);
        rig.host_only(true);
        rig.own(Owner::Pod);
        untouched(family, frontend(family, 1));
        rig.own(Owner::Node);
        reach(family, frontend(family, 1));
        rig.own(Owner::Pod);
        rig.host_only(false);
        reach(family, frontend(family, 1));
    }

    fn a_connection_from_before_host_only_still_shows_what_was_dialled(family) {
        start(family);
        let mut rig = Rig::new();
        rig.serve(family, 1, &[3]);
        rig.own(Owner::Pod);
        let stream = dial(family, 1);
        rig.host_only(true);
        assert_eq!(ask(&stream), 3);
        assert_eq!(stream.peer_addr().unwrap(), frontend(family, 1));
    }
}
