//! ADD with the real agent: when it is answered, and what is left when it is refused.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_lab::control::Control;
use weir_lab::node::Node;
use weir_lab::runtime::{self, Attachment, Call};
use weir_lab::spawn::{Place, run_in};
use weir_lab::{Lab, Listen, Outcome, PodSpec, Probe, Proto};

/// A network namespace as a runtime makes it before ADD.
struct Sandbox {
    control: Arc<Control>,
    attachment: Attachment,
}

fn sandbox(node: &Node, id: &str, pod: Option<(&str, &str)>) -> Sandbox {
    let place = Place {
        net: None,
        ..node.place()
    }
    .with_new_net();
    let place = place.in_cgroup(&node.cgroup.join("pods")).unwrap();
    let control = Arc::new(Control::start(id, place).unwrap());
    // It answers only once it is in its namespace.
    control
        .listen(&[Listen {
            proto: Proto::Tcp,
            port: 8080,
        }])
        .unwrap();
    let attachment = Attachment {
        container_id: format!("container-{id}"),
        netns: format!("/proc/{}/ns/net", control.pid()),
        pod: pod.map(|(name, uid)| ("default".to_owned(), name.to_owned(), uid.to_owned())),
    };
    Sandbox {
        control,
        attachment,
    }
}

fn add(node: &Node, sandbox: &Sandbox) -> Call {
    runtime::call(node, "ADD", &sandbox.attachment, &runtime::config(node)).unwrap()
}

fn pod(lab: &Lab, name: &str, uid: &str, labels: Value) {
    lab.cluster
        .apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": name, "uid": uid, "labels": labels},
            "spec": {"nodeName": lab.nodes[0].name, "containers": []},
        }))
        .unwrap();
}

/// Names of the devices on the node that are Weir's.
fn devices(node: &Node) -> Vec<String> {
    run_in(&node.place(), || {
        let links = weir_net::Netlink::open()?.links()?;
        Ok(links
            .into_iter()
            .map(|l| l.name)
            .filter(|n| n.starts_with("weir"))
            .collect())
    })
    .unwrap()
}

fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn nothing_is_left(node: &Node) {
    assert_eq!(node.client().endpoints().unwrap(), []);
    assert_eq!(devices(node), [] as [String; 0]);
    let view = weir_agent::dataplane::PinnedView::open(&node.path("/sys/fs/bpf/weir")).unwrap();
    assert_eq!(view.endpoints().unwrap().len(), 0);
    let links = std::fs::read_dir(node.path("/sys/fs/bpf/weir/v1/links")).unwrap();
    let links = links.map(|l| l.unwrap().file_name().into_string().unwrap());
    assert_eq!(links.filter(|l| l.starts_with("ep-")).count(), 0);
}

#[test]
fn an_add_waits_for_its_pod_and_succeeds_once_it_is_known() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    let sandbox = sandbox(node, "late", Some(("late", "uid-1")));
    thread::scope(|scope| {
        let call = scope.spawn(|| add(node, &sandbox));
        await_that("the agent was asked", || {
            node.log().contains("adoption asked for")
        });
        assert!(!call.is_finished());
        pod(&lab, "late", "uid-1", json!({}));
        call.join().unwrap().ok().unwrap();
    });
    let endpoints = node.client().endpoints().unwrap();
    assert_eq!(endpoints.len(), 1);
    assert!(endpoints[0].attached);
}

#[test]
fn an_add_for_a_pod_that_never_comes_is_told_to_try_again_and_leaves_nothing() {
    let lab = Lab::builder()
        .nodes(1)
        .agent_arg("--adopt-timeout")
        .agent_arg("300ms");
    let lab = lab.start().unwrap();
    let node = &lab.nodes[0];
    let call = add(node, &sandbox(node, "never", Some(("never", "uid-1"))));
    assert_eq!(call.error_code(), Some(11), "{call:?}");
    assert!(
        call.stdout.to_string().contains("default/never"),
        "{call:?}"
    );
    nothing_is_left(node);
}

#[test]
fn an_add_with_a_stale_uid_is_refused_and_leaves_nothing() {
    let lab = Lab::builder()
        .nodes(1)
        .agent_arg("--adopt-timeout")
        .agent_arg("300ms");
    let lab = lab.start().unwrap();
    let node = &lab.nodes[0];
    pod(&lab, "web", "uid-new", json!({}));
    let call = add(node, &sandbox(node, "stale", Some(("web", "uid-old"))));
    assert_eq!(call.error_code(), Some(11), "{call:?}");
    let text = call.stdout.to_string();
    assert!(
        text.contains("uid-new") && text.contains("uid-old"),
        "{text}"
    );
    nothing_is_left(node);
    add(node, &sandbox(node, "fresh", Some(("web", "uid-new"))))
        .ok()
        .unwrap();
}

