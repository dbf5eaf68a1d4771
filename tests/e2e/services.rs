//! ClusterIP Services: translated at connect() for pods that the socket hooks cover, packet by
//! packet for those they do not; TCP and UDP, both families.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_lab::{Lab, Listen, Outcome, Pod, PodSpec, Probe, Proto};

const VIPS: [&str; 2] = ["10.96.7.7", "fd00:10:96::77"];
const EMPTY_VIPS: [&str; 2] = ["10.96.7.8", "fd00:10:96::78"];
const PORT: u16 = 80;

/// Two servers on different nodes behind one Service, and a client of each kind on the first node.
struct World {
    lab: Lab,
    servers: Vec<Arc<Pod>>,
    covered: Arc<Pod>,
    uncovered: Arc<Pod>,
}

fn ports() -> Value {
    json!([
        {"name": "web", "port": PORT, "targetPort": 8080, "protocol": "TCP"},
        {"name": "dns", "port": PORT, "targetPort": 5353, "protocol": "UDP"},
    ])
}

fn service(name: &str, vips: [&str; 2]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": name},
        "spec": {
            "selector": {"app": name}, "clusterIP": vips[0], "clusterIPs": vips,
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack", "ports": ports(),
        },
    })
}

fn write_slices(lab: &Lab, name: &str, servers: &[&Arc<Pod>]) {
    for v4 in [true, false] {
        let endpoints: Vec<Value> = servers
            .iter()
            .map(|pod| {
                let address = if v4 { pod.v4() } else { pod.v6() };
                json!({
                    "addresses": [address.to_string()],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "nodeName": lab.nodes[pod.node].name,
                    "targetRef": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
                })
            })
            .collect();
        lab.cluster
            .apply(&json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {
                    "namespace": "default",
                    "name": format!("{name}-{}", if v4 { "4" } else { "6" }),
                    "labels": {"kubernetes.io/service-name": name},
                },
                "addressType": if v4 { "IPv4" } else { "IPv6" },
                "ports": [
                    {"name": "web", "port": 8080, "protocol": "TCP"},
                    {"name": "dns", "port": 5353, "protocol": "UDP"},
                ],
                "endpoints": endpoints,
            }))
            .unwrap();
    }
}

fn world() -> World {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let server = |name: &str, node, covered| {
        let mut spec = PodSpec::new("default", name, node)
            .label("app", "server")
            .port(
                Listen {
                    proto: Proto::Tcp,
                    port: 8080,
                },
                "web",
            )
            .port(
                Listen {
                    proto: Proto::Udp,
                    port: 5353,
                },
                "dns",
            );
        spec.covered = covered;
        lab.add_pod(&spec).unwrap()
    };
    let servers = vec![server("s1", 0, true), server("s2", 1, true)];
    let covered = server("covered", 0, true);
    let uncovered = server("uncovered", 0, false);
    lab.cluster.apply(&service("server", VIPS)).unwrap();
    write_slices(&lab, "server", &[&servers[0], &servers[1]]);
    lab.cluster.apply(&service("empty", EMPTY_VIPS)).unwrap();
    let world = World {
        lab,
        servers,
        covered,
        uncovered,
    };
    world.await_answers();
    world
}

impl World {
    /// Waits until the Service is in force on the clients' node.
    fn await_answers(&self) {
        for vip in VIPS {
            eventually(|| {
                let outcome = self
                    .uncovered
                    .probe(probe(vip, Proto::Tcp).timeout_ms(200))
                    .unwrap();
                matches!(outcome, Outcome::Answer { .. })
                    .then_some(())
                    .ok_or(format!("{outcome:?}"))
            });
        }
    }
}

fn probe(vip: &str, proto: Proto) -> Probe {
    Probe::new(vip.parse().unwrap(), PORT, proto).timeout_ms(3000)
}

