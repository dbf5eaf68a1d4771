//! A policy rewritten as fast as it goes, while traffic runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_lab::control::RunningExchange;
use weir_lab::{Exchange, Lab, Listen, Outcome, Pod, PodSpec, Probe, Proto};

/// Allowed in every version of the policy, and denied in every one.
const ALLOWED: u16 = 8080;
const DENIED: u16 = 9090;
const REWRITES: u32 = 1000;
/// How long they may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Every version lets the clients in on port 8080 over TCP and UDP, each in other words: other
/// selectors, blocks and ports (that is, other classes, rows and groups), and more or fewer of them.
fn version(n: u32, clients: &[Arc<Pod>]) -> Value {
    let ports = |list: &[u16]| -> Vec<Value> {
        let both = |port: &u16| ["TCP", "UDP"].map(|p| json!({"protocol": p, "port": port}));
        list.iter().flat_map(both).collect()
    };
    let pod = json!({"podSelector": {"matchLabels": {"app": "client"}}});
    let namespace = json!({"namespaceSelector": {}, "podSelector": {}});
    let addresses = clients.iter().flat_map(|c| [c.v4(), c.v6()]);
    let blocks: Vec<Value> = addresses
        .map(|ip| {
            let len = if ip.is_ipv4() { 32 } else { 128 };
            json!({"ipBlock": {"cidr": format!("{ip}/{len}")}})
        })
        .collect();
    let wide = [
        json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["192.0.2.0/24"]}}),
        json!({"ipBlock": {"cidr": "::/0"}}),
    ];
    let some = u16::try_from(10_000 + n % 7).unwrap();
    let rules = match n % 5 {
        0 => json!([{"from": [pod], "ports": ports(&[ALLOWED])}]),
        1 => json!([{"from": [namespace], "ports": ports(&[ALLOWED, some])}]),
        2 => {
            json!([{"from": blocks, "ports": ports(&[ALLOWED])}, {"from": [pod], "ports": ports(&[some])}])
        }
        3 => json!([{"from": wide, "ports": ports(&[some, ALLOWED])}]),
        _ => json!([{"ports": ports(&[ALLOWED])}, {"from": blocks, "ports": ports(&[some])}]),
    };
    let mut policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": "rewritten"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": ["Ingress"], "ingress": rules,
        },
    });
    if n.is_multiple_of(3) {
        // Egress as well: what the server answers is not its own.
        policy["spec"]["policyTypes"] = json!(["Ingress", "Egress"]);
    }
    policy
}

fn exchanges(client: &Arc<Pod>, server: &Pod) -> Vec<RunningExchange> {
    let addresses = [server.v4(), server.v6()];
    let protos = |address| [Proto::Tcp, Proto::Udp].map(|proto| (address, proto));
    let all = addresses.into_iter().flat_map(protos);
    all.map(|(address, proto)| {
        let target = SocketAddr::new(address, ALLOWED);
        client
            .exchange(Exchange {
                target,
                proto,
                every_ms: 2,
            })
            .unwrap()
    })
    .collect()
}

/// Tries the denied port in every way, with new flows, and does not wait for answers.
fn knock(client: &Pod, server: &Pod) {
    for address in [server.v4(), server.v6()] {
        for proto in [Proto::Tcp, Proto::Udp] {
            let probe = Probe::new(address, DENIED, proto).timeout_ms(1);
            let outcome = client.probe(probe).unwrap();
            assert!(
                matches!(outcome, Outcome::Timeout { .. }),
                "{} to {address} {proto:?}: {outcome:?}",
                client.key()
            );
        }
    }
}

/// How many flows to the denied port have arrived in the server's namespace.
fn denied(server: &Pod) -> usize {
    let seen = server.seen().unwrap();
    seen.iter().filter(|seen| seen.port == DENIED).count()
}

/// Waits until the first version is in force.
fn await_denied(client: &Pod, server: &Pod) {
    let deadline = Instant::now() + Duration::from_secs(15);
    let probe = Probe::udp(server.v4(), DENIED).timeout_ms(200);
    while !matches!(client.probe(probe).unwrap(), Outcome::Timeout { .. }) {
        assert!(Instant::now() < deadline, "the policy is not in force");
    }
}

#[test]
fn what_every_version_of_a_policy_allows_never_loses_a_packet_and_what_none_allows_never_passes_one()
 {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let mut spec = PodSpec::new("default", "server", 0).label("app", "server");
    for proto in [Proto::Tcp, Proto::Udp] {
        for port in [ALLOWED, DENIED] {
            spec = spec.port(Listen { proto, port }, "");
        }
    }
    let server = lab.add_pod(&spec).unwrap();
    let client = |name: &str, node| {
        let spec = PodSpec::new("default", name, node).label("app", "client");
        lab.add_pod(&spec).unwrap()
    };
    let clients = [client("near", 0), client("far", 1)];
    lab.cluster.apply(&version(0, &clients)).unwrap();
    await_denied(&clients[1], &server);
    let before = denied(&server);
    let running: Vec<_> = clients.iter().flat_map(|c| exchanges(c, &server)).collect();
    let (started, mut rewrites) = (Instant::now(), 0);
    while rewrites < REWRITES && started.elapsed() < LIMIT {
        rewrites += 1;
        lab.cluster.apply(&version(rewrites, &clients)).unwrap();
        knock(&clients[rewrites as usize % 2], &server);
    }
    for exchange in running {
        let report = exchange.stop().unwrap();
        assert_eq!(report.error, None, "after {rewrites} rewrites: {report:?}");
        assert!(
            report.received > 100 && report.received == report.sent,
            "after {rewrites} rewrites: {report:?}"
        );
    }
    assert_eq!(denied(&server), before, "what no version allows has passed");
    assert!(rewrites > 200, "{rewrites} rewrites are too few to tell");
}