#[test]
fn an_attachment_without_a_pod_is_adopted_selected_by_nothing_and_listed() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    lab.cluster.apply(&deny_all()).unwrap();
    let sandbox = sandbox(node, "podman", None);
    add(node, &sandbox).ok().unwrap();
    let endpoints = node.client().endpoints().unwrap();
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].attachment.pod, None);
    assert_eq!(
        (endpoints[0].ingress.group, endpoints[0].egress.group),
        (1, 1)
    );
}

fn deny_all() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": "deny-all"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    })
}

fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().unwrap().iter();
    ips.map(|ip| {
        ip["address"]
            .as_str()
            .unwrap()
            .split('/')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    })
    .collect()
}

#[test]
fn a_pod_is_never_unprotected_not_even_with_its_first_packet() {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let attackers = [0, 1].map(|n| {
        lab.add_pod(&PodSpec::new("other", &format!("attacker-{n}"), n))
            .unwrap()
    });
    lab.cluster.apply(&deny_all()).unwrap();
    let node = &lab.nodes[0];
    await_that("the policy is known", || {
        node.client().status().unwrap().counts.policies == 1
    });
    for number in 0..3 {
        let name = format!("victim-{number}");
        pod(&lab, &name, &name, json!({}));
        let sandbox = sandbox(node, &name, Some((&name, &name)));
        let result = add(node, &sandbox).ok().unwrap();
        for address in addresses(&result) {
            for attacker in &attackers {
                let outcome = attacker
                    .probe(Probe::tcp(address, 8080).timeout_ms(300))
                    .unwrap();
                assert!(
                    matches!(outcome, Outcome::Timeout { .. }),
                    "{name}: {outcome:?}"
                );
            }
        }
        assert_eq!(sandbox.control.seen().unwrap(), [], "{name}");
    }
}

#[test]
fn sixty_four_adds_at_once_are_all_adopted_each_with_a_slot_of_its_own() {
    let lab = Lab::builder()
        .nodes(1)
        .agent_arg("--adopt-timeout")
        .agent_arg("25s");
    let lab = lab.start().unwrap();
    let node = &lab.nodes[0];
    let sandboxes: Vec<Sandbox> = (0..64)
        .map(|n| {
            let name = format!("p{n}");
            pod(&lab, &name, &name, json!({"n": name}));
            sandbox(node, &name, Some((&name, &name)))
        })
        .collect();
    thread::scope(|scope| {
        let calls: Vec<_> = sandboxes
            .iter()
            .map(|sandbox| scope.spawn(move || add(node, sandbox)))
            .collect();
        for call in calls {
            call.join().unwrap().ok().unwrap();
        }
    });
    let endpoints = node.client().endpoints().unwrap();
    let mut slots: Vec<u32> = endpoints.iter().map(|e| e.slot).collect();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!((endpoints.len(), slots.len()), (64, 64));
    assert!(endpoints.iter().all(|e| e.attached));
}

#[test]
fn a_device_that_goes_takes_its_endpoint_along() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    // Held to the end: the device would go with its namespace as well.
    let sandbox = sandbox(node, "gone", None);
    add(node, &sandbox).ok().unwrap();
    let device = devices(node).remove(0);
    run_in(&node.place(), || {
        Ok(weir_net::Netlink::open()?.delete_link(&device)?)
    })
    .unwrap();
    await_that("the endpoint goes", || {
        node.client().endpoints().unwrap().is_empty()
    });
    nothing_is_left(node);
}

#[test]
fn a_manifest_that_stops_parsing_is_reported_by_line_and_its_policy_stays_in_force() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    let listen = Listen {
        proto: Proto::Tcp,
        port: 8080,
    };
    let server = lab
        .add_pod(&PodSpec::new("default", "server", 0).port(listen, "web"))
        .unwrap();
    let client = lab.add_pod(&PodSpec::new("default", "client", 0)).unwrap();
    let answers = || {
        let probe = Probe::tcp(server.v6(), 8080).timeout_ms(300);
        matches!(client.probe(probe).unwrap(), Outcome::Answer { .. })
    };
    await_that("the way is open", answers);
    let file = lab.path("/run/weir-lab/source/policy.yaml");
    let write = |text: &str| {
        let temporary = file.with_file_name(".policy.yaml");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(&temporary, &file).unwrap();
    };
    write(&format!("{}\n", deny_all()));
    await_that("the way is closed", || !answers());
    write("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: [}\n");
    let degraded = || node.client().status().unwrap().degraded;
    await_that("the status names it", || {
        degraded().iter().any(|p| p.contains("policy.yaml:3"))
    });
    assert!(!answers(), "the policy was dropped");
    std::fs::remove_file(&file).unwrap();
    await_that("the way is open again", answers);
    assert_eq!(degraded(), [] as [String; 0]);
}
