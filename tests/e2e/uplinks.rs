//! Addresses and uplinks that come, change and go while the agent runs, and nodes with several uplinks.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::json;
use weir_lab::control::Control;
use weir_lab::spawn::{Place, run_in};
use weir_lab::{
    Exchange, Lab, Listen, Load, Node, Outcome, Pod, PodSpec, Proto, Requests, Seen, netlink,
};
use weir_net::netlink::Route;
use weir_net::{IpNetwork, Netlink};

use crate::services_world::{
    FAMILIES, NODE_PORT, PROTOS, TARGET, World, answer, ask, eventually, node_port,
};

/// The node's addresses on the second network, and its gateway there.
const SECOND: [&str; 2] = ["172.19.0.11/24", "fd00:19::11/64"];
const SECOND_GATEWAY: [&str; 2] = ["172.19.0.1/24", "fd00:19::1/64"];
/// What is behind that gateway.
const FAR: [&str; 2] = ["203.0.113.7", "2001:db8:113::7"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn listens() -> [Listen; 2] {
    PROTOS.map(|proto| Listen {
        proto,
        port: TARGET,
    })
}

/// A router of a network of its own, with an address behind it at which it serves and asks.
struct Router(Arc<Control>);

impl Router {
    /// Gives the node an uplink `eth1` to a new network, without a route.
    fn of(lab: &Lab, node: &Node) -> Self {
        let place = Place {
            net: None,
            ..lab.fabric()
        }
        .with_new_net()
        .in_cgroup(&lab.cgroup().join("uncovered"))
        .unwrap();
        let router = Arc::new(Control::start("router", place).unwrap());
        router.listen(&listens()).unwrap();
        let inside = PathBuf::from(format!("/proc/{}/ns/net", node.holder_pid()));
        Self(router).joined(node, &inside)
    }

    fn joined(self, node: &Node, inside: &Path) -> Self {
        let dad = |name: &str| netlink::sysctl(&format!("net/ipv6/conf/{name}/accept_dad"), "0");
        let place = Place::of_process(self.0.pid()).unwrap().net_only();
        run_in(&place, || {
            dad("all")?;
            dad("default")?;
            netlink::add_bridge("second", 1500)?;
            // It is no neighbour of the node's: only the gateway is.
            netlink::sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
            netlink::add_uplink("to-node", "eth1", inside, "second", 1500)?;
            for (own, far) in SECOND_GATEWAY.into_iter().zip(FAR) {
                netlink::add_address("second", network(own))?;
                netlink::add_address("lo", ip(far).into())?;
            }
            Ok(())
        })
        .unwrap();
        run_in(&node.place().net_only(), || {
            netlink::raise("eth1")?;
            SECOND
                .iter()
                .try_for_each(|own| netlink::add_address("eth1", network(own)))?;
            netlink::await_active("eth1")
        })
        .unwrap();
        self
    }

    /// A server and client at the address behind it.
    fn far(&self, lab: &Lab, v4: bool) -> Control {
        let place = Place::of_process(self.0.pid()).unwrap();
        let place = place.in_cgroup(&lab.cgroup().join("uncovered")).unwrap();
        let far = ip(FAR[usize::from(!v4)]);
        let control = Control::start_at("far", place, Some(far)).unwrap();
        let port = TARGET + 1;
        control
            .listen(&PROTOS.map(|proto| Listen { proto, port }))
            .unwrap();
        control
    }

    fn remove(&self) {
        let place = Place::of_process(self.0.pid()).unwrap().net_only();
        run_in(&place, || {
            let netlink = Netlink::open()?;
            Ok(netlink.delete_link("to-node").map(drop)?)
        })
        .unwrap();
    }
}

/// Adds a default route by the second uplink that is used only for what must leave there: by IPv4 for its
/// device, by IPv6, where the kernel's choice is by metric alone, for its address.
fn second_default(node: &Node) {
    run_in(&node.place().net_only(), || {
        let netlink = Netlink::open()?;
        let index = netlink.link("eth1")?.index;
        for (all, gateway) in ["0.0.0.0/0", "::/0"].into_iter().zip(SECOND_GATEWAY) {
            let mut route = Route::to(network(all)).via(index, network(gateway).ip());
            route.priority = Some(4000);
            netlink.add_route(&route)?;
        }
        let rule = "-6 rule add from fd00:19::11 lookup 100";
        let route = "-6 route add default via fd00:19::1 dev eth1 table 100";
        for command in [rule, route] {
            let done = Command::new("ip").args(command.split(' ')).status()?;
            anyhow::ensure!(done.success(), "ip {command}: {done}");
        }
        Ok(())
    })
    .unwrap();
}

fn has_hooks(node: &Node, device: &str) -> bool {
    let index = run_in(&node.place().net_only(), || {
        netlink::interface_index(device)
    });
    let Ok(index) = index else { return false };
    let links = node.path("/sys/fs/bpf/weir/v1/links");
    links.join(format!("up-{index}-in")).exists()
}

fn world(args: &[&str], serving: &[usize]) -> World {
    World::with_args(args, 1, node_port(), serving)
}

#[test]
fn a_request_is_answered_by_the_uplink_it_came_by_although_routes_lead_elsewhere() {
    let world = world(&["--uplinks=eth*"], &[0]);
    let node = &world.lab.nodes[0];
    let router = Router::of(&world.lab, node);
    second_default(node);
    eventually(|| {
        has_hooks(node, "eth1")
            .then_some(())
            .ok_or("no hooks".into())
    });
    for v4 in FAMILIES {
        // The node's best route to this address is by eth0, where nobody has it.
        let far = router.far(&world.lab, v4);
        let to = network(SECOND[usize::from(!v4)]).ip();
        for proto in PROTOS {
            eventually(|| match far.probe(ask(to, NODE_PORT, proto)).unwrap() {
                Outcome::Answer { .. } => Ok(()),
                other => Err(format!("{to} {proto:?}: {other:?}")),
            });
            let outcome = far.probe(ask(to, NODE_PORT, proto).bytes(1300)).unwrap();
            answer(&outcome, to, "by the second uplink");
        }
        let first = world.node(0, v4);
        let outcome = world.outside.probe(ask(first, NODE_PORT, Proto::Tcp));
        answer(&outcome.unwrap(), first, "by the first uplink");
    }
}

#[test]
fn an_uplink_that_appears_masquerades_and_serves_and_one_that_goes_takes_nothing_along() {
    // None is named: those with a default route or the node's address are found.
    let world = world(&["--uplinks="], &[0]);
    let node = &world.lab.nodes[0];
    assert!(has_hooks(node, "eth0"));
    let pod = crate::services_world::client(&world.lab, "client", 0, true);
    for _ in 0..2 {
        let router = Router::of(&world.lab, node);
        assert!(!has_hooks(node, "eth1"));
        second_default(node);
        eventually(|| {
            has_hooks(node, "eth1")
                .then_some(())
                .ok_or("no hooks".into())
        });
        run_in(&node.place().net_only(), || {
            FAR.into_iter()
                .zip(SECOND_GATEWAY)
                .try_for_each(|(far, gateway)| {
                    netlink::add_route(ip(far).into(), "eth1", network(gateway).ip())
                })
        })
        .unwrap();
        for v4 in FAMILIES {
            let family = usize::from(!v4);
            let far = router.far(&world.lab, v4);
            let own = network(SECOND[family]).ip();
            let outcome = far.probe(ask(own, NODE_PORT, Proto::Tcp)).unwrap();
            answer(&outcome, own, "the new uplink's NodePort");
            for proto in PROTOS {
                let probe = ask(ip(FAR[family]), TARGET + 1, proto);
                let outcome = pod.probe(probe).unwrap();
                assert!(matches!(outcome, Outcome::Answer { .. }), "{outcome:?}");
            }
            let seen = far.seen().unwrap();
            let from: BTreeSet<IpAddr> = seen.iter().map(|seen| seen.from.ip()).collect();
            assert_eq!(from, BTreeSet::from([own]), "masqueraded");
        }
        router.remove();
        eventually(|| {
            let status = node.client().status().map_err(|e| e.to_string())?;
            let well = status.ready && status.degraded.is_empty() && !has_hooks(node, "eth1");
            well.then_some(()).ok_or(format!("{:?}", status.degraded))
        });
        let to = world.node(0, true);
        let outcome = world.outside.probe(ask(to, NODE_PORT, Proto::Tcp)).unwrap();
        answer(&outcome, to, "the uplink that is left");
    }
}

/// Gives or takes a node's address on eth0.
fn set_address(node: &Node, address: IpNetwork, there: bool) {
    run_in(&node.place().net_only(), || {
        if there {
            return netlink::add_address("eth0", address);
        }
        let netlink = Netlink::open()?;
        let index = netlink.link("eth0")?.index;
        Ok(netlink.delete_address(index, address).map(drop)?)
    })
    .unwrap();
}

/// A node's addresses on the fabric, with their subnets.
fn subnets(addresses: [IpAddr; 2]) -> [IpNetwork; 2] {
    let prefix = |ip: IpAddr| if ip.is_ipv4() { 24 } else { 64 };
    addresses.map(|ip| IpNetwork::new(ip, prefix(ip)).unwrap())
}

/// Moves a node to other addresses, first on the device and then in its object.
fn renumber(lab: &Lab, number: usize, from: [IpAddr; 2], to: [IpAddr; 2]) {
    let node = &lab.nodes[number];
    // Where the first address of a subnet goes, the kernel takes the others along, else.
    run_in(&node.place().net_only(), || {
        netlink::sysctl("net/ipv4/conf/all/promote_secondaries", "1")
    })
    .unwrap();
    for address in subnets(to) {
        set_address(node, address, true);
    }
    let mut object = lab.node_object(number);
    object["status"]["addresses"] =
        json!(to.map(|ip| json!({"type": "InternalIP", "address": ip.to_string()})));
    lab.cluster.apply(&object).unwrap();
    for address in subnets(from) {
        set_address(node, address, false);
    }
}

const NEW: [&str; 2] = ["172.18.0.111", "fd00:18::111"];

#[test]
fn new_flows_take_the_nodes_new_address_and_node_ports_answer_there_and_no_longer_on_the_old() {
    let world = world(&["--masquerade=true"], &[0]);
    let (lab, node) = (&world.lab, &world.lab.nodes[0]);
    let outside = FAR.map(|far| lab.add_outside(ip(far), &listens()).unwrap());
    let pod = crate::services_world::client(lab, "client", 0, true);
    let load = |family: usize| {
        let load = Load {
            target: (ip(FAR[family]), TARGET).into(),
            requests: Requests::Datagrams,
            every_ms: 20,
            count: u64::MAX,
            limit_ms: 120_000,
        };
        pod.control.load(load).unwrap()
    };
    let old = node.addresses;
    let kept = [0, 1].map(load);
    for family in [0, 1] {
        eventually(|| {
            let seen = outside[family].seen().map_err(|e| e.to_string())?;
            let came = |seen: &Seen| seen.from.ip() == old[family];
            let came = seen.iter().any(came);
            came.then_some(()).ok_or("not begun".into())
        });
    }
    let new = NEW.map(ip);
    renumber(lab, 0, old, new);
    for family in [0, 1] {
        let to = new[family];
        for proto in PROTOS {
            eventually(
                || match world.outside.probe(ask(to, NODE_PORT, proto)).unwrap() {
                    Outcome::Answer { .. } => Ok(()),
                    other => Err(format!("{to}: {other:?}")),
                },
            );
            let probe = ask(ip(FAR[family]), TARGET, proto);
            eventually(|| match pod.probe(probe).unwrap() {
                Outcome::Answer { .. } => Ok(()),
                other => Err(format!("{to}: {other:?}")),
            });
        }
        let new_flows = || {
            let before: BTreeSet<_> = outside[family].seen().unwrap().into_iter().collect();
            let outcome = pod.probe(ask(ip(FAR[family]), TARGET, Proto::Tcp)).unwrap();
            assert!(matches!(outcome, Outcome::Answer { .. }), "{outcome:?}");
            let after: BTreeSet<_> = outside[family].seen().unwrap().into_iter().collect();
            let fresh = after.difference(&before).map(|seen| seen.from.ip());
            fresh.collect::<BTreeSet<IpAddr>>()
        };
        // The new address serves as soon as it is there, before the old one goes. A request of the running
        // load may come in between, from the new address as well.
        eventually(|| match new_flows() {
            seen if seen == BTreeSet::from([to]) => Ok(()),
            seen => Err(format!("from {seen:?}")),
        });
        let in_vain = crate::services_world::ask_in_vain(old[family], NODE_PORT, Proto::Tcp);
        eventually(|| match world.outside.probe(in_vain).unwrap() {
            Outcome::Answer { .. } => Err(format!("{} still serves", old[family])),
            _ => Ok(()),
        });
    }
    for load in kept {
        // Of a UDP flow what was under way is lost, and the flow goes on from the new address.
        let report = load.stop().unwrap();
        assert!(report.answered + 4 >= report.sent, "{report:?}");
        assert!(report.answered > 20, "{report:?}");
    }
}

fn over(mode: &str) {
    let lab = Lab::builder()
        .nodes(3)
        .unrouted()
        .agent_arg(mode)
        .start()
        .unwrap();
    let pod = |name: &str, node| -> Arc<Pod> {
        let spec = PodSpec::new("default", name, node);
        let spec = listens().into_iter().fold(spec, |s, port| s.port(port, ""));
        lab.add_pod(&spec).unwrap()
    };
    let pods = [0, 1, 2].map(|node| pod(&format!("p{node}"), node));
    let address = |pod: &Pod, v4: bool| if v4 { pod.v4() } else { pod.v6() };
    let all = |what: &str| {
        for v4 in FAMILIES {
            for (from, to) in [(0, 1), (1, 0), (2, 1), (1, 2), (0, 2)] {
                for proto in PROTOS {
                    let probe = ask(address(&pods[to], v4), TARGET, proto);
                    eventually(|| match pods[from].probe(probe.timeout_ms(500)).unwrap() {
                        Outcome::Answer { .. } => Ok(()),
                        other => Err(format!("{what} IPv4 {v4} {from} to {to}: {other:?}")),
                    });
                }
            }
        }
    };
    all("before");
    let exchanges: Vec<_> = FAMILIES
        .into_iter()
        .map(|v4| {
            let target = (address(&pods[1], v4), TARGET).into();
            let proto = Proto::Tcp;
            let exchange = Exchange {
                target,
                proto,
                every_ms: 10,
            };
            pods[0].exchange(exchange).unwrap()
        })
        .collect();
    let old = lab.nodes[1].addresses;
    renumber(&lab, 1, old, NEW.map(ip));
    all("after");
    for exchange in exchanges {
        // TCP sends again what was under way.
        let report = exchange.stop().unwrap();
        assert_eq!(report.error, None, "{report:?}");
    }
    for node in &lab.nodes {
        eventually(|| {
            let status = node.client().status().map_err(|e| e.to_string())?;
            let well = status.ready && status.degraded.is_empty();
            well.then_some(()).ok_or(format!("{:?}", status.degraded))
        });
    }
}

#[test]
fn pods_reach_those_of_a_node_with_a_new_address_by_routes() {
    over("--mode=native");
}

#[test]
fn tunnels_follow_a_node_to_its_new_address() {
    over("--mode=vxlan");
}

#[test]
fn a_configured_address_is_what_pods_go_out_from_and_one_that_is_nobodys_is_a_problem() {
    let lab = Lab::builder().nodes(1).without_agents().start().unwrap();
    let node = &lab.nodes[0];
    for address in subnets(NEW.map(ip)) {
        set_address(node, address, true);
    }
    let arg = format!("--node-ip={}", NEW.join(","));
    node.set_agent_args(&[&arg]);
    node.start_agent().unwrap();
    let outside = FAR.map(|far| lab.add_outside(ip(far), &listens()).unwrap());
    let pod = lab.add_pod(&PodSpec::new("default", "p", 0)).unwrap();
    for (family, server) in outside.iter().enumerate() {
        let outcome = pod.probe(ask(ip(FAR[family]), TARGET, Proto::Tcp)).unwrap();
        assert!(matches!(outcome, Outcome::Answer { .. }), "{outcome:?}");
        let seen = server.seen().unwrap();
        let from: BTreeSet<IpAddr> = seen.iter().map(|seen| seen.from.ip()).collect();
        assert_eq!(from, BTreeSet::from([ip(NEW[family])]));
    }
    node.stop_agent().unwrap();
    node.set_agent_args(&["--node-ip=172.18.0.99", "--mode=vxlan"]);
    node.start_agent().unwrap();
    let degraded = node.client().status().unwrap().degraded;
    for part in ["no device", "the kubelet"] {
        let named = |p: &String| p.contains("--node-ip 172.18.0.99") && p.contains(part);
        assert!(degraded.iter().any(named), "{degraded:?}");
    }
}
