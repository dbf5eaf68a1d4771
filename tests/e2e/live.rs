//! Changes while traffic runs: policies, labels, and pods that are not known any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_lab::{Exchange, ExchangeReport, Lab, Listen, Outcome, Pod, PodSpec, Probe, Proto};

const PORT: u16 = 8080;

/// A server, and two clients on another node; `red` and `blue` are their labels.
struct World {
    lab: Lab,
    server: Arc<Pod>,
    red: Arc<Pod>,
    blue: Arc<Pod>,
}

fn world() -> World {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let listen = [Proto::Tcp, Proto::Udp].map(|proto| Listen { proto, port: PORT });
    let spec = listen
        .iter()
        .fold(PodSpec::new("default", "server", 0), |spec, l| {
            spec.port(*l, "")
        });
    let server = lab.add_pod(&spec.label("app", "server")).unwrap();
    let client = |name: &str| {
        lab.add_pod(&PodSpec::new("default", name, 1).label("colour", name))
            .unwrap()
    };
    let (red, blue) = (client("red"), client("blue"));
    World {
        lab,
        server,
        red,
        blue,
    }
}

/// Lets only pods with this selector reach the server.
fn only(from: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": "only"},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": [from]}]},
    })
}

fn colour(colour: &str) -> Value {
    json!({"podSelector": {"matchLabels": {"colour": colour}}})
}

impl World {
    fn passes(&self, client: &Pod) -> bool {
        let outcomes = [self.server.v4(), self.server.v6()].map(|address| {
            let outcome = client
                .probe(Probe::udp(address, PORT).timeout_ms(400))
                .unwrap();
            matches!(outcome, Outcome::Answer { .. })
        });
        assert_eq!(outcomes[0], outcomes[1], "both families agree");
        outcomes[0]
    }

    fn await_passing(&self, red: bool, blue: bool) {
        let deadline = Instant::now() + Duration::from_secs(15);
        let passing = || {
            // Two families may be asked on either side of a change.
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                (self.passes(&self.red), self.passes(&self.blue))
            }))
        };
        loop {
            let now = passing();
            if now.as_ref().is_ok_and(|now| *now == (red, blue)) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "red, blue pass: {now:?}, not {:?}",
                (red, blue)
            );
        }
    }

    fn exchanges(&self, client: &Arc<Pod>) -> Vec<weir_lab::control::RunningExchange> {
        [self.server.v4(), self.server.v6()]
            .iter()
            .flat_map(|address| [Proto::Tcp, Proto::Udp].map(|proto| (*address, proto)))
            .map(|(address, proto)| {
                let target = SocketAddr::new(address, PORT);
                client
                    .exchange(Exchange {
                        target,
                        proto,
                        every_ms: 5,
                    })
                    .unwrap()
            })
            .collect()
    }
}

fn stop(exchanges: Vec<weir_lab::control::RunningExchange>) -> Vec<ExchangeReport> {
    exchanges
        .into_iter()
        .map(|exchange| exchange.stop().unwrap())
        .collect()
}

#[test]
fn a_policy_cuts_running_flows_that_it_forbids_and_no_others() {
    let world = world();
    let red = world.exchanges(&world.red);
    let blue = world.exchanges(&world.blue);
    // Time to run: the reports say whether they did.
    std::thread::sleep(Duration::from_millis(1500));
    world.lab.cluster.apply(&only(&colour("red"))).unwrap();
    world.await_passing(true, false);
    // Longer than an exchange waits for one answer: what is cut has ended by itself.
    std::thread::sleep(Duration::from_secs(6));
    for report in stop(red) {
        assert_eq!(report.error, None, "{report:?}");
        assert!(
            report.received > 100 && report.received == report.sent,
            "{report:?}"
        );
    }
    for report in stop(blue) {
        assert!(
            report.error.is_some(),
            "a forbidden flow went on: {report:?}"
        );
        assert!(report.received > 5, "it ran before: {report:?}");
    }
    // And back: new flows pass once the policy is gone.
    world
        .lab
        .cluster
        .delete("NetworkPolicy", Some("default"), "only")
        .unwrap();
    world.await_passing(true, true);
}

#[test]
fn labels_of_pods_and_namespaces_decide_as_they_are_now() {
    let world = world();
    world.lab.cluster.apply(&only(&colour("red"))).unwrap();
    world.await_passing(true, false);
    for (pod, label) in [("red", "blue"), ("blue", "red")] {
        let mut object = world.lab.cluster.get("Pod", Some("default"), pod).unwrap();
        object["metadata"]["labels"]["colour"] = json!(label);
        world.lab.cluster.apply(&object).unwrap();
    }
    world.await_passing(false, true);
    let team = json!({"namespaceSelector": {"matchLabels": {"team": "a"}}});
    world.lab.cluster.apply(&only(&team)).unwrap();
    world.await_passing(false, false);
    world
        .lab
        .add_namespace("default", &[("team", "a")])
        .unwrap();
    world.await_passing(true, true);
}

#[test]
fn an_address_of_no_known_pod_matches_no_selector() {
    let world = world();
    world
        .lab
        .cluster
        .apply(&only(&json!({"namespaceSelector": {}})))
        .unwrap();
    world.await_passing(true, true);
    // Its Pod object goes, the pod itself stays: nobody knows who has that address.
    world
        .lab
        .cluster
        .delete("Pod", Some("default"), "blue")
        .unwrap();
    world.await_passing(true, false);
    // A block holds it all the same.
    let block = json!({"ipBlock": {"cidr": "10.244.2.0/24"}});
    let block6 = json!({"ipBlock": {"cidr": "fd00:10:244:2::/64"}});
    let mut policy = only(&block);
    policy["spec"]["ingress"][0]["from"] = json!([block, block6]);
    world.lab.cluster.apply(&policy).unwrap();
    world.await_passing(true, true);
}
