//! The agent goes, by kill or by SIGTERM, and comes back: traffic does not notice, and what is
//! right in the kernel is not written again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_api::endpoint::Endpoint;
use weir_api::status::Activity;
use weir_api::verdict::{FlowDirection, VerdictRequest};
use weir_lab::{Exchange, Lab, Listen, Outcome, Pod, PodSpec, Probe, Proto};

const SERVICE_V4: &str = "10.96.0.10";
const SERVICE_V6: &str = "fd00:96::10";

/// Two nodes; a client on the first, a server on each, a Service of both servers, and a policy that
/// lets only the client in.
struct Shop {
    lab: Lab,
    client: std::sync::Arc<Pod>,
    stranger: std::sync::Arc<Pod>,
    servers: [std::sync::Arc<Pod>; 2],
}

fn shop() -> Shop {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let listen = [Proto::Tcp, Proto::Udp].map(|proto| Listen { proto, port: 8080 });
    let server = |name: &str, node| {
        let spec = PodSpec::new("default", name, node).label("app", "server");
        let spec = listen.iter().fold(spec, |spec, l| {
            spec.port(*l, if l.proto == Proto::Tcp { "web" } else { "dns" })
        });
        lab.add_pod(&spec).unwrap()
    };
    let servers = [server("s0", 0), server("s1", 1)];
    let client = lab
        .add_pod(&PodSpec::new("default", "client", 0).label("app", "client"))
        .unwrap();
    let stranger = lab
        .add_pod(&PodSpec::new("default", "stranger", 0).label("app", "x"))
        .unwrap();
    let shop = Shop {
        lab,
        client,
        stranger,
        servers,
    };
    shop.write_service();
    shop.lab.cluster.apply(&policy()).unwrap();
    shop.await_outcomes();
    shop
}

fn policy() -> serde_json::Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": "only-client"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}],
        },
    })
}

impl Shop {
    fn write_service(&self) {
        let ports = |key: &str| {
            json!([{"name": "tcp", "protocol": "TCP", key: 80, "port": if key == "port" { 8080 } else { 80 }},
                   {"name": "udp", "protocol": "UDP", key: 80, "port": if key == "port" { 8080 } else { 80 }}])
        };
        self.lab
            .cluster
            .apply(&json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"namespace": "default", "name": "shop"},
                "spec": {
                    "clusterIP": SERVICE_V4, "clusterIPs": [SERVICE_V4, SERVICE_V6],
                    "ipFamilies": ["IPv4", "IPv6"], "ports": [
                        {"name": "tcp", "protocol": "TCP", "port": 80, "targetPort": 8080},
                        {"name": "udp", "protocol": "UDP", "port": 80, "targetPort": 8080},
                    ],
                },
            }))
            .unwrap();
        for (family, v4) in [("IPv4", true), ("IPv6", false)] {
            let endpoints: Vec<_> = self
                .servers
                .iter()
                .map(|pod| {
                    let address = if v4 { pod.v4() } else { pod.v6() };
                    json!({"addresses": [address], "conditions": {"ready": true}})
                })
                .collect();
            self.lab
                .cluster
                .apply(&json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "metadata": {
                        "namespace": "default", "name": format!("shop-{}", family.to_lowercase()),
                        "labels": {"kubernetes.io/service-name": "shop"},
                    },
                    "addressType": family, "ports": ports("port"), "endpoints": endpoints,
                }))
                .unwrap();
        }
    }

    /// Waits until the client gets through the Service and the stranger does not.
    fn await_outcomes(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let allowed = targets()
                .iter()
                .all(|(proto, target)| answers(&self.client, *proto, *target));
            let denied = !answers(&self.stranger, Proto::Tcp, tcp(SERVICE_V4));
            if allowed && denied {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "allowed {allowed}, denied {denied}; the agent's log ends:\n{}",
                self.lab.nodes[0].log_tail(20)
            );
        }
    }

    fn endpoints(&self, node: usize) -> Vec<Endpoint> {
        self.lab.nodes[node].client().endpoints().unwrap()
    }

    fn activity(&self, node: usize) -> Activity {
        self.lab.nodes[node].client().status().unwrap().activity
    }

    /// The id and name of the rule that lets the client in.
    fn rule(&self, node: usize) -> (u32, Option<serde_json::Value>) {
        let verdict = self.lab.nodes[node]
            .client()
            .verdict(&VerdictRequest {
                endpoint: self.servers[node].v4(),
                direction: FlowDirection::Ingress,
                peer: self.client.v4(),
                protocol: 6,
                port: 8080,
            })
            .unwrap();
        assert!(verdict.allowed, "{verdict:?}");
        (verdict.rule_id, verdict.rule)
    }
}

fn tcp(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 80)
}

fn targets() -> [(Proto, SocketAddr); 4] {
    [
        (Proto::Tcp, tcp(SERVICE_V4)),
        (Proto::Tcp, tcp(SERVICE_V6)),
        (Proto::Udp, tcp(SERVICE_V4)),
        (Proto::Udp, tcp(SERVICE_V6)),
    ]
}

