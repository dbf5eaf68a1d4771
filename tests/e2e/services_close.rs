//! Connected sockets whose backend goes: in a pod and on the node, both families.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use weir_abi::map;
use weir_abi::sock::SockConn;
use weir_agent::dataplane::pins::Pins;
use weir_agent::dataplane::table::{Table, Writes};
use weir_lab::control::{Control, RunningExchange};
use weir_lab::spawn::{Place, run_in};
use weir_lab::{Backend, Exchange, Pod, Proto};
use weir_net::sock_diag::{Protocol, SockDiag};

use crate::services_world::{
    FAMILIES, PORT, PROTOS, TARGET, World, answer, ask, client, cluster_ip, eventually, server, vip,
};

/// Of a socket that another process has closed. A datagram that is sent before the error has been
/// read is refused for want of an address, as the socket has no peer any more.
const ABORTED: &str = "os error 103";
const NO_PEER: &str = "os error 89";
/// How long a loaded machine may take to close one.
const LIMIT: Duration = Duration::from_secs(20);

/// A process on the first node, with one exchange.
struct Talk {
    control: Arc<Control>,
    proto: Proto,
    target: SocketAddr,
    /// Where its socket is connected to.
    peer: SocketAddr,
    exchange: RunningExchange,
}

impl Talk {
    /// Begins, and waits until the socket is connected to `to`.
    fn begin(control: &Arc<Control>, proto: Proto, target: (IpAddr, u16), to: &Pod) -> Self {
        let target = SocketAddr::from(target);
        let peer = address(to, target.is_ipv4());
        let before = connected(control, proto, peer);
        let exchange = Exchange {
            target,
            proto,
            every_ms: 10,
        };
        let exchange = control.exchange(exchange).unwrap();
        eventually(|| match connected(control, proto, peer) > before {
            true => Ok(()),
            false => Err(format!("{proto:?} to {target} is not connected to {peer}")),
        });
        Self {
            control: Arc::clone(control),
            proto,
            target,
            peer,
            exchange,
        }
    }

    /// Waits for its end, which must be the socket's.
    fn assert_closed(self) {
        let what = format!("{:?} to {}", self.proto, self.target);
        let report = self.exchange.join(LIMIT).expect(&what);
        let error = report.error.unwrap_or_default();
        let unread = self.proto == Proto::Udp && error.contains(NO_PEER);
        assert!(error.contains(ABORTED) || unread, "{what}: {error}");
    }

    /// It still is connected; then ends it, and every message must have come back.
    fn assert_went_on(self) {
        let what = format!("{:?} to {}", self.proto, self.target);
        let sockets = connected(&self.control, self.proto, self.peer);
        let report = self.exchange.stop().unwrap();
        assert_eq!(report.error, None, "{what}: {report:?}");
        assert!(sockets > 0, "{what}: {report:?}");
    }
}

