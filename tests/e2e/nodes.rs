//! Nodes and pods; the wire's MTU; hosts outside.

use weir_lab::{Lab, Listen, Outcome, PodSpec, Probe, Proto};

const TCP: Listen = Listen {
    proto: Proto::Tcp,
    port: 8080,
};
const UDP: Listen = Listen {
    proto: Proto::Udp,
    port: 8080,
};

fn answered_by(outcome: &Outcome, name: &str) -> bool {
    matches!(outcome, Outcome::Answer { from, .. } if from == name)
}

#[test]
fn nodes_reach_pods_and_pods_reach_nodes_here_and_there() {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let hosts = [0, 1].map(|node| lab.add_host_server(node, &[TCP, UDP]).unwrap());
    let pods = [0, 1].map(|node| {
        let spec = PodSpec::new("default", &format!("p{node}"), node)
            .port(TCP, "")
            .port(UDP, "");
        lab.add_pod(&spec).unwrap()
    });
    for (host, node) in hosts.iter().zip(&lab.nodes) {
        for pod in &pods {
            for proto in [Proto::Tcp, Proto::Udp] {
                for address in [pod.v4(), pod.v6()] {
                    let outcome = host
                        .probe(Probe::new(address, 8080, proto).timeout_ms(4000))
                        .unwrap();
                    assert!(
                        answered_by(&outcome, &pod.key()),
                        "{} to {}: {outcome:?}",
                        node.name,
                        pod.key()
                    );
                }
                for address in node.addresses {
                    let outcome = pod
                        .probe(Probe::new(address, 8080, proto).timeout_ms(4000))
                        .unwrap();
                    let name = format!("node/{}", node.name);
                    assert!(
                        answered_by(&outcome, &name),
                        "{} to {name}: {outcome:?}",
                        pod.key()
                    );
                }
            }
        }
    }
}

#[test]
fn a_node_reaches_its_own_isolated_pods_and_another_node_does_not() {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let hosts = [0, 1].map(|node| lab.add_host_server(node, &[]).unwrap());
    lab.cluster
        .apply(&serde_json::json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "default", "name": "shut"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        }))
        .unwrap();
    let pod = lab
        .add_pod(&PodSpec::new("default", "p", 0).port(TCP, "").port(UDP, ""))
        .unwrap();
    for address in [pod.v4(), pod.v6()] {
        for proto in [Proto::Tcp, Proto::Udp] {
            let probe = Probe::new(address, 8080, proto);
            let own = hosts[0].probe(probe.timeout_ms(4000)).unwrap();
            assert!(
                answered_by(&own, &pod.key()),
                "the kubelet's probe: {own:?}"
            );
            let other = hosts[1].probe(probe.timeout_ms(700)).unwrap();
            assert!(matches!(other, Outcome::Timeout { .. }), "{other:?}");
        }
    }
}

#[test]
fn large_messages_pass_whole_on_wires_of_any_mtu() {
    for mtu in [1400, 9000] {
        let lab = Lab::builder().nodes(2).mtu(mtu).start().unwrap();
        let pod = |name: &str, node| {
            lab.add_pod(
                &PodSpec::new("default", name, node)
                    .port(TCP, "")
                    .port(UDP, ""),
            )
            .unwrap()
        };
        let (here, near, far) = (pod("here", 0), pod("near", 0), pod("far", 1));
        assert_eq!(here.result["interfaces"].as_array().map(Vec::len), Some(2));
        let mtus: Vec<u64> = here.result["interfaces"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|interface| interface["mtu"].as_u64())
            .collect();
        assert!(
            mtus.iter().all(|found| *found == u64::from(mtu)),
            "{mtus:?}"
        );
        for to in [&near, &far] {
            for address in [to.v4(), to.v6()] {
                // The greeting and IP and UDP headers ride along: one whole packet.
                for (proto, bytes) in [(Proto::Tcp, 300_000), (Proto::Udp, mtu - 120)] {
                    let probe = Probe::new(address, 8080, proto)
                        .bytes(bytes)
                        .timeout_ms(4000);
                    let outcome = here.probe(probe).unwrap();
                    assert!(
                        answered_by(&outcome, &to.key()),
                        "{mtu} {address} {proto:?}: {outcome:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn pods_and_hosts_outside_the_cluster_reach_each_other() {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let pod = lab
        .add_pod(&PodSpec::new("default", "p", 0).port(TCP, "").port(UDP, ""))
        .unwrap();
    for (address, own) in [("203.0.113.10", pod.v4()), ("2001:db8::10", pod.v6())] {
        let outside = lab
            .add_outside(address.parse().unwrap(), &[TCP, UDP])
            .unwrap();
        for proto in [Proto::Tcp, Proto::Udp] {
            let out = pod
                .probe(Probe::new(address.parse().unwrap(), 8080, proto).timeout_ms(4000))
                .unwrap();
            assert!(answered_by(&out, &format!("ip:{address}")), "{out:?}");
            let back = outside
                .probe(Probe::new(own, 8080, proto).timeout_ms(4000))
                .unwrap();
            assert!(answered_by(&back, &pod.key()), "{back:?}");
        }
    }
}
