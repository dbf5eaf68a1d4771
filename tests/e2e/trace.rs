//! `weir policy trace` on a live lab: the report, and what the kernels of both nodes say.

use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_abi::counter::Counter;
use weir_abi::map;
use weir_lab::{Lab, Listen, Outcome, PodSpec, Probe, Proto};
use weir_tests::maps::Snapshot;

const TCP: Listen = Listen {
    proto: Proto::Tcp,
    port: 8080,
};
const VIPS: [&str; 2] = ["10.96.9.9", "fd00:10:96::99"];

fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": name}, "spec": spec,
    })
}

/// `client` and `near` on the first node, `far` on the second; servers take `client` on 8080 only.
fn world() -> Lab {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let deny = json!({"podSelector": {"matchLabels": {"app": "server"}}});
    lab.cluster.apply(&policy("deny", &deny)).unwrap();
    let allow = json!({
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
                     "ports": [{"port": 8080}]}],
    });
    lab.cluster.apply(&policy("allow", &allow)).unwrap();
    let client = PodSpec::new("default", "client", 0).label("app", "client");
    lab.add_pod(&client).unwrap();
    let servers = [("near", 0), ("far", 1)].map(|(name, node)| {
        let spec = PodSpec::new("default", name, node).label("app", "server");
        lab.add_pod(&spec.port(TCP, "http")).unwrap()
    });
    let ports = json!([{"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP"}]);
    lab.cluster
        .apply(&json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "default", "name": "server"},
            "spec": {"selector": {"app": "server"}, "clusterIP": VIPS[0], "clusterIPs": VIPS,
                     "ipFamilies": ["IPv4", "IPv6"], "ports": ports},
        }))
        .unwrap();
    for v4 in [true, false] {
        let endpoints: Vec<Value> = servers
            .iter()
            .map(|pod| {
                let address = if v4 { pod.v4() } else { pod.v6() };
                json!({"addresses": [address.to_string()], "conditions": {"ready": true},
                       "targetRef": {"kind": "Pod", "namespace": "default", "name": pod.name}})
            })
            .collect();
        lab.cluster
            .apply(&json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"namespace": "default", "name": if v4 { "s4" } else { "s6" },
                             "labels": {"kubernetes.io/service-name": "server"}},
                "addressType": if v4 { "IPv4" } else { "IPv6" },
                "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
                "endpoints": endpoints,
            }))
            .unwrap();
    }
    // Both nodes know all pods once the client is let in by both.
    let pods = lab.pods();
    let client = pods.iter().find(|pod| pod.name == "client").unwrap();
    for server in &servers {
        for address in [server.v4(), server.v6()] {
            let probe = Probe::new(address, 8080, Proto::Tcp).timeout_ms(5000);
            let outcome = client.probe(probe).unwrap();
            assert!(matches!(outcome, Outcome::Answer { .. }), "{outcome:?}");
        }
    }
    lab
}

