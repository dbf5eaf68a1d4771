//! `weir policy verify` and the agent's own comparison, on tables that are right and on damaged ones.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_abi::map;
use weir_abi::policy::{Decision, DecisionKey, RuleVerdict};
use weir_agent::dataplane::pins::Pins;
use weir_agent::dataplane::table::{Table, Writes};
use weir_lab::node::Node;
use weir_lab::spawn::run_in;
use weir_lab::{Lab, PodSpec};

const ALLOW: u32 = 1 << 31;

/// `server` and `client` on the first node, `far` on the second; servers take `client` on 8080 only.
fn world() -> Lab {
    let lab = Lab::builder()
        .nodes(2)
        .agent_arg("--verify-interval")
        .agent_arg("200ms");
    let lab = lab.start().unwrap();
    let policy = |name: &str, spec: Value| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
               "metadata": {"namespace": "default", "name": name}, "spec": spec})
    };
    let servers = json!({"matchLabels": {"app": "server"}});
    let allow = json!({"podSelector": servers, "ingress": [
        {"from": [{"podSelector": {"matchLabels": {"app": "client"}}},
                  {"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25"]}}],
         "ports": [{"port": 8080}, {"port": 9000, "endPort": 9010, "protocol": "UDP"}]}]});
    lab.cluster.apply(&policy("allow", allow)).unwrap();
    let deny = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                      "egress": [{"to": [{"podSelector": {}}]}]});
    lab.cluster.apply(&policy("deny", deny)).unwrap();
    for (name, app, node) in [
        ("client", "client", 0),
        ("server", "server", 0),
        ("far", "client", 1),
    ] {
        lab.add_pod(&PodSpec::new("default", name, node).label("app", app))
            .unwrap();
    }
    lab
}

/// Exit status, standard output and standard error.
fn verify(node: &Node, arguments: &[&str]) -> (i32, String, String) {
    let words = ["policy", "verify"].iter().chain(arguments).copied();
    let output = node.weir(&words.collect::<Vec<_>>()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output.status.code().unwrap(), out, err)
}

/// A sample without labels of the agent's metrics.
fn metric(node: &Node, name: &str) -> f64 {
    let page = run_in(&node.place(), || {
        let mut stream = TcpStream::connect("127.0.0.1:9965")?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    });
    let page = page.unwrap();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in {page}"))
        .parse()
        .unwrap()
}

fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn decisions(node: &Node) -> Table<DecisionKey, Decision> {
    let pins = Pins::new(&node.path("/sys/fs/bpf/weir"));
    Table::open(&pins, map::DECISIONS, &Writes::default()).unwrap()
}

#[test]
fn tables_that_are_right_agree_with_the_agent_up_and_down() {
    let lab = world();
    let [node, other] = &lab.nodes[..] else {
        panic!("two nodes")
    };
    await_that("the other node's pod is known", || verify(node, &[]).0 == 0);
    for node in [node, other] {
        let (code, out, err) = verify(node, &[]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.contains("kernel and objects agree: "), "{out}");
    }
    let (code, out, _) = verify(node, &["-o", "json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &document["disagreements"]), (0, &json!([])));
    assert_eq!(document["complete"], true);
    assert!(
        document["flowsCompared"].as_u64().unwrap() > 300,
        "{document}"
    );
    let (code, out, _) = verify(node, &["--limit", "10"]);
    assert!(code == 0 && out.contains("stopped at --limit"), "{out}");

    await_that("the agent has compared everything", || {
        metric(node, "weir_policy_verify_last_pass_timestamp_seconds") > 0.0
    });
    assert!(metric(node, "weir_policy_verify_checked_total") > 300.0);
    assert_eq!(metric(node, "weir_policy_verify_disagreements"), 0.0);

    node.stop_agent().unwrap();
    let (code, _, err) = verify(node, &[]);
    assert!(code == 2 && err.contains("--manifests"), "{err}");
    let objects = lab.cluster.objects().unwrap();
    let file = node.path("/tmp/objects.json");
    std::fs::write(
        &file,
        json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string(),
    )
    .unwrap();
    let (code, out, err) = verify(node, &["--manifests", "/tmp/objects.json"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_row_that_is_flipped_by_hand_is_named_and_the_agents_metric_shows_it() {
    let lab = world();
    let node = &lab.nodes[0];
    await_that("all pods are known", || verify(node, &[]).0 == 0);
    let mut table = decisions(node);
    let rows = table.entries().unwrap();
    // A row that denies everything now allows everything.
    let denies = |row: &Decision| row.len == 0 && !RuleVerdict(row.at).allowed();
    let (code, out, _) = verify(node, &["-o", "json"]);
    assert_eq!(code, 0, "{out}");
    let server = node.client().get::<Vec<Value>>("/v1/endpoints").unwrap();
    let server = server
        .iter()
        .find(|e| e["pod"]["name"] == "server")
        .unwrap();
    let group = server["ingress"]["group"].as_u64().unwrap() as u32;
    let found = rows
        .iter()
        .find(|(key, row)| key.group.0 == group && key.class.0 == 0 && denies(row));
    let (key, right) = found.unwrap();
    let wrong = Decision {
        at: right.at | ALLOW,
        len: 0,
    };
    table.insert(key, &wrong).unwrap();

    let (code, out, _) = verify(node, &[]);
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("DISAGREES default/server (") && out.contains("ingress from "),
        "{out}"
    );
    assert!(
        out.contains(
            "objects say deny (isolated by default/allow, default/deny); the kernel says allow ("
        ),
        "{out}"
    );
    await_that("the metric shows it", || {
        metric(node, "weir_policy_verify_disagreements") > 0.0
    });
    let status = node.client().status().unwrap();
    let told = status
        .degraded
        .iter()
        .find(|p| p.starts_with("policy verify: default/server"));
    assert!(
        told.is_some_and(|told| told.contains("more ports: objects say deny")),
        "{status:?}"
    );

    table.insert(key, right).unwrap();
    assert_eq!(verify(node, &[]).0, 0);
    await_that("the metric is well again", || {
        metric(node, "weir_policy_verify_disagreements") == 0.0
    });
    assert!(node.client().status().unwrap().degraded.is_empty());
}
