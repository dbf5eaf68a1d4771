//! A pod's "port unreachable" comes back to whoever asked, through every translation of the question.

use serde_json::json;
use weir_lab::{Backend, Lab, Outcome, PodSpec, Probe, Proto, ServiceSpec};

use crate::services_world::{FAMILIES, NODE_PORT, PORT, TARGET, VIPS, client, eventually, vip};

/// Everybody may send UDP to and from pods and nothing else: an error comes in with its flow or not at all.
fn isolate(lab: &Lab) {
    let udp = json!([{"ports": [{"protocol": "UDP"}]}]);
    lab.cluster
        .apply(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "default", "name": "udp-only"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                     "ingress": udp, "egress": udp},
        }))
        .unwrap();
}

fn is_told(mode: &str, isolated: bool) {
    let lab = Lab::builder()
        .nodes(2)
        .unrouted()
        .agent_arg(mode)
        .start()
        .unwrap();
    if isolated {
        isolate(&lab);
    }
    let outside = lab.add_client(0).unwrap();
    // Pods that listen on nothing.
    let backends =
        [0, 1].map(|node| lab.add_pod(&PodSpec::new("default", &format!("b{node}"), node)));
    let backends = backends.map(Result::unwrap);
    let spec = ServiceSpec::new("web", VIPS).port(Proto::Udp, PORT, TARGET, NODE_PORT);
    spec.apply(&lab).unwrap();
    let pods = [true, false].map(|covered| {
        let name = if covered { "covered" } else { "uncovered" };
        client(&lab, name, 0, covered)
    });
    let host = lab.add_host_server(0, &[]).unwrap();
    for backend in &backends {
        spec.set_backends(&lab, &[Backend::ready(backend)]).unwrap();
        for v4 in FAMILIES {
            let own = if v4 { backend.v4() } else { backend.v6() };
            let node = lab.nodes[0].addresses[usize::from(!v4)];
            let asks = [
                (&outside.control, node, NODE_PORT),
                (&pods[0].control, vip(v4), PORT),
                (&pods[1].control, vip(v4), PORT),
                (&pods[0].control, own, TARGET),
                (&host, vip(v4), PORT),
            ];
            for (from, to, port) in asks {
                let probe = Probe::udp(to, port).timeout_ms(2000);
                let came = || {
                    let seen = backend.seen().unwrap();
                    seen.iter().filter(|seen| seen.port == TARGET).count()
                };
                // Until the backend is in force, the node itself refuses, or the other pod does.
                eventually(|| {
                    let before = came();
                    let outcome = from.probe(probe).unwrap();
                    let told = outcome == Outcome::Refused && came() > before;
                    told.then_some(()).ok_or(format!(
                        "{mode} {from:?} to {to}, {}: {outcome:?}",
                        backend.key()
                    ))
                });
            }
        }
    }
}

#[test]
fn a_closed_port_behind_a_service_is_told_to_pods_nodes_and_clients_outside() {
    is_told("--mode=native", false);
}

#[test]
fn a_closed_port_behind_a_service_is_told_over_the_overlay_to_isolated_pods_as_well() {
    is_told("--mode=vxlan", true);
}
