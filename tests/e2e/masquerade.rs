//! Pods and the world, in a network that knows nothing of pods.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use weir_lab::control::Control;
use weir_lab::spawn::{Place, run_in};
use weir_lab::{Lab, Listen, Outcome, Pod, PodSpec, Probe, Proto, netlink};
use weir_net::IpNetwork;

const PORT: u16 = 8080;
const WORLD: [&str; 2] = ["203.0.113.10", "2001:db8:113::10"];
const WAIT: Duration = Duration::from_secs(5);

fn listens() -> [Listen; 2] {
    [Proto::Tcp, Proto::Udp].map(|proto| Listen { proto, port: PORT })
}

/// A server outside the cluster at each of two addresses, IPv4 first.
fn world(lab: &Lab, addresses: [&str; 2]) -> [Arc<Control>; 2] {
    addresses.map(|address| {
        lab.add_outside(address.parse().unwrap(), &listens())
            .unwrap()
    })
}

fn pod(lab: &Lab, name: &str, node: usize) -> Arc<Pod> {
    lab.add_pod(&PodSpec::new("default", name, node)).unwrap()
}

/// A pod dials a server by TCP (more than a segment each way) and UDP: whether both were answered.
fn dials(pod: &Pod, address: &str) {
    for (proto, bytes) in [(Proto::Tcp, 200_000), (Proto::Udp, 1200)] {
        let probe = Probe::new(address.parse().unwrap(), PORT, proto);
        let outcome = pod.probe(probe.bytes(bytes).timeout_ms(6000)).unwrap();
        let server = format!("ip:{address}");
        assert!(
            matches!(&outcome, Outcome::Answer { from, .. } if *from == server),
            "{address} {proto:?}: {outcome:?}"
        );
    }
}

/// Who has come to a server.
fn came(server: &Control) -> BTreeSet<IpAddr> {
    let seen = server.seen().unwrap();
    seen.iter().map(|seen| seen.from.ip()).collect()
}

#[test]
fn the_world_sees_the_node_of_a_pod_and_never_the_pod() {
    let lab = Lab::builder().nodes(2).unrouted().start().unwrap();
    let servers = world(&lab, WORLD);
    for node in 0..2 {
        let pods = [0, 1].map(|i| pod(&lab, &format!("p{node}{i}"), node));
        for pod in &pods {
            WORLD.iter().for_each(|address| dials(pod, address));
        }
    }
    for (family, server) in servers.iter().enumerate() {
        let nodes = lab.nodes.iter().map(|node| node.addresses[family]);
        assert_eq!(came(server), nodes.collect(), "{}", WORLD[family]);
    }
    // Pods of other nodes still see the pod itself.
    let near = pod(&lab, "near", 0);
    let spec = PodSpec::new("default", "far", 1).port(listens()[0], "");
    let far = lab.add_pod(&spec).unwrap();
    for (to, own) in [(far.v4(), near.v4()), (far.v6(), near.v6())] {
        let outcome = near.probe(Probe::tcp(to, PORT).timeout_ms(6000)).unwrap();
        assert!(matches!(outcome, Outcome::Answer { .. }), "{outcome:?}");
        assert!(far.seen().unwrap().iter().any(|seen| seen.from.ip() == own));
    }
}

#[test]
fn non_masquerade_cidrs_see_the_pods_own_address_and_others_the_nodes() {
    let lab = Lab::builder()
        .nodes(1)
        .agent_arg("--non-masquerade-cidrs=203.0.113.0/24,2001:db8:113::/48")
        .start()
        .unwrap();
    let excluded = world(&lab, WORLD);
    let others = ["198.51.100.10", "2001:db8:100::10"];
    let rest = world(&lab, others);
    let pod = pod(&lab, "p", 0);
    WORLD.iter().for_each(|address| dials(&pod, address));
    others.iter().for_each(|address| dials(&pod, address));
    for (family, own) in [pod.v4(), pod.v6()].into_iter().enumerate() {
        assert_eq!(came(&excluded[family]), BTreeSet::from([own]));
        let node = lab.nodes[0].addresses[family];
        assert_eq!(came(&rest[family]), BTreeSet::from([node]));
    }
}

#[test]
fn without_masquerade_the_world_sees_the_pod_until_a_restart_switches_it_on() {
    let lab = Lab::builder()
        .nodes(1)
        .agent_arg("--masquerade=false")
        .start()
        .unwrap();
    let servers = world(&lab, WORLD);
    let pod = pod(&lab, "p", 0);
    WORLD.iter().for_each(|address| dials(&pod, address));
    let own = [pod.v4(), pod.v6()];
    for (server, own) in servers.iter().zip(own) {
        assert_eq!(came(server), BTreeSet::from([own]));
    }
    let node = &lab.nodes[0];
    node.stop_agent().unwrap();
    node.set_agent_args(&[]);
    node.start_agent().unwrap();
    WORLD.iter().for_each(|address| dials(&pod, address));
    for (family, server) in servers.iter().enumerate() {
        let both = BTreeSet::from([own[family], node.addresses[family]]);
        assert_eq!(came(server), both);
    }
}

/// Runs something in a pod's network namespace.
fn inside<T: Send + 'static>(pod: &Pod, what: impl FnOnce() -> T + Send + 'static) -> T {
    run_in(&pod.place().unwrap().net_only(), || Ok(what())).unwrap()
}

