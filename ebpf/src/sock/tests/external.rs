//! NodePorts, addresses of several Services, and who is left to the packet path.

use weir_abi::node::{config::flags, netns, node_addr};
use weir_abi::service::scope;

use super::*;

const V4: [Addr; 3] = [
    Addr::from_v4([192, 0, 2, 1]),
    Addr::from_v4([127, 0, 0, 1]),
    Addr::from_v4([127, 255, 255, 254]),
];

fn v6(last: u8) -> Addr {
    let mut octets = [0; 16];
    octets[15] = last;
    Addr::from_v6(octets)
}

fn pod() -> Option<NetnsOwner> {
    Some(NetnsOwner {
        addr4: Addr::from_v4([10, 1, 0, 9]),
        addr6: Addr::from_v6([0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]),
        ..NetnsOwner::default()
    })
}

fn node() -> Option<NetnsOwner> {
    pod().map(|owner| NetnsOwner {
        flags: netns::NODE,
        ..owner
    })
}

fn at(addr: Addr) -> SockAddr {
    SockAddr::new(addr, PortBe::new(30080))
}

impl Fake {
    /// A NodePort of each family and protocol on frontend 1's backends, which is IPv4 for both.
    fn node_port(mut self) -> Self {
        for (v4, proto) in [
            (true, Proto::TCP),
            (true, Proto::UDP),
            (false, Proto::TCP),
            (false, Proto::UDP),
        ] {
            let key = ServiceKey {
                addr: ServiceKey::node_wide(v4),
                port: PortBe::new(30080),
                proto,
                scope: scope::EVERYONE,
            };
            let value = Service {
                set: SetId(1),
                count: 1,
                ..Service::default()
            };
            self.services.insert(key, value);
        }
        let serving = node_addr::NODE_PORTS;
        self.node_addrs = HashMap::from([
            (V4[0], serving),
            (v6(7), serving),
            (Addr::from_v4([192, 0, 2, 2]), 0),
        ]);
        self
    }
}

/// What becomes of three sockets' dialling, none of which has talked to anyone.
fn both(fake: &Fake, dst: SockAddr) -> [Outcome; 3] {
    fake.revs.borrow_mut().clear();
    [
        connect(fake, 7, dst, Proto::TCP),
        connect(fake, 8, dst, Proto::UDP),
        sendmsg(fake, 9, dst),
    ]
}

const UNTOUCHED: [Outcome; 3] = [Outcome::Untouched; 3];

#[test]
fn a_node_port_answers_at_the_nodes_addresses_that_serve_them() {
    let mut fake = Fake::default().serve(1, &[1]).node_port();
    for owner in [None, pod(), node()] {
        fake.owner = owner;
        for addr in [V4[0], v6(7)] {
            assert_eq!(both(&fake, at(addr)), [Outcome::To(backend(1)); 3]);
            assert_eq!(getpeername(&fake, 7, backend(1)), Some(at(addr)));
            assert_eq!(recvmsg(&fake, 9, backend(1)), Some(at(addr)));
        }
        // An address of the node that is not for NodePorts, and one that is not the node's.
        for addr in [[192, 0, 2, 2], [192, 0, 2, 3]] {
            assert_eq!(both(&fake, at(Addr::from_v4(addr))), UNTOUCHED);
        }
        let other = SockAddr::new(V4[0], PortBe::new(30081));
        assert_eq!(
            both(&fake, other),
            UNTOUCHED,
            "another port is the node's own"
        );
    }
}

#[test]
fn the_address_that_node_wide_frontends_stand_under_is_nobodys() {
    let fake = Fake {
        owner: node(),
        ..Fake::default().serve(1, &[1]).node_port()
    };
    for v4 in [true, false] {
        assert_eq!(both(&fake, at(ServiceKey::node_wide(v4))), UNTOUCHED);
    }
}

#[test]
fn a_node_port_answers_at_loopback_addresses_for_the_nodes_own_sockets_only() {
    let mut fake = Fake::default().serve(1, &[1]).node_port();
    for addr in [V4[1], V4[2], v6(1)] {
        fake.owner = node();
        assert_eq!(both(&fake, at(addr)), [Outcome::To(backend(1)); 3]);
        assert_eq!(getpeername(&fake, 7, backend(1)), Some(at(addr)));
        for other in [None, pod()] {
            fake.owner = other;
            assert_eq!(both(&fake, at(addr)), UNTOUCHED, "{other:?}");
        }
    }
}