fn eventually(mut check: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(last) = check() {
        assert!(Instant::now() < deadline, "{last}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn services_reach_every_backend_by_socket_hooks_and_by_the_packet_path() {
    let world = world();
    let all: BTreeSet<String> = world.servers.iter().map(|pod| pod.key()).collect();
    for client in [&world.covered, &world.uncovered] {
        for vip in VIPS {
            for proto in [Proto::Tcp, Proto::Udp] {
                let mut found = BTreeSet::new();
                for _ in 0..40 {
                    let outcome = client.probe(probe(vip, proto).bytes(700)).unwrap();
                    let Outcome::Answer { from, peer, .. } = outcome else {
                        panic!("{} to {vip} {proto:?}: {outcome:?}", client.key());
                    };
                    assert_eq!(
                        peer.ip(),
                        vip.parse::<IpAddr>().unwrap(),
                        "getpeername shows the frontend"
                    );
                    assert_eq!(peer.port(), PORT);
                    found.insert(from);
                }
                assert_eq!(found, all, "{} to {vip} {proto:?}", client.key());
            }
        }
    }
}

#[test]
fn unconnected_udp_sockets_are_answered_from_the_frontend() {
    let world = world();
    for client in [&world.covered, &world.uncovered] {
        for vip in VIPS {
            let mut asked = probe(vip, Proto::Udp);
            asked.unconnected = true;
            let outcome = client.probe(asked).unwrap();
            let Outcome::Answer { peer, .. } = &outcome else {
                panic!("{} to {vip}: {outcome:?}", client.key());
            };
            assert_eq!(
                peer.ip(),
                vip.parse::<IpAddr>().unwrap(),
                "{}",
                client.key()
            );
        }
    }
}

#[test]
fn a_service_without_endpoints_and_an_unserved_port_are_refused_at_once() {
    let world = world();
    for client in [&world.covered, &world.uncovered] {
        for vip in EMPTY_VIPS {
            for proto in [Proto::Tcp, Proto::Udp] {
                let outcome = client.probe(probe(vip, proto)).unwrap();
                assert_eq!(
                    outcome,
                    Outcome::Refused,
                    "{} to {vip} {proto:?}",
                    client.key()
                );
            }
        }
        for vip in VIPS {
            let closed = Probe::tcp(vip.parse().unwrap(), 81).timeout_ms(3000);
            let outcome = client.probe(closed).unwrap();
            assert_eq!(outcome, Outcome::Refused, "{} to {vip}:81", client.key());
        }
    }
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let world = world();
    for pod in [&world.covered, &world.uncovered] {
        write_slices(&world.lab, "server", &[pod]);
        for vip in VIPS {
            for proto in [Proto::Tcp, Proto::Udp] {
                eventually(
                    || match pod.probe(probe(vip, proto).timeout_ms(500)).unwrap() {
                        Outcome::Answer { from, .. } if from == pod.key() => Ok(()),
                        other => Err(format!(
                            "{} to itself by {vip} {proto:?}: {other:?}",
                            pod.key()
                        )),
                    },
                );
            }
        }
    }
}

#[test]
fn a_removed_backend_gets_no_new_connection_and_an_added_one_does() {
    let world = world();
    write_slices(&world.lab, "server", &[&world.servers[1]]);
    for client in [&world.covered, &world.uncovered] {
        for vip in VIPS {
            for proto in [Proto::Tcp, Proto::Udp] {
                // In force once twenty in a row go to the one that is left.
                eventually(|| {
                    for _ in 0..20 {
                        match client.probe(probe(vip, proto)).unwrap() {
                            Outcome::Answer { from, .. } if from == world.servers[1].key() => {}
                            other => return Err(format!("{} to {vip}: {other:?}", client.key())),
                        }
                    }
                    Ok(())
                });
            }
        }
    }
    write_slices(&world.lab, "server", &[&world.servers[0]]);
    eventually(
        || match world.covered.probe(probe(VIPS[0], Proto::Tcp)).unwrap() {
            Outcome::Answer { from, .. } if from == world.servers[0].key() => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
}