/// Asks a server by UDP with so many hops: 0 if it answers, else the error's number.
fn hops(to: SocketAddr, ttl: u32) -> i32 {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    let (level, hops, errors) = if to.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_RECVERR)
    } else {
        (
            libc::IPPROTO_IPV6,
            libc::IPV6_UNICAST_HOPS,
            libc::IPV6_RECVERR,
        )
    };
    for (option, value) in [(hops, ttl as i32), (errors, 1)] {
        // SAFETY: the value is a live i32 of the size given.
        let code = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<i32>() as u32,
            )
        };
        assert_eq!(code, 0, "{}", io::Error::last_os_error());
    }
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket.connect(to).unwrap();
    socket.send(b"who is there?").unwrap();
    match socket.recv(&mut [0; 64]) {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}

/// Makes the fabric a router that sends what is for `WORLD` on to a machine behind it, which serves at these
/// addresses.
fn behind_a_router(lab: &Lab) -> (weir_lab::OutsideClient, [Control; 2]) {
    let machine = lab.add_client(0).unwrap();
    let addresses = WORLD.map(|address| IpNetwork::from(address.parse::<IpAddr>().unwrap()));
    let place = Place::of_process(machine.control.pid()).unwrap().net_only();
    run_in(&place, || {
        addresses
            .iter()
            .try_for_each(|address| netlink::add_address("lo", *address))
    })
    .unwrap();
    run_in(&lab.fabric().net_only(), || {
        netlink::sysctl("net/ipv4/ip_forward", "1")?;
        netlink::sysctl("net/ipv6/conf/all/forwarding", "1")?;
        // The machine is on the nodes' own link.
        for scope in ["all", "fabric"] {
            netlink::sysctl(&format!("net/ipv4/conf/{scope}/send_redirects"), "0")?;
        }
        addresses.iter().try_for_each(|address| {
            netlink::add_route(*address, "fabric", machine.address(address.is_ipv4()))
        })
    })
    .unwrap();
    let servers = WORLD.map(|address| {
        let place = Place::of_process(machine.control.pid()).unwrap();
        let place = place.in_cgroup(&lab.cgroup().join("uncovered")).unwrap();
        let at = address.parse().unwrap();
        let server = Control::start_at(&format!("ip:{address}"), place, Some(at)).unwrap();
        server.listen(&listens()).unwrap();
        server
    });
    (machine, servers)
}

#[test]
fn traceroute_sees_the_gateway_then_the_router_and_a_closed_port_says_so() {
    let lab = Lab::builder().nodes(1).unrouted().start().unwrap();
    let (_machine, servers) = behind_a_router(&lab);
    let pod = pod(&lab, "p", 0);
    for (family, address) in WORLD.into_iter().enumerate() {
        let to = SocketAddr::new(address.parse().unwrap(), PORT);
        let closed = SocketAddr::new(to.ip(), PORT + 1);
        // The errors quote what the socket has sent, or they would not reach it.
        let found = inside(&pod, move || {
            (
                [1, 2].map(|ttl| hops(to, ttl)),
                hops(to, 3),
                hops(closed, 64),
            )
        });
        let unreachable = [libc::EHOSTUNREACH; 2];
        assert_eq!(found, (unreachable, 0, libc::ECONNREFUSED), "{address}");
        let node = lab.nodes[0].addresses[family];
        assert_eq!(came(&servers[family]), BTreeSet::from([node]));
    }
}

/// Sends an echo request from a raw socket with an identifier, and waits for the reply to it.
fn ping(to: IpAddr, id: u16) {
    let v4 = to.is_ipv4();
    let (family, proto, request, reply) = if v4 {
        (libc::AF_INET, libc::IPPROTO_ICMP, 8, 0)
    } else {
        (libc::AF_INET6, libc::IPPROTO_ICMPV6, 128, 129)
    };
    // SAFETY: a system call without pointers; the number it returns is ours alone.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, proto) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: `fd` was just returned by socket().
    let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let [a, b] = id.to_be_bytes();
    let mut packet = [request, 0, 0, 0, a, b, 0, 1];
    // IPv6's checksum is the kernel's.
    let sum = u32::from(u16::from_be_bytes([request, 0])) + u32::from(id) + 1;
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket.send_to(&packet, (to, 0)).unwrap();
    let mut buffer = [0; 128];
    loop {
        let (len, from) = match socket.recv_from(&mut buffer) {
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => panic!("no echo from {to}: {error}"),
        };
        let message = &buffer[if v4 { 20 } else { 0 }..len];
        if from.ip() == to && message[0] == reply && message[4..6] == [a, b] {
            return;
        }
    }
}

#[test]
fn two_pods_and_the_node_ping_one_machine_with_one_identifier() {
    let lab = Lab::builder().nodes(1).unrouted().start().unwrap();
    let _machine = behind_a_router(&lab);
    let pods = [pod(&lab, "a", 0), pod(&lab, "b", 0)];
    for address in WORLD {
        let to: IpAddr = address.parse().unwrap();
        for pod in &pods {
            inside(pod, move || ping(to, 61_500));
        }
        run_in(&lab.nodes[0].place().net_only(), || {
            ping(to, 61_500);
            Ok(())
        })
        .unwrap();
        for pod in &pods {
            inside(pod, move || ping(to, 61_500));
        }
    }
}
