//! Another object, other sizes, other programs on the device: what changes is replaced in place.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use weir_api::status::Activity;
use weir_lab::node::Node;
use weir_lab::spawn::run_in;
use weir_lab::{Exchange, Lab, Listen, Outcome, Pod, PodSpec, Probe, Proto};

const MAPS: &str = "/sys/fs/bpf/weir/v1/maps";

fn two_pods(lab: &Lab) -> [std::sync::Arc<Pod>; 2] {
    [("server", 8080), ("client", 8081)].map(|(name, port)| {
        let spec = [Proto::Tcp, Proto::Udp]
            .into_iter()
            .fold(PodSpec::new("default", name, 0), |spec, proto| {
                spec.port(Listen { proto, port }, "")
            });
        lab.add_pod(&spec).unwrap()
    })
}

/// The object of the build, with a byte behind it that means nothing: another object to the agent.
fn another_object() -> (tempfile::TempDir, PathBuf) {
    let mut bytes = weir_agent::dataplane::object::bytes(None)
        .unwrap()
        .into_owned();
    bytes.push(0);
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("other.o");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn activity(node: &Node) -> Activity {
    node.client().status().unwrap().activity
}

fn size_of(node: &Node, map: &str) -> u32 {
    let path = node.path(&format!("{MAPS}/{map}"));
    weir_net::bpf::map_info_pinned(path).unwrap().max_entries
}

/// Restarts the agent with these arguments while a TCP and a UDP exchange run between the pods.
fn restart_amid_traffic(lab: &Lab, args: &[&str]) {
    let [server, client] = two_pods(lab);
    let node = &lab.nodes[0];
    // The devices are new: what is asked here is what a restart does to pods that work.
    let answers = |ip| {
        let outcome = client.probe(Probe::tcp(ip, 8080).timeout_ms(3000)).unwrap();
        assert!(matches!(outcome, Outcome::Answer { .. }), "{outcome:?}");
    };
    answers(server.v4());
    answers(server.v6());
    let exchanges: Vec<_> = [server.v4(), server.v6()]
        .into_iter()
        .flat_map(|ip| [(ip, Proto::Tcp), (ip, Proto::Udp)])
        .map(|(ip, proto)| {
            let target = SocketAddr::new(ip, 8080);
            let exchange = Exchange {
                target,
                proto,
                every_ms: 3,
            };
            (exchange, client.exchange(exchange).unwrap())
        })
        .collect();
    node.stop_agent().unwrap();
    node.set_agent_args(args);
    node.start_agent().unwrap();
    // Some more after the restart, on new connections as well.
    for _ in 0..20 {
        answers(server.v4());
    }
    for (exchange, running) in exchanges {
        let report = running.stop().unwrap();
        assert_eq!(
            report.error,
            None,
            "{exchange:?}: {report:?}\n{}",
            node.log_tail(60)
        );
        assert!(report.received > 5, "{exchange:?}: {report:?}");
        assert!(
            report.sent - report.received <= 1,
            "{exchange:?}: {report:?}"
        );
    }
}

#[test]
fn another_object_replaces_every_program_in_place_while_traffic_runs() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    let links = node.path("/sys/fs/bpf/weir/v1/links");
    let (_dir, object) = another_object();
    restart_amid_traffic(&lab, &["--ebpf-object", object.to_str().unwrap()]);
    let Activity {
        programs_replaced,
        links_changed,
        ..
    } = activity(node);
    let count = std::fs::read_dir(&links).unwrap().count();
    assert!(programs_replaced >= 3);
    assert_eq!(
        links_changed, count as u64,
        "every link has its new program"
    );
    crate::grow::links_are_current(node);
}

#[test]
fn a_map_gets_its_new_size_in_place_and_keeps_its_entries_while_traffic_runs() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    let ids = size_of(node, "IDS");
    restart_amid_traffic(&lab, &["--max-ids", "1000", "--max-intervals", "5000"]);
    assert_ne!(ids, 1000);
    assert_eq!(
        (size_of(node, "IDS"), size_of(node, "INTERVALS")),
        (1000, 5000)
    );
    assert!(!node.path(&format!("{MAPS}/IDS-next")).exists());
    // The same sizes again: nothing to do.
    node.stop_agent().unwrap();
    node.start_agent().unwrap();
    assert_eq!(activity(node), Activity::default());
}

