//! Tables that get too small grow while the agent runs and traffic goes on.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_abi::service::{Service, ServiceKey};
use weir_abi::{Addr, map};
use weir_agent::dataplane::pins::Pins;
use weir_agent::dataplane::table::{Table, Writes};
use weir_api::status::Activity;
use weir_lab::node::Node;
use weir_lab::{Exchange, Lab, Listen, Outcome, Pod, PodSpec, Probe, Proto};
use weir_net::bpf;

const V1: &str = "/sys/fs/bpf/weir/v1";

/// So small that thirty policies do not fit, and so small that thirty Services do not.
const SMALL: [&str; 9] = [
    "--max-peers=16",
    "--max-cidrs=16",
    "--max-decisions=32",
    "--max-intervals=64",
    "--max-rules=16",
    "--max-ids=24",
    "--max-services=16",
    "--max-service-slots=16",
    "--max-backends=16",
];

fn await_that(node: &Node, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}\n{}", node.log_tail(60));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn size_of(node: &Node, map: &str) -> u32 {
    let path = node.path(&format!("{V1}/maps/{map}"));
    bpf::map_info_pinned(path).unwrap().max_entries
}

/// A node whose tables are small, and whose agent may have them grow again.
fn small(lab: &Lab) -> &Node {
    let node = &lab.nodes[0];
    node.stop_agent().unwrap();
    node.set_agent_args(&SMALL);
    node.start_agent().unwrap();
    for (name, size) in [("RULES", 16), ("INTERVALS", 64), ("SERVICES", 16)] {
        assert_eq!(size_of(node, name), size, "{name}");
    }
    node.stop_agent().unwrap();
    node.set_agent_args(&[]);
    node.start_agent().unwrap();
    assert_eq!(size_of(node, "RULES"), 16, "a size that is there stays");
    node
}

fn two_pods(lab: &Lab) -> [Arc<Pod>; 2] {
    [("server", 8080), ("client", 8081)].map(|(name, port)| {
        let spec = [Proto::Tcp, Proto::Udp]
            .into_iter()
            .fold(PodSpec::new("default", name, 0), |spec, proto| {
                spec.port(Listen { proto, port }, "")
            });
        lab.add_pod(&spec).unwrap()
    })
}

/// A policy for every pod, whose rules no other shares, and which allows what the test does.
fn policy(number: u32) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": format!("p{number}")},
        "spec": {"podSelector": {}, "ingress": [{
            "from": [{"ipBlock": {"cidr": format!("192.0.2.{number}/32")}}],
            "ports": [{"port": 8000 + number}],
        }, {"ports": [{"port": 8080}, {"port": 8080, "protocol": "UDP"}]}]},
    })
}

/// Applied as one, as a plan for each would take its time.
fn policies(lab: &Lab) {
    for number in 0..30 {
        lab.cluster.apply(&policy(number)).unwrap();
    }
}

fn in_force(node: &Node, policies: usize) -> bool {
    let client = node.client().timeout(Duration::from_secs(60));
    let endpoints = client.endpoints().unwrap();
    endpoints.len() == 2
        && endpoints
            .iter()
            .all(|e| e.ingress.isolated_by.len() == policies)
}

fn services(lab: &Lab, numbers: std::ops::RangeInclusive<u8>) {
    for number in numbers {
        let name = format!("s{number}");
        let service = serde_json::json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "default", "name": name},
            "spec": {"clusterIP": cluster_ip(number), "ports": [{"port": 80}]},
        });
        let slice = serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": "default", "name": name,
                         "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"port": 80, "protocol": "TCP"}],
            "endpoints": [{"addresses": [format!("10.77.0.{number}")]}],
        });
        lab.cluster.apply(&slice).unwrap();
        lab.cluster.apply(&service).unwrap();
    }
}

fn cluster_ip(number: u8) -> String {
    format!("10.96.7.{number}")
}

/// How many of those Services have a frontend in the kernel.
fn served(node: &Node) -> usize {
    let pins = Pins::new(&node.path("/sys/fs/bpf/weir"));
    let table: Table<ServiceKey, Service> =
        Table::open(&pins, map::SERVICES, &Writes::default()).unwrap();
    let entries = table.entries().unwrap();
    let frontends = (1..=30).filter(|number| {
        let ip: std::net::IpAddr = cluster_ip(*number).parse().unwrap();
        let addr = Addr::from(ip);
        let marker = entries.contains_key(&ServiceKey::marker(addr));
        let port = entries
            .iter()
            .any(|(key, value)| key.addr == addr && key.port.get() == 80 && value.count == 1);
        marker && port
    });
    frontends.count()
}