/// Exit status, standard output, standard error of `weir policy trace ARGUMENTS` on the first node.
fn trace(lab: &Lab, arguments: &str) -> (i32, String, String) {
    let words = ["policy", "trace"].into_iter().chain(arguments.split(' '));
    let output: Output = lab.nodes[0].weir(&words.collect::<Vec<_>>()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn second(lab: &Lab) -> String {
    format!("--socket n2={}", lab.nodes[1].socket_inside())
}

#[test]
fn both_nodes_kernels_agree_with_the_objects_in_both_families() {
    let lab = world();
    let both = second(&lab);
    for family in ["IPv4", "IPv6"] {
        for (flow, code, kernels) in [
            (
                "client far --port 8080",
                0,
                [
                    "allow, no policy decides",
                    "allow, default/allow spec.ingress[0]",
                ],
            ),
            (
                "client far --port http",
                0,
                [
                    "allow, no policy decides",
                    "allow, default/allow spec.ingress[0]",
                ],
            ),
            (
                "client near --port 8081",
                1,
                [
                    "allow, no policy decides",
                    "deny, isolated by default/allow, default/deny",
                ],
            ),
            (
                "near far --port 8080",
                1,
                [
                    "allow, no policy decides",
                    "deny, isolated by default/allow, default/deny",
                ],
            ),
            (
                "client far --protocol icmp",
                1,
                [
                    "allow, no policy decides",
                    "deny, isolated by default/allow, default/deny",
                ],
            ),
            (
                "far near --port 8080/udp",
                1,
                [
                    "allow, no policy decides",
                    "deny, isolated by default/allow, default/deny",
                ],
            ),
        ] {
            let arguments = format!("{flow} --family {family} --require-kernel {both}");
            let (status, out, err) = trace(&lab, &arguments);
            assert_eq!(status, code, "{arguments}: {out}{err}");
            for kernel in kernels {
                let line = format!("  kernel: agrees ({kernel})\n");
                assert!(out.contains(&line), "{arguments}: {line} is not in {out}");
            }
        }
        // Every backend of a Service is asked for, on its own node.
        let arguments =
            format!("client svc:server --port web --family {family} --require-kernel {both}");
        let (status, out, err) = trace(&lab, &arguments);
        assert_eq!(status, 0, "{out}{err}");
        assert!(
            out.contains("; kernel: egress agrees, ingress agrees\n"),
            "{out}"
        );
    }
}

#[test]
fn an_end_that_was_not_asked_says_so() {
    let lab = world();
    let (status, out, _) = trace(&lab, "client far --port 8080");
    assert_eq!(status, 0);
    assert!(
        out.contains("  kernel: agrees (allow, no policy decides)\n"),
        "{out}"
    );
    assert!(out.contains("  kernel: not asked (node n2)\n"), "{out}");
    let (status, _, err) = trace(&lab, "client far --port 8080 --require-kernel");
    assert_eq!(status, 2);
    assert!(err.contains("was not asked"), "{err}");
    // What no map judges is not missing.
    let (status, out, err) = trace(&lab, "node:n1 near --port 8080 --require-kernel");
    assert_eq!(status, 0, "{out}{err}");
    let (status, out, err) = trace(&lab, "ip:203.0.113.9 near --port 8080 --require-kernel");
    assert_eq!(status, 1, "{out}{err}");
}

#[test]
fn with_the_agent_killed_the_pinned_maps_answer() {
    let lab = world();
    lab.nodes[0].kill_agent();
    let both = second(&lab);
    // The other node's agent tells the objects; this node's maps are read.
    let (status, out, err) = trace(
        &lab,
        &format!("client far --port 8080 --require-kernel {both}"),
    );
    assert_eq!(status, 0, "{out}{err}");
    assert_eq!(out.matches("kernel: agrees").count(), 2, "{out}");
    assert!(err.contains("n2's agent"), "{err}");
    // Or manifests do.
    let files = tempfile::tempdir().unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": lab.cluster.objects().unwrap()});
    let file = files.path().join("all.json");
    std::fs::write(&file, list.to_string()).unwrap();
    let file = file.display();
    let offline = format!("client near --port 8081 -f {file}");
    let (status, out, _) = trace(&lab, &offline);
    assert_eq!(
        (status, out.matches("kernel: not asked").count()),
        (1, 2),
        "{out}"
    );
    let (status, out, err) = trace(&lab, &format!("{offline} --require-kernel"));
    assert_eq!(status, 1, "{out}{err}");
    assert!(
        out.contains("agrees (deny, isolated by default/allow, default/deny)"),
        "{out}"
    );
    let (status, _, err) = trace(
        &lab,
        &format!("{offline} --require-kernel --bpffs /nowhere"),
    );
    assert_eq!(status, 2);
    assert!(err.contains("/nowhere"), "{err}");
}

#[test]
fn objects_that_say_something_else_than_the_kernel_are_a_disagreement() {
    let lab = world();
    let objects = lab.cluster.objects().unwrap().into_iter();
    let without: Vec<Value> = objects.filter(|o| o["kind"] != "NetworkPolicy").collect();
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("open.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": without});
    std::fs::write(&file, list.to_string()).unwrap();
    for (flow, disagrees) in [("near client", false), ("far near", true)] {
        for family in ["IPv4", "IPv6"] {
            let arguments = format!(
                "{flow} --port 9 --family {family} -f {} {}",
                file.display(),
                second(&lab)
            );
            let (status, out, err) = trace(&lab, &arguments);
            assert_eq!(
                status,
                if disagrees { 3 } else { 0 },
                "{arguments}: {out}{err}"
            );
            assert_eq!(
                out.contains("kernel: DISAGREES (deny, isolated by"),
                disagrees,
                "{out}"
            );
        }
    }
}

/// The maps of the first node. Of the counters those of judged packets: what pods' kernels say by
/// themselves goes on meanwhile.
fn maps(lab: &Lab) -> Snapshot {
    let pins = lab.nodes[0].path(&format!("{}/v1/maps", weir_api::DEFAULT_BPFFS));
    let mut maps = weir_tests::maps::pinned(&pins).unwrap();
    let judged = [
        Counter::Delivered,
        Counter::Forwarded,
        Counter::DropPolicyIngress,
        Counter::DropPolicyEgress,
        Counter::DropNoRow,
        Counter::RefusedNoEndpoint,
    ]
    .map(|counter| (counter as u32).to_be_bytes().to_vec());
    let counters = maps.get_mut(map::COUNTERS).unwrap();
    counters.retain(|index, _| judged.contains(index));
    assert_eq!(counters.len(), judged.len());
    maps
}

/// A flow, the exit status, and what the programs at both ends say.
const PACKETS: [(&str, i32, [&str; 2]); 6] = [
    (
        "client near --port 8080",
        0,
        [
            "allow, no policy decides; delivered",
            "allow, default/allow spec.ingress[0]; delivered",
        ],
    ),
    (
        "client far --port http",
        0,
        [
            "allow, no policy decides; sent to another node",
            "allow, default/allow spec.ingress[0]; delivered",
        ],
    ),
    (
        "client near --port 8081",
        1,
        [
            "allow, no policy decides; dropped: policy-ingress",
            "deny, isolated by default/allow, default/deny; dropped: policy-ingress",
        ],
    ),
    (
        "far near --port 8080/udp",
        1,
        [
            "allow, no policy decides; sent to another node",
            "deny, isolated by default/allow, default/deny; dropped: policy-ingress",
        ],
    ),
    (
        "near far --protocol icmp",
        1,
        [
            "allow, no policy decides; sent to another node",
            "deny, isolated by default/allow, default/deny; dropped: policy-ingress",
        ],
    ),
    (
        "near client --port 9/sctp",
        0,
        [
            "allow, no policy decides; delivered",
            "allow, no policy decides; delivered",
        ],
    ),
];

/// The same, once nothing of the probes' connections is under way any more.
fn quiet_maps(lab: &Lab) -> Snapshot {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut last = maps(lab);
    loop {
        let now = maps(lab);
        if now == last {
            return now;
        }
        assert!(Instant::now() < deadline, "the maps go on changing");
        last = now;
    }
}

/// Traces with `--live` that must come to this, and leave no trace.
fn live(lab: &Lab, more: &str) {
    let before = quiet_maps(lab);
    // The connections of the probes, which have ended by now.
    assert!(!before[map::CT_NEW].is_empty());
    for family in ["IPv4", "IPv6"] {
        for (flow, code, programs) in PACKETS {
            let arguments = format!("{flow} --family {family} --live --require-kernel {more}");
            let (status, out, err) = trace(lab, &arguments);
            assert_eq!(status, code, "{arguments}: {out}{err}");
            for program in programs {
                let line = format!("  program: {program}\n");
                assert!(out.contains(&line), "{arguments}: {line} is not in {out}");
            }
            assert_eq!(out.matches("kernel: agrees").count(), 2, "{out}");
        }
        // By the Service's address, as the socket hooks would not translate it.
        let service = format!(
            "client svc:server --port web --family {family} --live --require-kernel {more}"
        );
        let (status, out, err) = trace(lab, &service);
        assert_eq!(status, 0, "{out}{err}");
        assert!(out.contains("; backend pod default/"), "{out}");
        // From outside, and from the node itself.
        let outside = if family == "IPv4" {
            "203.0.113.9"
        } else {
            "2001:db8::9"
        };
        let (status, out, err) = trace(lab, &format!("{outside} near --port 8080 --live {more}"));
        assert_eq!(status, 1, "{out}{err}");
        assert!(out.contains("; dropped: policy-ingress\n"), "{out}");
        let own = format!("node:n1 near --port 8080 --family {family} --live {more}");
        let (status, out, err) = trace(lab, &own);
        assert_eq!(status, 0, "{out}{err}");
        let line = "  program: not judged; left to the node's stack\n";
        assert!(out.contains(line), "{out}");
    }
    let after = maps(lab);
    for (name, content) in &before {
        assert!(&after[name] == content, "map {name} has changed");
    }
    assert_eq!(after.len(), before.len());
}

#[test]
fn a_packet_through_the_loaded_programs_says_the_same_and_leaves_no_trace() {
    let lab = world();
    let both = second(&lab);
    live(&lab, &both);
    // The agent is down: its pinned maps, and the object that is part of `weir`.
    lab.nodes[0].kill_agent();
    live(&lab, &both);
    let missing = format!("client near --port 8080 --live --bpffs /nowhere {both}");
    let (status, out, _) = trace(&lab, &missing);
    assert_eq!(status, 0);
    assert_eq!(out.matches("  program: not asked").count(), 2, "{out}");
}
