//! `weir policy trace` with agents: what the kernel says, and what that does to the exit status.

use serde_json::{Value, json};
use weir_agent::cli::Done;

use crate::agent::{FakeAgent, objects};
use crate::support::{SHOP, weir};

/// shop/db is on n1 and shop/job on n2; job → db is denied at db.
fn node(name: &str, verdicts: &[(&str, bool)]) -> FakeAgent {
    FakeAgent::start(name, objects(SHOP), verdicts)
}

fn trace(agent: &FakeAgent, arguments: &str) -> Done {
    weir(
        &format!("policy trace --socket {{}} {arguments}"),
        &agent.socket(),
    )
}

const DENIED: &str = "shop/job shop/db --port 5432";
const ALLOWED: &str = "shop/db 203.0.113.9 --port 443";

#[test]
fn this_nodes_kernel_is_asked_of_its_own_end_and_the_other_is_not() {
    let n1 = node("n1", &[("10.1.0.2", false)]);
    let done = trace(&n1, DENIED);
    assert_eq!(done.code, 1);
    assert!(
        done.stdout
            .contains("  kernel: agrees (deny, shop/k spec.ingress[0])\n"),
        "{}",
        done.stdout
    );
    assert!(
        done.stdout.contains("  kernel: not asked (node n2)\n"),
        "{}",
        done.stdout
    );
    assert_eq!(
        n1.asked(),
        [
            json!({"endpoint": "10.1.0.2", "direction": "ingress", "peer": "10.2.0.3", "protocol": 6, "port": 5432})
        ]
    );
}

#[test]
fn other_nodes_are_asked_by_their_sockets() {
    let n1 = node("n1", &[("10.1.0.2", false)]);
    let n2 = node("n2", &[("10.2.0.3", true)]);
    let other = format!(
        "--socket n2={} {DENIED} --require-kernel",
        n2.socket().display()
    );
    let done = trace(&n1, &other);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert_eq!(
        done.stdout.matches("kernel: agrees").count(),
        2,
        "{}",
        done.stdout
    );
    assert_eq!(n2.asked()[0]["direction"], "egress");
}

#[test]
fn a_disagreement_at_an_end_that_was_asked_exits_with_3() {
    for (arguments, verdict) in [(DENIED, true), (ALLOWED, false)] {
        let n1 = node("n1", &[("10.1.0.2", verdict)]);
        let done = trace(&n1, arguments);
        assert_eq!(done.code, 3, "{arguments}");
        assert!(done.stdout.contains("kernel: DISAGREES"), "{}", done.stdout);
        assert!(done.stdout.contains("group 16, class 3"), "{}", done.stdout);
        // Also if the other end could not be asked.
        assert_eq!(trace(&n1, &format!("--require-kernel {arguments}")).code, 3);
    }
}

#[test]
fn an_end_not_asked_exits_with_2_only_if_the_kernel_is_required() {
    let n1 = node("n1", &[("10.1.0.2", true)]);
    let on_n2 = "shop/job 203.0.113.9 --port 443";
    let done = trace(&n1, on_n2);
    assert_eq!(done.code, 0);
    assert!(
        done.stdout.contains("kernel: not asked (node n2)"),
        "{}",
        done.stdout
    );
    let done = trace(&n1, &format!("--require-kernel {on_n2}"));
    assert_eq!(done.code, 2);
    assert!(done.stderr.contains("was not asked"), "{}", done.stderr);
    assert_eq!(trace(&n1, &format!("--require-kernel {ALLOWED}")).code, 0);
}

#[test]
fn an_endpoint_that_its_node_does_not_know_is_not_asked() {
    let n1 = node("n1", &[]);
    let done = trace(&n1, DENIED);
    assert_eq!(done.code, 1);
    assert!(
        done.stdout
            .contains("kernel: not asked (node n1: 10.1.0.2 is no endpoint there)"),
        "{}",
        done.stdout
    );
}

#[test]
fn what_no_map_judges_is_not_asked_and_not_missed() {
    let n1 = node("n1", &[("10.1.0.2", false)]);
    let done = trace(&n1, "--require-kernel node:n1 shop/db --port 1");
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    assert!(
        done.stdout
            .contains("kernel: lets its node's own traffic pass unjudged"),
        "{}",
        done.stdout
    );
    assert!(n1.asked().is_empty());
}

#[test]
fn a_reply_is_asked_as_the_connection_it_answers() {
    let n1 = node("n1", &[("10.1.0.2", true)]);
    // job → db is denied at db, so the reply db → job is denied there: the kernel allows it.
    let done = trace(
        &n1,
        "shop/db shop/job --port 5432 --state reply --family IPv4",
    );
    assert_eq!(done.code, 3, "{}", done.stdout);
    assert_eq!(n1.asked()[0]["direction"], "ingress");
}

#[test]
fn ipv6_icmp_is_asked_by_its_own_number() {
    let n1 = node("n1", &[("fd01::2", true)]);
    trace(&n1, "shop/db shop/job --protocol icmp --family IPv6");
    let asked = &n1.asked()[0];
    assert_eq!(
        (&asked["protocol"], &asked["port"]),
        (&json!(58), &json!(0))
    );
    assert_eq!(asked["peer"], "fd02::3");
}