/// Every link has the program that is pinned under its name.
pub fn links_are_current(node: &Node) {
    for link in std::fs::read_dir(node.path(&format!("{V1}/links"))).unwrap() {
        let path = link.unwrap().path();
        let link = bpf::get_pinned(&path).unwrap();
        let attached = bpf::link_info(link.as_fd()).unwrap().prog_id;
        let name = path.file_name().unwrap().to_str().unwrap();
        let program = match name.split('-').collect::<Vec<_>>()[..] {
            ["ep", _, "in"] => "from_pod",
            ["ep", _, "out"] => "to_pod",
            ["up", _, "in"] => "from_uplink",
            ["up", _, "out"] => "to_uplink",
            ["cg", program] => program,
            _ => panic!("{name}"),
        };
        let program = bpf::get_pinned(node.path(&format!("{V1}/progs/{program}"))).unwrap();
        let info = bpf::prog_info(program.as_fd()).unwrap();
        assert_eq!(attached, info.id, "{name}");
    }
}

/// Runs something while a TCP and a UDP exchange of each family run between the pods: no packet of
/// theirs may be lost.
fn amid_traffic(node: &Node, [server, client]: &[Arc<Pod>; 2], work: impl FnOnce()) {
    let exchanges: Vec<_> = [server.v4(), server.v6()]
        .into_iter()
        .flat_map(|ip| [(ip, Proto::Tcp), (ip, Proto::Udp)])
        .map(|(ip, proto)| {
            let probe = Probe::tcp(ip, 8080).timeout_ms(3000);
            let outcome = client.probe(probe).unwrap();
            assert!(matches!(outcome, Outcome::Answer { .. }), "{outcome:?}");
            let exchange = Exchange {
                target: SocketAddr::new(ip, 8080),
                proto,
                every_ms: 3,
            };
            (exchange, client.exchange(exchange).unwrap())
        })
        .collect();
    work();
    for (exchange, running) in exchanges {
        let report = running.stop().unwrap();
        let log = || node.log_tail(60);
        assert_eq!(report.error, None, "{exchange:?}: {report:?}\n{}", log());
        assert!(report.received > 5, "{exchange:?}: {report:?}");
        assert!(
            report.sent - report.received <= 1,
            "{exchange:?}: {report:?}\n{}",
            log()
        );
    }
}

#[test]
fn tables_of_policy_grow_while_traffic_runs_and_keep_their_sizes_over_a_restart() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = small(&lab);
    let pods = two_pods(&lab);
    amid_traffic(node, &pods, || {
        policies(&lab);
        await_that(node, "all policies are in force", || in_force(node, 30));
    });
    for (name, size) in [("RULES", 16), ("INTERVALS", 64), ("IDS", 48)] {
        assert!(size_of(node, name) > size, "{name}");
        assert!(!node.path(&format!("{V1}/maps/{name}-next")).exists());
    }
    links_are_current(node);
    let status = node.client().status().unwrap();
    assert_eq!(status.degraded, [""; 0]);
    assert!(status.activity.programs_replaced > 0);
    // A change after growth goes where the programs look.
    lab.cluster
        .delete("NetworkPolicy", Some("default"), "p7")
        .unwrap();
    await_that(node, "one policy less", || in_force(node, 29));
    let [server, client] = &pods;
    for number in [8080, 8081] {
        let probe = Probe::tcp(server.v4(), number).timeout_ms(1000);
        let outcome = client.probe(probe).unwrap();
        let answered = matches!(outcome, Outcome::Answer { .. });
        assert_eq!(answered, number == 8080, "{number}: {outcome:?}");
    }
    let sizes = ["RULES", "INTERVALS", "IDS", "PEERS"].map(|name| size_of(node, name));
    node.stop_agent().unwrap();
    node.start_agent().unwrap();
    assert_eq!(
        node.client().status().unwrap().activity,
        Activity::default()
    );
    assert_eq!(
        ["RULES", "INTERVALS", "IDS", "PEERS"].map(|name| size_of(node, name)),
        sizes
    );
}

