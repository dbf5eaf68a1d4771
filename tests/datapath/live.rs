//! Real sockets over real interfaces: what a test run cannot show is whether a packet that left its
//! checksum to the device arrives with a right one.
//!
//! Two pods and a wire on one node. Where the wire has no checksum offload, the kernel finishes a
//! packet's checksum before it sends it, from what our programs have left in the field.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

use aya::programs::TcAttachType;
use nix::sched::{CloneFlags, setns, unshare};
use weir_abi::node::config;
use weir_abi::{Addr, Proto};

use crate::packets::*;
use crate::rig::*;

const WAIT: Duration = Duration::from_secs(5);

/// A pod: a thread's network namespace, kept open.
struct Pod(std::fs::File);

fn here() -> std::fs::File {
    std::fs::File::open("/proc/thread-self/ns/net").expect("the thread's namespace")
}

impl Pod {
    /// A new namespace that the calling thread stays outside of.
    fn new() -> Self {
        let file = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET): needs root");
            here()
        });
        Self(file.join().expect("a namespace"))
    }

    /// Runs something inside, on a thread of its own.
    fn spawn<T: Send + 'static>(
        &self,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let namespace = self.0.try_clone().expect("a descriptor");
        thread::spawn(move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).expect("setns");
            what()
        })
    }

    fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        match self.spawn(what).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Moves an interface here and gives it a pod's addresses and routes.
    fn plug(&self, interface: &'static str, mac: [u8; 6], gateway_mac: [u8; 6], host: u8) {
        let target = self.0.try_clone().expect("a descriptor");
        let fd = std::os::fd::AsRawFd::as_raw_fd(&target);
        let pid = std::process::id();
        ip(&format!("link set {interface} netns /proc/{pid}/fd/{fd}"));
        self.run(move || {
            let mac = mac.map(|b| format!("{b:02x}")).join(":");
            let gateway_mac = gateway_mac.map(|b| format!("{b:02x}")).join(":");
            ip("link set lo up");
            ip(&format!("link set {interface} address {mac} up"));
            ip(&format!("addr add 10.1.0.{host}/32 dev {interface}"));
            ip(&format!("addr add fd00:1::{host:x}/128 dev {interface} nodad"));
            for (family, gateway) in [("", "169.254.1.1"), ("-6", "fe80::1")] {
                ip(&format!(
                    "{family} neigh replace {gateway} lladdr {gateway_mac} nud permanent dev {interface}"
                ));
                ip(&format!("{family} route add default via {gateway} dev {interface} onlink"));
            }
        });
    }

    fn offload(&self, interface: &'static str, on: bool) {
        self.run(move || offload(interface, on));
    }
}