/// How many sockets of the process's namespace are connected there.
fn connected(control: &Control, proto: Proto, peer: SocketAddr) -> usize {
    let place = Place::of_process(control.pid()).unwrap().net_only();
    let protocol = match proto {
        Proto::Udp => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    let sockets = run_in(&place, || Ok(SockDiag::open()?.connected(protocol)?)).unwrap();
    sockets.iter().filter(|socket| socket.peer == peer).count()
}

fn address(pod: &Pod, v4: bool) -> SocketAddr {
    let ip = if v4 { pod.v4() } else { pod.v6() };
    SocketAddr::new(ip, TARGET)
}

/// A pod that the socket hooks cover and a process of the node, both on the first node.
fn clients(world: &World) -> [Arc<Control>; 2] {
    let pod = client(&world.lab, "client", 0, true);
    [Arc::clone(&pod.control), world.on_node(0)]
}

fn each(clients: &[Arc<Control>]) -> impl Iterator<Item = (&Arc<Control>, bool)> {
    clients
        .iter()
        .flat_map(|client| FAMILIES.map(|v4| (client, v4)))
}

/// From each client, by the ClusterIP of each family, to the one pod that it leads to.
fn by_service(clients: &[Arc<Control>], proto: Proto, to: &Pod) -> Vec<Talk> {
    each(clients)
        .map(|(control, v4)| Talk::begin(control, proto, (vip(v4), PORT), to))
        .collect()
}

/// From each client to the pod's own addresses.
fn directly(clients: &[Arc<Control>], proto: Proto, to: &Pod) -> Vec<Talk> {
    each(clients)
        .map(|(control, v4)| {
            let own = address(to, v4);
            Talk::begin(control, proto, (own.ip(), own.port()), to)
        })
        .collect()
}

/// What `weir_sockets_closed_total` says on the first node.
fn closed(world: &World, proto: Proto) -> u64 {
    let page = run_in(&world.lab.nodes[0].place().net_only(), || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect("127.0.0.1:9965")?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    })
    .unwrap();
    let name = proto.name().to_ascii_lowercase();
    let sample = format!("weir_sockets_closed_total{{protocol=\"{name}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&sample));
    value.expect("the metric").parse().unwrap()
}

/// Waits until the agent has counted so many.
fn await_closed(world: &World, tcp: u64, udp: u64) {
    eventually(|| {
        let counted = (closed(world, Proto::Tcp), closed(world, Proto::Udp));
        match counted == (tcp, udp) {
            true => Ok(()),
            false => Err(format!("{counted:?}")),
        }
    });
}

#[test]
fn a_connected_datagram_socket_is_closed_with_its_backend_and_reaches_another_by_connecting_again()
{
    let world = World::new(2, cluster_ip(), &[0]);
    let [first, second] = [&world.backends[0], &world.backends[1]];
    let clients = clients(&world);
    let served = by_service(&clients, Proto::Udp, first);
    // Those that dialled the pod itself are no Service's.
    let direct = directly(&clients, Proto::Udp, first);
    world.serve(&[1]);
    served.into_iter().for_each(Talk::assert_closed);
    let again = by_service(&clients, Proto::Udp, second);
    await_closed(&world, 0, 4);
    for (control, v4) in each(&clients) {
        let outcome = control.probe(ask(vip(v4), PORT, Proto::Udp)).unwrap();
        assert_eq!(answer(&outcome, vip(v4), "again"), second.key());
    }
    again.into_iter().for_each(Talk::assert_went_on);
    direct.into_iter().for_each(Talk::assert_went_on);
}

#[test]
fn a_backend_that_is_not_ready_keeps_its_tcp_connections_and_one_that_drains_all_of_its_sockets() {
    let world = World::new(2, cluster_ip(), &[0]);
    let [first, second] = [&*world.backends[0], &*world.backends[1]];
    let clients = clients(&world);
    let [tcp, udp] = PROTOS.map(|proto| by_service(&clients, proto, first));
    let draining = [Backend::draining(first), Backend::ready(second)];
    world.spec.set_backends(&world.lab, &draining).unwrap();
    world.await_active(&[second]);
    for talk in tcp.iter().chain(&udp) {
        assert!(connected(&talk.control, talk.proto, talk.peer) > 0);
    }
    let unready = [Backend::not_ready(first), Backend::ready(second)];
    world.spec.set_backends(&world.lab, &unready).unwrap();
    udp.into_iter().for_each(Talk::assert_closed);
    tcp.into_iter().for_each(Talk::assert_went_on);
    await_closed(&world, 0, 4);
}

#[test]
fn a_connection_to_a_deleted_backend_that_answers_no_more_ends_at_once_and_others_go_on() {
    let world = World::new(2, cluster_ip(), &[0]);
    let [drains, stays] = [&*world.backends[0], &*world.backends[1]];
    let clients = clients(&world);
    let serve = |ready: &Pod| {
        let backends = [Backend::draining(drains), Backend::ready(ready)];
        world.spec.set_backends(&world.lab, &backends).unwrap();
        world.await_active(&[ready]);
    };
    let draining = PROTOS.map(|proto| by_service(&clients, proto, drains));

    // Nothing tells the clients of a pod that is gone but the agent.
    let vanishes = server(&world.lab, "vanishes", 1);
    serve(&vanishes);
    let silent = by_service(&clients, Proto::Tcp, &vanishes);
    world.lab.remove_pod(&vanishes).unwrap();
    serve(stays);
    silent.into_iter().for_each(Talk::assert_closed);

    // A pod that is there loses those of the Service, not those that have dialled its own address.
    let served = by_service(&clients, Proto::Tcp, stays);
    let direct = directly(&clients, Proto::Tcp, stays);
    let last = server(&world.lab, "last", 1);
    serve(&last);
    served.into_iter().for_each(Talk::assert_closed);
    await_closed(&world, 8, 0);
    direct.into_iter().for_each(Talk::assert_went_on);
    let draining = draining.into_iter().flatten();
    draining.for_each(Talk::assert_went_on);
}

/// Has the hooks' memory of sockets connected to `pod` name a backend that is no more, as it is
/// when an agent dies between the retirement and the closing and the maps have been cleared since.
fn forget_backend(world: &World, pod: &Pod) {
    let pins = Pins::new(&world.lab.nodes[0].path("/sys/fs/bpf/weir"));
    let mut conns: Table<u64, SockConn> =
        Table::open(&pins, map::SOCK_CONNS, &Writes::default()).unwrap();
    let own = FAMILIES.map(|v4| address(pod, v4));
    for (cookie, mut conn) in conns.entries().unwrap() {
        let backend = conn.backend;
        let to = SocketAddr::new(backend.addr.to_ip(), backend.port.get());
        if own.contains(&to) {
            conn.incarnation ^= 1;
            conns.insert(&cookie, &conn).unwrap();
        }
    }
}

#[test]
fn what_an_agent_that_died_had_not_closed_the_next_one_does() {
    let world = World::new(2, cluster_ip(), &[0]);
    let [first, second] = [&*world.backends[0], &*world.backends[1]];
    let third = server(&world.lab, "third", 1);
    let clients = clients(&world);
    let begin = |to| {
        let talks = PROTOS.map(|proto| by_service(&clients, proto, to));
        talks.into_iter().flatten()
    };
    let serve = |draining: &[&Pod], ready: &Pod| {
        let draining = draining.iter().map(|pod| Backend::draining(pod));
        let backends: Vec<_> = draining.chain([Backend::ready(ready)]).collect();
        world.spec.set_backends(&world.lab, &backends).unwrap();
    };
    let deleted: Vec<Talk> = begin(first).collect();
    serve(&[first], second);
    world.await_active(&[second]);
    let forgotten: Vec<Talk> = begin(second).collect();
    serve(&[first, second], &third);
    world.await_active(&[&third]);
    let stay: Vec<Talk> = begin(&third).collect();

    let node = &world.lab.nodes[0];
    node.kill_agent();
    serve(&[second], &third);
    forget_backend(&world, second);
    node.start_agent().unwrap();
    deleted.into_iter().for_each(Talk::assert_closed);
    forgotten.into_iter().for_each(Talk::assert_closed);
    await_closed(&world, 8, 8);
    stay.into_iter().for_each(Talk::assert_went_on);
}