#[test]
fn tables_of_services_grow_and_all_services_are_served() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = small(&lab);
    let pods = two_pods(&lab);
    amid_traffic(node, &pods, || {
        services(&lab, 1..=30);
        await_that(node, "all Services are served", || served(node) == 30);
    });
    links_are_current(node);
    assert!(size_of(node, "SERVICES") > 16 && size_of(node, "BACKENDS") > 16);
    assert_eq!(node.client().status().unwrap().degraded, [""; 0]);
}

/// The value of a metric of a map.
fn metric(node: &Node, name: &str, map: &str) -> f64 {
    let mut curl = std::process::Command::new("curl");
    curl.args(["-s", "http://127.0.0.1:9965/metrics"]);
    let page = String::from_utf8(node.run(curl, b"").unwrap().stdout).unwrap();
    let sample = format!("{name}{{map=\"{map}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&sample));
    value
        .unwrap_or_else(|| panic!("no {sample}in {page}"))
        .parse()
        .unwrap()
}

#[test]
fn a_table_at_its_limit_is_a_problem_and_a_metric_and_what_is_programmed_stays() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = small(&lab);
    let pods = two_pods(&lab);
    lab.cluster.apply(&policy(0)).unwrap();
    services(&lab, 1..=1);
    await_that(node, "the first policy and Service", || {
        in_force(node, 1) && served(node) == 1
    });
    node.stop_agent().unwrap();
    node.set_agent_args(&["--max-rules=16", "--max-services=16"]);
    node.start_agent().unwrap();
    amid_traffic(node, &pods, || {
        policies(&lab);
        services(&lab, 2..=30);
        for (map, flag) in [("RULES", "--max-rules"), ("SERVICES", "--max-services")] {
            await_that(node, "the problem", || {
                let client = node.client().timeout(Duration::from_secs(60));
                let degraded = client.status().unwrap().degraded;
                let named = |problem: &String| {
                    problem.contains(map) && problem.contains("16") && problem.contains(flag)
                };
                degraded.iter().any(named)
            });
            assert_eq!(metric(node, "weir_map_full", map), 1.0);
            assert_eq!(metric(node, "weir_map_size", map), 16.0);
            assert_eq!(metric(node, "weir_map_limit", map), 16.0);
        }
    });
    assert_eq!(metric(node, "weir_map_full", "PEERS"), 0.0);
    assert!(node.log().contains("table full"), "{}", node.log_tail(60));
    assert!(served(node) > 0, "what was served still is");
    for number in 1..30 {
        let name = format!("p{number}");
        lab.cluster
            .delete("NetworkPolicy", Some("default"), &name)
            .unwrap();
    }
    await_that(node, "it fits again", || {
        metric(node, "weir_map_full", "RULES") == 0.0
    });
    assert!(in_force(node, 1));
}

/// Whether maps are pinned that have not taken the others' places yet.
fn half_made(node: &Node) -> bool {
    let maps = std::fs::read_dir(node.path(&format!("{V1}/maps"))).unwrap();
    let mut names = maps.map(|entry| entry.unwrap().file_name());
    names.any(|name| name.to_str().unwrap().ends_with("-next"))
}

#[test]
fn an_agent_killed_while_tables_grow_is_followed_by_one_that_goes_on() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = small(&lab);
    let pods = two_pods(&lab);
    let mut cut_off = 0;
    let large = || size_of(node, "RULES") > 16 && size_of(node, "SERVICES") > 16;
    let in_place = || large() && size_of(node, "DECISIONS") > 32;
    amid_traffic(node, &pods, || {
        policies(&lab);
        services(&lab, 1..=30);
        for pause in [0, 30, 300, 700, 1100] {
            // Maps and programs that are being made have names of their own.
            await_that(node, "a table grows", || half_made(node) || in_place());
            std::thread::sleep(Duration::from_millis(pause));
            cut_off += usize::from(half_made(node));
            node.kill_agent();
            node.launch_agent().unwrap();
        }
        node.await_ready(Duration::from_secs(60)).unwrap();
        await_that(node, "everything is in force", || {
            in_force(node, 30) && served(node) == 30
        });
    });
    assert!(cut_off > 0, "no growth was cut off");
    links_are_current(node);
    assert_eq!(node.client().status().unwrap().degraded, [""; 0]);
    assert!(!half_made(node));
}