/// Switches checksum and segmentation offload in the calling thread's namespace.
fn offload(interface: &str, on: bool) {
    let state = if on { "on" } else { "off" };
    let done = Command::new("ethtool")
        .args(["-K", interface, "tx", state, "tso", state, "gso", state])
        .output()
        .expect("running ethtool");
    assert!(
        done.status.success(),
        "ethtool: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Pods A and B plugged into the node, programs attached.
fn wired(node: &mut Node) -> (Pod, Pod) {
    let (a, b) = (Pod::new(), Pod::new());
    a.plug("weirap", MAC_POD_A, MAC_HOST_A, 10);
    b.plug("weirbp", MAC_POD_B, MAC_HOST_B, 11);
    for interface in ["weira", "weirb"] {
        node.attach("from_pod", interface, TcAttachType::Ingress);
        node.attach("to_pod", interface, TcAttachType::Egress);
    }
    (a, b)
}

fn socket(addr: Addr, port: u16) -> SocketAddr {
    SocketAddr::new(addr.to_ip(), port)
}

/// A server that sends a stream and a datagram back as they came.
struct Server {
    tcp: u16,
    udp: u16,
}

/// Starts a server on ports that are free. (A fixed port may still be held by a child that another
/// test is about to start.)
fn serve(pod: &Pod, addr: IpAddr) -> Server {
    let (ready, wait) = std::sync::mpsc::channel();
    pod.spawn(move || {
        let tcp = TcpListener::bind((addr, 0)).expect("listen");
        let udp = UdpSocket::bind((addr, 0)).expect("bind");
        udp.set_read_timeout(Some(WAIT)).unwrap();
        let port = |addr: std::io::Result<SocketAddr>| addr.expect("a bound socket").port();
        let server = Server {
            tcp: port(tcp.local_addr()),
            udp: port(udp.local_addr()),
        };
        ready.send(server).unwrap();
        let (mut stream, _) = tcp.accept().expect("accept");
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let mut bytes = vec![0; BULK];
        stream.read_exact(&mut bytes).expect("the whole stream");
        stream.write_all(&bytes).expect("writing back");
        let mut datagram = [0; 2048];
        let (len, from) = udp.recv_from(&mut datagram).expect("a datagram");
        udp.send_to(&datagram[..len], from).expect("its echo");
    });
    wait.recv_timeout(WAIT).expect("the server is up")
}

/// Starts a server, puts the Service in front of it, and talks to it through that.
fn talk_by_service(node: &mut Node, client: &Pod, server: &Pod, family: Family, at: Addr) {
    let ports = serve(server, at.to_ip());
    node.service(family.vip(), 80, Proto::TCP, &[(1, at, ports.tcp)]);
    node.service(family.vip(), 53, Proto::UDP, &[(2, at, ports.udp)]);
    talk(client, socket(family.vip(), 80), socket(family.vip(), 53));
}

const BULK: usize = 300_000;

/// A talks to the Service (or pod) at these addresses; everything must come back.
fn talk(a: &Pod, tcp: SocketAddr, udp: SocketAddr) {
    a.run(move || {
        let bytes: Vec<u8> = (0..BULK).map(|i| ((i * 31) >> 3) as u8).collect();
        let mut stream = TcpStream::connect_timeout(&tcp, WAIT).expect("connect");
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let sent = bytes.clone();
        let writing = thread::spawn(move || writer.write_all(&sent).expect("write"));
        let mut back = vec![0; BULK];
        stream.read_exact(&mut back).expect("the stream comes back");
        writing.join().unwrap();
        assert!(back == bytes, "the stream came back changed");

        let local = if udp.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(local).unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        socket.connect(udp).unwrap();
        socket.send(b"a datagram").expect("send");
        let mut back = [0; 64];
        let len = socket.recv(&mut back).expect("the datagram comes back");
        assert_eq!(&back[..len], b"a datagram");
    });
}

#[test]
fn streams_and_datagrams_pass_between_pods_and_through_a_service() {
    on_node(|node| {
        let (a, b) = wired(node);
        for family in Family::BOTH {
            for on in [true, false] {
                a.offload("weirap", on);
                b.offload("weirbp", on);
                let ports = serve(&b, family.b().to_ip());
                talk(
                    &a,
                    socket(family.b(), ports.tcp),
                    socket(family.b(), ports.udp),
                );
                talk_by_service(node, &a, &b, family, family.b());
            }
        }
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    on_node(|node| {
        let (a, _b) = wired(node);
        for family in Family::BOTH {
            talk_by_service(node, &a, &a, family, family.a());
        }
    });
}

#[test]
fn a_service_without_endpoints_refuses_a_real_socket() {
    on_node(|node| {
        let (a, _b) = wired(node);
        for family in Family::BOTH {
            node.service(family.vip(), 80, Proto::TCP, &[]);
            node.service(family.vip(), 53, Proto::UDP, &[]);
            for on in [true, false] {
                a.offload("weirap", on);
                let (tcp, udp) = (socket(family.vip(), 80), socket(family.vip(), 53));
                a.run(move || {
                    let refused = TcpStream::connect_timeout(&tcp, WAIT).unwrap_err();
                    assert_eq!(
                        refused.kind(),
                        std::io::ErrorKind::ConnectionRefused,
                        "{tcp}, offload {on}"
                    );
                    let local = if udp.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    let socket = UdpSocket::bind(local).unwrap();
                    socket.set_read_timeout(Some(WAIT)).unwrap();
                    socket.connect(udp).unwrap();
                    socket.send(b"anybody?").unwrap();
                    let refused = socket.recv(&mut [0; 8]).unwrap_err();
                    assert_eq!(
                        refused.kind(),
                        std::io::ErrorKind::ConnectionRefused,
                        "{tcp}, offload {on}"
                    );
                });
            }
        }
    });
}

/// Another machine behind the uplink, with another node's pod in it.
fn beyond(node: &mut Node) -> Pod {
    let remote = Pod::new();
    node.attach("from_uplink", "weirup", TcAttachType::Ingress);
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&remote.0);
    ip(&format!(
        "link set weirupp netns /proc/{}/fd/{descriptor}",
        std::process::id()
    ));
    ip("addr add 10.100.0.1/24 dev weirup");
    ip("addr add fd00:64::1/64 dev weirup nodad");
    remote.run(|| {
        ip("link set lo up");
        ip("link set weirupp up");
        ip("addr add 10.100.0.2/24 dev weirupp");
        ip("addr add fd00:64::2/64 dev weirupp nodad");
        // The other node's pod lives in the other node's own namespace here.
        ip("addr add 10.2.0.20/32 dev lo");
        ip("addr add fd00:2::14/128 dev lo nodad");
        ip("route add 10.1.0.0/24 via 10.100.0.1");
        ip("-6 route add fd00:1::/64 via fd00:64::1");
    });
    ip("route add 10.2.0.0/24 via 10.100.0.2");
    ip("-6 route add fd00:2::/64 via fd00:64::2");
    remote
}

/// Somebody outside is behind the uplink, and so is the other node's pod.
#[test]
fn streams_and_datagrams_pass_from_outside_through_a_node_port_to_pods_here_and_elsewhere() {
    on_node(|node| {
        let b = Pod::new();
        b.plug("weirbp", MAC_POD_B, MAC_HOST_B, 11);
        node.attach("from_pod", "weirb", TcAttachType::Ingress);
        node.attach("to_pod", "weirb", TcAttachType::Egress);
        let outside = beyond(node);
        node.attach("to_uplink", "weirup", TcAttachType::Egress);
        node.nat(61_000, 61_999);
        for family in Family::BOTH {
            let (cidr, len) = family.remote_cidr();
            node.node_cidr(cidr, len, node.if_uplink);
            let v4 = family == Family::V4;
            for (server, at) in [(&b, family.b()), (&outside, family.remote())] {
                for on in [true, false] {
                    offload("weirup", on);
                    outside.offload("weirupp", on);
                    let ports = serve(server, at.to_ip());
                    node.node_port(v4, 30_080, Proto::TCP, &[(1, at, ports.tcp)]);
                    node.node_port(v4, 30_053, Proto::UDP, &[(2, at, ports.udp)]);
                    let host = family.node();
                    talk(&outside, socket(host, 30_080), socket(host, 30_053));
                }
            }
            // A refusal crosses the wire.
            node.node_port(v4, 30_080, Proto::TCP, &[]);
            let nobody = socket(family.node(), 30_080);
            outside.run(move || {
                let refused = TcpStream::connect_timeout(&nobody, WAIT).unwrap_err();
                assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
            });
        }
    });
}

/// The wire: B's end of the uplink is another machine, in pod B's place.
#[test]
fn a_translated_packet_leaves_a_wire_without_offload_with_a_right_checksum() {
    on_node(|node| {
        let a = Pod::new();
        a.plug("weirap", MAC_POD_A, MAC_HOST_A, 10);
        node.attach("from_pod", "weira", TcAttachType::Ingress);
        node.attach("to_pod", "weira", TcAttachType::Egress);
        let remote = beyond(node);
        for family in Family::BOTH {
            let (cidr, len) = family.remote_cidr();
            node.node_cidr(cidr, len, node.if_uplink);
            for on in [true, false] {
                offload("weirup", on);
                remote.offload("weirupp", on);
                talk_by_service(node, &a, &remote, family, family.remote());
            }
        }
    });
}

/// Somebody outside, who knows nothing of pods: what leaves their kernel unfinished is translated twice.
#[test]
fn masqueraded_streams_and_datagrams_cross_wires_with_and_without_offload() {
    on_node(|node| {
        let a = Pod::new();
        a.plug("weirap", MAC_POD_A, MAC_HOST_A, 10);
        node.attach("from_pod", "weira", TcAttachType::Ingress);
        node.attach("to_pod", "weira", TcAttachType::Egress);
        let world = beyond(node);
        world.run(|| {
            ip("route del 10.1.0.0/24");
            ip("-6 route del fd00:1::/64");
        });
        node.attach("to_uplink", "weirup", TcAttachType::Egress);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        node.nat(61_000, 61_999);
        node.flags(config::flags::MASQUERADE);
        for family in Family::BOTH {
            // Not in the cluster here.
            let at = family.remote();
            for on in [true, false] {
                a.offload("weirap", on);
                offload("weirup", on);
                world.offload("weirupp", on);
                let ports = serve(&world, at.to_ip());
                talk(&a, socket(at, ports.tcp), socket(at, ports.udp));
                talk_by_service(node, &a, &world, family, at);
            }
        }
    });
}