#[test]
fn a_size_below_what_is_in_use_is_refused_by_name_and_nothing_is_lost() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    let [server, client] = two_pods(&lab);
    for number in 0..30 {
        lab.cluster
            .apply(&serde_json::json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": "default", "name": format!("p{number}")},
                "spec": {"podSelector": {}, "ingress": [{
                    "from": [{"ipBlock": {"cidr": format!("192.0.2.{number}/32")}}],
                    "ports": [{"port": 8000 + number}],
                }, {"ports": [{"port": 8080}]}]},
            }))
            .unwrap();
    }
    let answers = || {
        let outcome = client.probe(Probe::tcp(server.v6(), 8080)).unwrap();
        matches!(outcome, Outcome::Answer { .. })
    };
    let view = || weir_agent::dataplane::PinnedView::open(&node.path("/sys/fs/bpf/weir")).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while node.client().endpoints().unwrap()[0]
        .ingress
        .isolated_by
        .len()
        < 30
    {
        assert!(
            std::time::Instant::now() < deadline,
            "the policies are not in force"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(answers());
    node.stop_agent().unwrap();
    node.set_agent_args(&["--max-rules", "16"]);
    node.launch_agent().unwrap();
    let failed = node
        .await_ready(std::time::Duration::from_secs(20))
        .unwrap_err()
        .to_string();
    assert!(
        failed.contains("RULES") && failed.contains("--max-rules"),
        "{failed}"
    );
    assert_eq!(view().endpoints().unwrap().len(), 2);
    assert!(answers(), "what was in force stays so");
    node.set_agent_args(&[]);
    node.start_agent().unwrap();
    assert!(answers());
    assert_ne!(size_of(node, "RULES"), 16);
}

#[test]
fn a_foreign_program_ahead_of_ours_is_reported_with_its_device() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    two_pods(&lab);
    let endpoint = node.client().endpoints().unwrap().remove(0);
    let device = endpoint.attachment.host_ifname;
    // Our own program, loaded a second time, is as foreign as any.
    run_in(&node.place(), || {
        let bytes = weir_agent::dataplane::object::bytes(None)?;
        let mut ebpf = aya::EbpfLoader::new()
            .verifier_log_level(aya::VerifierLogLevel::DISABLE)
            .load(&bytes)?;
        let program = ebpf.program_mut("to_pod").unwrap();
        let program: &mut aya::programs::SchedClassifier = program.try_into()?;
        program.load()?;
        let first = aya::programs::tc::TcAttachOptions::TcxOrder(aya::programs::LinkOrder::first());
        program.attach_with_options(&device, aya::programs::TcAttachType::Egress, first)?;
        // A restart looks at once instead of after half a minute.
        node.stop_agent()?;
        node.start_agent()?;
        let degraded = node.client().status()?.degraded.join("\n");
        anyhow::ensure!(
            degraded.contains(&device) && degraded.contains("foreign"),
            "{degraded}"
        );
        Ok(())
    })
    .unwrap();
}

#[test]
fn pins_of_another_shape_or_layout_are_refused_with_the_remedy() {
    let lab = Lab::builder().nodes(1).without_agents().start().unwrap();
    let node = &lab.nodes[0];
    let maps = node.path(MAPS);
    std::fs::create_dir_all(&maps).unwrap();
    let mut create = Command::new("bpftool");
    create.args([
        "map",
        "create",
        &format!("{MAPS}/COUNTERS"),
        "type",
        "hash",
        "key",
        "4",
    ]);
    create.args(["value", "8", "entries", "7", "name", "COUNTERS"]);
    let made = node.run(create, b"").unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let failure = || {
        node.launch_agent().unwrap();
        node.await_ready(std::time::Duration::from_secs(20))
            .unwrap_err()
            .to_string()
    };
    let message = failure();
    assert!(
        message.contains("COUNTERS") && message.contains("drain the node"),
        "{message}"
    );
    std::fs::remove_file(maps.join("COUNTERS")).unwrap();
    let other = node.path("/sys/fs/bpf/weir/v7");
    std::fs::create_dir(&other).unwrap();
    let message = failure();
    assert!(
        message.contains("weir/v7") && message.contains("another layout"),
        "{message}"
    );
    std::fs::remove_dir(other).unwrap();
    node.start_agent().unwrap();
}
