//! `weir policy trace --live` with agents: what the programs did with a packet, and what that does to
//! the exit status.

use serde_json::{Value, json};
use weir_agent::cli::Done;

use crate::agent::{FakeAgent, objects};
use crate::support::{SHOP, weir};

fn trace(agent: &FakeAgent, arguments: &str) -> Done {
    weir(
        &format!("policy trace --live --socket {{}} {arguments}"),
        &agent.socket(),
    )
}

/// The packets that were asked about.
fn packets(agent: &FakeAgent) -> Vec<Value> {
    let asked = agent.asked().into_iter();
    asked.filter(|q| q.get("source").is_some()).collect()
}

fn verdict(allowed: bool) -> Value {
    json!({"allowed": allowed, "ruleId": 64,
           "rule": {"kind": "NetworkPolicy", "namespace": "shop", "name": "k", "path": "spec.ingress[0]"}})
}

fn answer(action: &str, reason: &str, more: &Value) -> Value {
    let mut answer = json!({"program": "from_uplink", "action": action, "reason": reason,
                            "tracked": false, "sourcePort": 61_000});
    let fields = answer.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    answer
}

/// job (n2) → db (n1) is denied at db.
const DENIED: &str = "shop/job shop/db --port 5432";

#[test]
fn what_the_program_did_stands_beside_what_the_maps_say() {
    let dropped = answer(
        "dropped",
        "policy-ingress",
        &json!({"ingress": verdict(false)}),
    );
    let n1 = FakeAgent::live("n1", objects(SHOP), &[("10.1.0.2", false)], dropped);
    let done = trace(&n1, DENIED);
    assert_eq!(done.code, 1, "{}{}", done.stdout, done.stderr);
    let lines = "  kernel: agrees (deny, shop/k spec.ingress[0])\n  program: deny, shop/k spec.ingress[0]; dropped: policy-ingress\n";
    assert!(done.stdout.contains(lines), "{}", done.stdout);
    assert!(
        done.stdout.contains("  program: not asked (node n2)\n"),
        "{}",
        done.stdout
    );
    assert_eq!(
        packets(&n1),
        [json!({"source": "10.2.0.3", "destination": "10.1.0.2", "protocol": 6, "port": 5432})]
    );
    assert_eq!(trace(&n1, &format!("--require-kernel {DENIED}")).code, 2);
    let done = trace(&n1, &format!("{DENIED} -o json --source-port 4000"));
    let value: Value = serde_json::from_str(&done.stdout).unwrap();
    let program = &value["ingress"]["program"];
    assert_eq!(program["state"], "agrees");
    assert_eq!(program["verdict"]["ruleId"], 64);
    assert_eq!(program["answer"]["reason"], "policy-ingress");
    assert_eq!(value["egress"]["program"]["state"], "not-asked");
    assert_eq!(packets(&n1).last().unwrap()["sourcePort"], 4000);
}

#[test]
fn without_live_no_packet_is_asked_about() {
    let n1 = FakeAgent::live("n1", objects(SHOP), &[("10.1.0.2", false)], json!({}));
    let question = format!("policy trace --socket {{}} {DENIED}");
    let done = weir(&question, &n1.socket());
    assert!(!done.stdout.contains("program:"), "{}", done.stdout);
    assert!(packets(&n1).is_empty());
    let json = weir(&format!("{question} -o json"), &n1.socket()).stdout;
    assert!(!json.contains("\"program\""), "{json}");
    let done = weir(&format!("{question} --source-port 1"), &n1.socket());
    assert_eq!(done.code, 2, "--source-port needs --live");
}

#[test]
fn a_program_that_does_something_else_exits_with_3() {
    let delivered = answer("forwarded", "delivered", &json!({"ingress": verdict(true)}));
    let n1 = FakeAgent::live("n1", objects(SHOP), &[("10.1.0.2", false)], delivered);
    let done = trace(&n1, DENIED);
    assert_eq!(done.code, 3);
    let line = "  program: DISAGREES (allow, shop/k spec.ingress[0]; delivered)\n";
    assert!(done.stdout.contains(line), "{}", done.stdout);

    // Allowed by both, and dropped for another reason.
    let allowed = "shop/db 203.0.113.9 --port 443";
    for (action, code) in [("forwarded", 0), ("dropped", 3)] {
        let said = answer(action, "malformed", &json!({"egress": verdict(true)}));
        let n1 = FakeAgent::live("n1", objects(SHOP), &[("10.1.0.2", true)], said);
        let done = trace(&n1, allowed);
        assert_eq!(done.code, code, "{action}: {}", done.stdout);
    }
    // Denied by the objects, and not even judged by the program.
    let passed = answer("forwarded", "delivered", &json!({}));
    let n1 = FakeAgent::live("n1", objects(SHOP), &[("10.1.0.2", false)], passed);
    assert_eq!(trace(&n1, DENIED).code, 3);
}