#[test]
fn a_frontend_of_the_nodes_address_itself_beats_the_node_wide_one() {
    let mut fake = Fake::default().serve(1, &[1]).serve(2, &[2]).node_port();
    let SockAddr { addr, port, .. } = at(V4[0]);
    fake.services
        .insert(ServiceKey::marker(addr), Service::default());
    for proto in [Proto::TCP, Proto::UDP] {
        let key = ServiceKey {
            addr,
            port,
            proto,
            scope: scope::EVERYONE,
        };
        let value = Service {
            set: SetId(2),
            count: 1,
            ..Service::default()
        };
        fake.services.insert(key, value);
    }
    assert_eq!(both(&fake, at(V4[0])), [Outcome::To(backend(2)); 3]);
    let other = SockAddr::new(V4[0], PortBe::new(30081));
    assert_eq!(both(&fake, other), UNTOUCHED, "the marker refuses nothing");
}

#[test]
fn a_node_port_without_backends_is_refused() {
    let mut fake = Fake::default().serve(1, &[1]).node_port();
    for service in fake.services.values_mut() {
        service.count = 0;
    }
    assert_eq!(both(&fake, at(V4[0])), [Outcome::Refuse; 3]);
}

#[test]
fn the_scope_of_sockets_is_everyones_also_where_those_outside_have_their_own() {
    let mut fake = Fake::default().serve(1, &[1]).serve(2, &[]).node_port();
    let key = ServiceKey {
        addr: ServiceKey::node_wide(true),
        port: PortBe::new(30080),
        proto: Proto::TCP,
        scope: scope::OUTSIDE,
    };
    fake.services.insert(key, Service::default());
    assert_eq!(
        connect(&fake, 7, at(V4[0]), Proto::TCP),
        Outcome::To(backend(1))
    );
}

#[test]
fn host_only_leaves_the_sockets_of_pods_to_the_packet_path() {
    let mut fake = Fake {
        config: flags::SOCKET_LB_HOST_ONLY,
        ..Fake::default().serve(1, &[1]).node_port()
    };
    for owner in [None, pod()] {
        fake.owner = owner;
        for dst in [frontend(1), at(V4[0])] {
            assert_eq!(both(&fake, dst), UNTOUCHED);
            assert_eq!(getpeername(&fake, 7, backend(1)), None);
            assert_eq!(recvmsg(&fake, 9, backend(1)), None);
        }
        let unserved = SockAddr::new(frontend(1).addr, PortBe::new(54));
        assert_eq!(both(&fake, unserved), UNTOUCHED, "no refusal either");
    }
    fake.owner = node();
    for dst in [frontend(1), at(V4[0]), at(V4[1])] {
        assert_eq!(both(&fake, dst), [Outcome::To(backend(1)); 3]);
    }
}

#[test]
fn a_connection_notes_the_namespace_it_was_made_in() {
    let fake = Fake::default().serve(1, &[1]);
    connect(&fake, 7, frontend(1), Proto::TCP);
    assert_eq!(fake.conn(7).unwrap().netns, NETNS);
}

#[test]
fn a_flow_that_another_socket_of_the_port_has_is_the_packet_paths_or_an_error() {
    let mut fake = Fake {
        taken: vec![backend(1)],
        ..Fake::default().serve(1, &[1])
    };
    for proto in [Proto::TCP, Proto::UDP] {
        for owner in [None, pod()] {
            fake.owner = owner;
            let outcome = connect(&fake, 7, frontend(1), proto);
            assert_eq!(outcome, Outcome::Untouched);
        }
        fake.owner = node();
        assert_eq!(connect(&fake, 7, frontend(1), proto), Outcome::Taken);
        assert_eq!(fake.conn(7), None);
    }
}

#[test]
fn a_second_frontend_of_the_only_backend_is_an_error_on_the_node() {
    let fake = Fake {
        owner: node(),
        ..Fake::default().serve(1, &[1]).serve(2, &[1])
    };
    assert_eq!(sendmsg(&fake, 7, frontend(1)), Outcome::To(backend(1)));
    assert_eq!(sendmsg(&fake, 7, frontend(2)), Outcome::Taken);
}
