//! Running flows while what allows them changes: what is forbidden is cut, whichever end forbids it
//! and whoever sends, and nothing else loses a byte.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_lab::{Lab, Listen, Outcome, Pod, PodSpec, Probe, Proto};

use crate::streams::{Spec, Streams, Way};

/// Where the pods' own servers listen, for new flows.
const PORT: u16 = 8080;

/// The hub, whose policy decides in both directions, and two pods each, one on its node and one on
/// another, that are victims and neighbours.
struct World {
    lab: Lab,
    hub: Arc<Pod>,
    victims: Vec<Arc<Pod>>,
    neighbours: Vec<Arc<Pod>>,
}

fn world(agent_args: &[&str]) -> World {
    let builder = Lab::builder().nodes(2);
    let builder = agent_args
        .iter()
        .fold(builder, |builder, arg| builder.agent_arg(arg));
    let lab = builder.start().unwrap();
    for namespace in ["hub", "victims", "neighbours"] {
        lab.add_namespace(namespace, &[("team", "good")]).unwrap();
    }
    let listen = Listen {
        proto: Proto::Udp,
        port: PORT,
    };
    let pod = |namespace: &str, name: &str, node| {
        let spec = PodSpec::new(namespace, name, node)
            .label("role", "good")
            .port(listen, "");
        lab.add_pod(&spec).unwrap()
    };
    let hub = pod("hub", "hub", 0);
    let pair = |namespace| vec![pod(namespace, "near", 0), pod(namespace, "far", 1)];
    let (victims, neighbours) = (pair("victims"), pair("neighbours"));
    lab.cluster
        .apply(&policy(&json!({"team": "good"})))
        .unwrap();
    let world = World {
        lab,
        hub,
        victims,
        neighbours,
    };
    world.await_new_flows(true);
    world
}

/// Isolates the hub in both directions, but for good pods of namespaces with these labels.
fn policy(namespaces: &Value) -> Value {
    let peer = json!({
        "namespaceSelector": {"matchLabels": namespaces},
        "podSelector": {"matchLabels": {"role": "good"}},
    });
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "hub", "name": "good"},
        "spec": {
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [peer]}], "egress": [{"to": [peer]}],
        },
    })
}

impl World {
    /// Every combination of end that may forbid, node, family, protocol and sender.
    fn streams(&self) -> Streams {
        let mut specs = Vec::new();
        for (pods, victim) in [(&self.victims, true), (&self.neighbours, false)] {
            for peer in pods {
                for (client, server) in [(&self.hub, peer), (peer, &self.hub)] {
                    for is_v4 in [true, false] {
                        for proto in [Proto::Tcp, Proto::Udp] {
                            for way in [Way::Up, Way::Down] {
                                specs.push(Spec {
                                    client,
                                    server,
                                    is_v4,
                                    proto,
                                    way,
                                    victim,
                                });
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(specs.len(), 64);
        Streams::start(&specs)
    }

    /// Waits until new flows between hub and victims pass, or none does.
    fn await_new_flows(&self, pass: bool) {
        let deadline = Instant::now() + Duration::from_secs(15);
        let pairs = self
            .victims
            .iter()
            .flat_map(|pod| [(&self.hub, pod), (pod, &self.hub)]);
        for (client, server) in pairs {
            for address in &server.addresses {
                let probe = Probe::udp(*address, PORT).timeout_ms(200);
                let passes = || matches!(client.probe(probe).unwrap(), Outcome::Answer { .. });
                while passes() != pass {
                    let names = (client.key(), server.key());
                    assert!(Instant::now() < deadline, "{names:?} pass: {}", !pass);
                }
            }
        }
    }

    fn label_victims(&self, role: &str) {
        for pod in &self.victims {
            let cluster = &self.lab.cluster;
            let mut object = cluster.get("Pod", Some("victims"), &pod.name).unwrap();
            object["metadata"]["labels"]["role"] = json!(role);
            cluster.apply(&object).unwrap();
        }
    }

    fn label_namespace(&self, team: &str) {
        self.lab
            .add_namespace("victims", &[("team", team)])
            .unwrap();
    }

    fn set_policy(&self, namespaces: &Value) {
        self.lab.cluster.apply(&policy(namespaces)).unwrap();
    }

    /// Forbids or allows the victims' flows, in the way of one kind of change.
    fn change(&self, kind: &str, allow: bool) {
        match (kind, allow) {
            ("pod label", true) => self.label_victims("good"),
            ("pod label", false) => self.label_victims("bad"),
            ("namespace label", true) => self.label_namespace("good"),
            ("namespace label", false) => self.label_namespace("bad"),
            (_, true) => self.set_policy(&json!({"team": "good"})),
            (_, false) => self.set_policy(&json!({"kubernetes.io/metadata.name": "neighbours"})),
        }
    }
}

#[test]
fn each_kind_of_change_cuts_the_forbidden_streams_at_either_end_and_no_stream_that_stays_allowed() {
    let world = world(&[]);
    let streams = world.streams();
    for (cuts, kind) in ["pod label", "policy", "namespace label"]
        .into_iter()
        .enumerate()
    {
        world.change(kind, false);
        streams.await_cut(&format!("cut by the change of a {kind}"));
        world.await_new_flows(false);
        world.change(kind, true);
        streams.await_running(&format!("allowed again by the change of a {kind}"));
        streams.assert_gaps(kind, cuts as u64 + 1);
    }
    streams.finish("at the end");
}

#[test]
fn established_flows_are_kept_where_the_agent_is_told_to_and_cut_once_it_is_told_to_apply() {
    let world = world(&["--policy-established", "keep"]);
    let streams = world.streams();
    for kind in ["pod label", "policy", "namespace label"] {
        world.change(kind, false);
        world.await_new_flows(false);
        streams.await_running(&format!("kept after the change of a {kind}"));
        world.change(kind, true);
        world.await_new_flows(true);
    }
    world.change("policy", false);
    world.await_new_flows(false);
    // An agent that keeps finds the marks of the one before it, and keeps as well.
    let node = &world.lab.nodes[0];
    node.stop_agent().unwrap();
    node.start_agent().unwrap();
    streams.await_running("kept by a restarted agent");
    streams.assert_gaps("kept", 0);
    node.stop_agent().unwrap();
    node.set_agent_args(&["--policy-established", "apply"]);
    node.start_agent().unwrap();
    streams.await_cut("cut by an agent that applies");
    world.change("policy", true);
    streams.await_running("allowed again");
    streams.assert_gaps("cut once", 1);
    streams.finish("at the end");
}