#[test]
fn a_reply_is_asked_as_the_connection_it_answers() {
    let dropped = answer(
        "dropped",
        "policy-ingress",
        &json!({"ingress": verdict(false)}),
    );
    let n1 = FakeAgent::live("n1", objects(SHOP), &[("10.1.0.2", false)], dropped);
    let done = trace(&n1, "shop/db shop/job --port 5432 --state reply");
    assert_eq!(done.code, 1, "{}{}", done.stdout, done.stderr);
    assert_eq!(packets(&n1)[0]["source"], "10.2.0.3");
    let value = trace(&n1, "shop/db shop/job --port 5432 --state reply -o json");
    let value: Value = serde_json::from_str(&value.stdout).unwrap();
    // The reply leaves db, where the connection was judged on its way in.
    assert_eq!(value["egress"]["program"]["state"], "agrees");
}

#[test]
fn a_nodes_packet_to_its_own_pod_is_run_and_not_judged() {
    let passed = answer("forwarded", "to-stack", &json!({"program": "to_pod"}));
    let n1 = FakeAgent::live("n1", objects(SHOP), &[], passed);
    let done = trace(&n1, "node:n1 shop/db --port 1 --require-kernel");
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    let line = "  program: not judged; left to the node's stack\n";
    assert!(done.stdout.contains(line), "{}", done.stdout);
    assert_eq!(packets(&n1)[0]["source"], "192.168.0.1");
    // Neither end is a pod's: no program is asked.
    let done = trace(&n1, "node:n1 203.0.113.9 --port 1 --require-kernel");
    assert_eq!((done.code, packets(&n1).len()), (0, 1), "{}", done.stderr);
}

const PAIR: &str = "\
apiVersion: v1
kind: Service
metadata: {name: pair, namespace: shop}
spec: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9, 'fd96::9'], selector: {app: pair}, ports: [{name: web, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop, labels: {app: pair}}
spec: {nodeName: n1, containers: []}
status: {podIPs: [{ip: 10.1.0.7}, {ip: 'fd01::7'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: shop, labels: {app: pair}}
spec: {nodeName: n1, containers: []}
status: {podIPs: [{ip: 10.1.0.8}, {ip: 'fd01::8'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {nodeName: n1, containers: []}
status: {podIPs: [{ip: 10.1.0.3}, {ip: 'fd01::3'}]}
";

fn pair(backend: &str) -> FakeAgent {
    let verdicts = [
        ("10.1.0.3", true),
        ("10.1.0.7", true),
        ("10.1.0.8", true),
        ("fd01::3", true),
        ("fd01::7", true),
        ("fd01::8", true),
    ];
    let said = json!({"egress": verdict(true), "ingress": verdict(true),
                      "backend": {"address": backend, "port": 8080}});
    let said = answer("forwarded", "delivered", &said);
    FakeAgent::live("n1", objects(PAIR), &verdicts, said)
}

#[test]
fn a_services_own_address_is_dialled_and_the_backend_that_was_chosen_is_named() {
    for (family, vip, backend, shown) in [
        ("IPv4", "10.96.0.9", "10.1.0.8", "10.1.0.8:8080"),
        ("IPv6", "fd96::9", "fd01::8", "[fd01::8]:8080"),
    ] {
        for port in ["80", "web"] {
            let n1 = pair(backend);
            let question = format!("shop/client svc:shop/pair --port {port} --family {family}");
            let done = trace(&n1, &question);
            assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
            let line = format!("; delivered; backend pod shop/b at {shown}\n");
            assert_eq!(done.stdout.matches(&line).count(), 2, "{}", done.stdout);
            let packets = packets(&n1);
            assert_eq!(packets.len(), 1);
            assert_eq!(
                (&packets[0]["destination"], &packets[0]["port"]),
                (&json!(vip), &json!(80))
            );
        }
    }
    // One backend that is asked for is dialled itself.
    let n1 = pair("10.1.0.7");
    trace(&n1, "shop/client svc:shop/pair --port 80 --backend shop/a");
    assert_eq!(packets(&n1)[0]["destination"], "10.1.0.7");
}

#[test]
fn a_backend_that_the_objects_do_not_name_is_a_disagreement() {
    let n1 = pair("10.1.0.99");
    let done = trace(&n1, "shop/client svc:shop/pair --port 80 --verbose");
    assert_eq!(done.code, 3, "{}", done.stdout);
    let named = "; backend 10.1.0.99:8080, which the objects do not name)\n";
    assert!(done.stdout.contains(named), "{}", done.stdout);
    let done = trace(&n1, "shop/client 10.96.0.9 --port 80 --verbose");
    assert!(
        done.stdout.contains("ask about the svc:"),
        "{}",
        done.stdout
    );
}