#[test]
fn json_says_what_the_kernel_said() {
    let n1 = node("n1", &[("10.1.0.2", true)]);
    let done = trace(&n1, &format!("{DENIED} -o json"));
    assert_eq!(done.code, 3);
    let value: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(value["ingress"]["kernel"]["state"], "disagrees");
    assert_eq!(value["ingress"]["kernel"]["verdict"]["ruleId"], 64);
    assert_eq!(value["egress"]["kernel"]["state"], "not-asked");
}

#[test]
fn sockets_are_checked() {
    let n1 = node("n1", &[]);
    for socket in ["n2=", "=/x"] {
        assert_eq!(
            trace(&n1, &format!("{DENIED} --socket {socket}")).code,
            2,
            "{socket}"
        );
    }
    assert_eq!(
        trace(&n1, &format!("{DENIED} --socket a=/x --socket a=/y")).code,
        2
    );
}

#[test]
fn a_workloads_name_means_its_first_pod_also_where_only_pods_are_known() {
    let pod = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{containers: []}}\n"
        )
    };
    let n1 = FakeAgent::start("n1", objects(&(pod("api-1") + &pod("api-0"))), &[]);
    let done = trace(&n1, "shop/api-1 shop/api --port 1 -o json");
    let value: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(value["ingress"]["end"], "pod shop/api-0");
}

const PAIR: &str = "\
apiVersion: v1
kind: Service
metadata: {name: pair, namespace: shop}
spec: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9, 'fd96::9'], selector: {app: pair}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop, labels: {app: pair}}
spec: {nodeName: n1, containers: []}
status: {podIPs: [{ip: 10.1.0.7}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: shop, labels: {app: pair}}
spec: {nodeName: n1, containers: []}
status: {podIPs: [{ip: 10.1.0.8}]}
---
apiVersion: v1
kind: Pod
metadata: {name: c, namespace: shop, labels: {app: pair}}
spec: {nodeName: n2, containers: []}
status: {podIPs: [{ip: 10.2.0.9}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {nodeName: n1, containers: []}
status: {podIPs: [{ip: 10.1.0.3}, {ip: 'fd01::3'}]}
";

#[test]
fn the_kernel_is_asked_of_every_backend_of_a_service() {
    let pair = |b| {
        let verdicts = [("10.1.0.3", true), ("10.1.0.7", true), ("10.1.0.8", b)];
        FakeAgent::start("n1", objects(PAIR), &verdicts)
    };
    let question = "shop/client svc:shop/pair --port 80";
    let agreeing = pair(true);
    let done = trace(&agreeing, question);
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    for line in [
        "  shop/b 8080/TCP allow; kernel: egress agrees, ingress agrees\n",
        "  shop/c 8080/TCP allow; kernel: egress agrees, ingress not asked (node n2)\n",
    ] {
        assert!(done.stdout.contains(line), "{line}: {}", done.stdout);
    }
    let asked = agreeing.asked();
    let peers: Vec<_> = asked
        .iter()
        .filter(|q| q["direction"] == "egress")
        .map(|q| q["peer"].as_str().unwrap())
        .collect();
    assert_eq!(peers, ["10.1.0.7", "10.1.0.8", "10.2.0.9"]);
    // The third backend's node was not asked.
    assert_eq!(
        trace(&agreeing, &format!("{question} --require-kernel")).code,
        2
    );

    // The first backend agrees and the second does not.
    let done = trace(&pair(false), question);
    assert_eq!(done.code, 3);
    let line = "  shop/b 8080/TCP allow; kernel: egress agrees, ingress DISAGREES (deny, shop/k spec.ingress[0])\n";
    assert!(done.stdout.contains(line), "{}", done.stdout);
    let done = trace(&pair(false), &format!("{question} -o json"));
    let value: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(
        value["otherBackends"][0]["ingress"]["kernel"]["state"],
        "disagrees"
    );
}

#[test]
fn a_cluster_ip_as_the_target_is_named_as_its_services() {
    let n1 = FakeAgent::start("n1", objects(PAIR), &[("10.1.0.3", true)]);
    for address in ["10.96.0.9", "ip:fd96::9"] {
        let done = trace(&n1, &format!("shop/client {address} --port 80"));
        assert!(
            done.stderr.contains("is an address of service shop/pair"),
            "{address}: {}",
            done.stderr
        );
    }
    let done = trace(&n1, "shop/client 10.96.0.10 --port 80");
    assert!(done.stderr.is_empty(), "{}", done.stderr);
}

#[test]
fn with_this_nodes_agent_down_another_agent_tells_the_objects() {
    let n2 = node("n2", &[("10.2.0.3", true)]);
    let gone = n2.socket().with_file_name("gone.sock");
    let other = format!("policy trace --bpffs /nonexistent --socket {{}} {DENIED}");
    let alone = weir(&other, &gone);
    assert_eq!(alone.code, 2);
    assert!(alone.stderr.contains("--manifests DIR"), "{}", alone.stderr);
    let done = weir(
        &format!("{other} --socket n2={}", n2.socket().display()),
        &gone,
    );
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stdout.contains("kernel: agrees"), "{}", done.stdout);
    assert!(
        done.stdout.contains("kernel: not asked (node n1)"),
        "{}",
        done.stdout
    );
    assert!(
        done.stderr.contains("the objects are of n2's agent"),
        "{}",
        done.stderr
    );
}

#[test]
fn an_address_that_is_missing_is_named() {
    let n1 = node("n1", &[]);
    let done = trace(&n1, "shop/db shop/both-b --port 5432");
    assert!(
        done.stdout.contains("pod shop/both-b has no status.podIPs"),
        "{}",
        done.stdout
    );
}