fn answers(from: &Pod, proto: Proto, target: SocketAddr) -> bool {
    let probe = Probe::new(target.ip(), target.port(), proto).timeout_ms(400);
    matches!(from.probe(probe).unwrap(), Outcome::Answer { .. })
}

#[test]
fn an_agent_killed_amid_traffic_through_a_service_loses_nothing_and_rewrites_nothing() {
    let shop = shop();
    let before: Vec<_> = (0..2).map(|n| (shop.endpoints(n), shop.rule(n))).collect();
    let exchanges: Vec<_> = targets()
        .into_iter()
        .map(|(proto, target)| {
            let exchange = Exchange {
                target,
                proto,
                every_ms: 5,
            };
            (proto, target, shop.client.exchange(exchange).unwrap())
        })
        .collect();
    for node in &shop.lab.nodes {
        node.kill_agent();
    }
    // With no agent at all: new connections work, and policy is enforced.
    for (proto, target) in targets() {
        for _ in 0..10 {
            assert!(
                answers(&shop.client, proto, target),
                "{proto:?} {target} with no agent"
            );
        }
    }
    assert!(
        !answers(&shop.stranger, Proto::Tcp, tcp(SERVICE_V4)),
        "stranger with no agent"
    );
    for node in &shop.lab.nodes {
        node.start_agent().unwrap();
    }
    for (proto, target) in targets() {
        assert!(
            answers(&shop.client, proto, target),
            "{proto:?} {target} after the restart"
        );
    }
    assert!(
        !answers(&shop.stranger, Proto::Tcp, tcp(SERVICE_V6)),
        "stranger after the restart"
    );
    for (proto, target, exchange) in exchanges {
        let report = exchange.stop().unwrap();
        assert_eq!(report.error, None, "{proto:?} {target}: {report:?}");
        assert!(report.received > 20, "{proto:?} {target}: {report:?}");
        // The last message of UDP may be on its way still.
        assert!(
            report.sent - report.received <= 1,
            "{proto:?} {target}: {report:?}"
        );
    }
    for (node, (endpoints, rule)) in before.into_iter().enumerate() {
        assert_eq!(
            shop.endpoints(node),
            endpoints,
            "same slots, groups, attachments"
        );
        assert_eq!(shop.rule(node), rule, "same rule id");
        assert_eq!(
            shop.activity(node),
            Activity::default(),
            "node {node} rewrote something"
        );
    }
}

#[test]
fn what_changed_while_the_agent_was_away_is_made_up_for_at_its_start() {
    let shop = shop();
    let node = &shop.lab.nodes[0];
    node.stop_agent().unwrap();
    shop.lab
        .cluster
        .delete("NetworkPolicy", Some("default"), "only-client")
        .unwrap();
    let target = SocketAddr::new(shop.servers[0].v4(), 8080);
    assert!(
        !answers(&shop.stranger, Proto::Tcp, target),
        "the old policy holds"
    );
    node.start_agent().unwrap();
    assert!(
        answers(&shop.stranger, Proto::Tcp, target),
        "the new state holds"
    );
    let Activity {
        map_writes,
        programs_replaced,
        links_changed,
        routes_changed,
    } = shop.activity(0);
    assert!(map_writes > 0);
    assert_eq!(
        (programs_replaced, links_changed, routes_changed),
        (0, 0, 0)
    );
}

#[test]
fn a_pod_that_went_while_the_agent_was_away_is_forgotten_with_its_links_and_entries() {
    let shop = shop();
    let node = &shop.lab.nodes[0];
    let gone = shop.endpoints(0).into_iter().find(|e| {
        e.attachment
            .pod
            .as_ref()
            .is_some_and(|pod| pod.name == "stranger")
    });
    let ifindex = gone.unwrap().attachment.host_ifindex;
    let pins = node.path("/sys/fs/bpf/weir/v1/links");
    assert!(pins.join(format!("ep-{ifindex}-in")).exists());
    node.kill_agent();
    shop.lab.remove_pod(&shop.stranger).unwrap();
    node.start_agent().unwrap();
    assert_eq!(shop.endpoints(0).len(), 2);
    for side in ["in", "out"] {
        assert!(
            !pins.join(format!("ep-{ifindex}-{side}")).exists(),
            "{side}"
        );
    }
    let view = weir_agent::dataplane::PinnedView::open(&node.path("/sys/fs/bpf/weir")).unwrap();
    let known: Vec<u32> = view
        .endpoints()
        .unwrap()
        .into_iter()
        .map(|(i, _)| i)
        .collect();
    assert_eq!(known.len(), 2);
    assert!(!known.contains(&ifindex));
}

#[test]
fn a_second_agent_on_the_same_bpffs_is_refused_and_the_first_is_not_disturbed() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    let mut command = std::process::Command::new(weir_lab::bin("weir-agent").unwrap());
    command.args([
        "--source",
        "dir:/",
        "--node-name",
        "x",
        "--metrics-address",
        "none",
    ]);
    command.args([
        "--socket",
        "/run/weir/second.sock",
        "--state-dir",
        "/run/weir/second",
    ]);
    let output = node.run(command, b"").unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("another weir-agent") && message.contains("--bpffs"),
        "{message}"
    );
    assert!(node.client().status().unwrap().ready);
}
