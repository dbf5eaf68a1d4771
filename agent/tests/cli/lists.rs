//! `weir status`, `endpoint list`, `service list`, `policy list`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_agent::cli::Done;

use crate::agent::{FakeAgent, objects};
use crate::support::{Files, SHOP, weir};

fn ask(answers: &[(&str, Value)], command: &str) -> Done {
    let answers: BTreeMap<String, Value> = answers
        .iter()
        .map(|(path, value)| (format!("GET /v1/{path}"), value.clone()))
        .collect();
    let agent = FakeAgent::with(answers, &[]);
    weir(&format!("{command} --socket {{}}"), &agent.socket())
}

fn json_of(done: &Done) -> Value {
    serde_json::from_str(&done.stdout).unwrap()
}

#[test]
fn a_well_agent_exits_with_0_and_an_unwell_one_with_1() {
    let status = |ready: bool, degraded: Value| {
        json!({"version": "1", "node": "n1", "synced": true, "ready": ready, "degraded": degraded,
               "features": [{"name": "tcx", "state": "used"}, {"name": "netkit", "state": "missing", "detail": "Linux 6.7"}],
               "podCIDRs": ["10.1.0.0/24"], "counts": {"endpoints": 1, "services": 2, "policies": 3, "pods": 4}})
    };
    let done = ask(&[("status", status(true, json!([])))], "status");
    assert_eq!(done.code, 0);
    for line in [
        "node      n1\n",
        "ready     yes\n",
        "pod CIDRs 10.1.0.0/24\n",
        "objects   1 endpoints here, 4 pods, 2 services, 3 policies\n",
        "\nFEATURE  STATE    DETAIL\nnetkit   missing  Linux 6.7\ntcx      used     -\n",
    ] {
        assert!(done.stdout.contains(line), "{line}: {}", done.stdout);
    }
    assert_eq!(
        ask(&[("status", status(false, json!([])))], "status").code,
        1
    );
    let done = ask(
        &[("status", status(true, json!(["x.yaml:3: broken"])))],
        "status",
    );
    assert_eq!(done.code, 1);
    assert!(done.stdout.contains("degraded  x.yaml:3: broken\n"));
    let mut noted = status(true, json!([]));
    noted["notes"] = json!(["uplink eth0: its reverse path filter is strict"]);
    let done = ask(&[("status", noted.clone())], "status");
    assert_eq!(done.code, 0);
    let line = "note      uplink eth0: its reverse path filter is strict\n";
    assert!(done.stdout.contains(line), "{}", done.stdout);
    let done = ask(&[("status", noted.clone())], "status -o json");
    assert_eq!(json_of(&done)["notes"], noted["notes"]);
    assert_eq!(
        json_of(&ask(
            &[("status", status(true, json!([])))],
            "status -o json"
        ))["node"],
        "n1"
    );
}

#[test]
fn endpoints_are_listed_in_order_and_by_namespace() {
    let endpoint = |namespace: Option<&str>, pod: &str, isolated: Value| {
        let mut value = json!({
            "containerId": "0123456789abcdef", "ifname": "eth0", "network": "weir", "hostIfname": "weir01",
            "hostIfindex": 3, "hostMac": "aa:aa:aa:aa:aa:aa", "podMac": "aa:aa:aa:aa:aa:ab", "mtu": 1500,
            "addresses": ["10.1.0.2", "fd01::2"], "slot": 1, "attached": true,
            "ingress": {"group": 16, "isolatedBy": isolated}, "egress": {"group": 1},
        });
        if let Some(namespace) = namespace {
            value["pod"] = json!({"namespace": namespace, "name": pod});
        }
        value
    };
    let answer = json!([
        endpoint(Some("b"), "y", json!(["b/deny"])),
        endpoint(Some("a"), "z", json!([])),
        endpoint(None, "", json!([])),
    ]);
    let answers = [("endpoints", answer)];
    let done = ask(&answers, "endpoint list");
    assert_eq!(
        done.stdout,
        "NAMESPACE  POD                  ADDRESSES         INTERFACE  INGRESS  EGRESS  ATTACHED  CONTAINER\n\
         -          (no Kubernetes pod)  10.1.0.2,fd01::2  weir01     open     open    yes       0123456789abc\n\
         a          z                    10.1.0.2,fd01::2  weir01     open     open    yes       0123456789abc\n\
         b          y                    10.1.0.2,fd01::2  weir01     b/deny   open    yes       0123456789abc\n"
    );
    assert_eq!(
        ask(&answers, "endpoint list -n a").stdout.lines().count(),
        2
    );
    assert_eq!(
        json_of(&ask(&answers, "endpoint list -A -o json"))
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        ask(&[("endpoints", json!([]))], "endpoint list").stdout,
        "no endpoints\n"
    );
}

#[test]
fn services_are_listed_with_what_serves_them() {
    let backend =
        |address: &str, state: &str| json!({"address": address, "port": 8080, "state": state});
    let frontend = |address: &str, programmed: bool, backends: Value| json!({"address": address, "port": 80, "protocol": "TCP", "portName": "", "kind": "ClusterIP", "for": "everyone", "policy": "Cluster", "programmed": programmed, "backends": backends});
    let service = |name: &str, frontends: Value| json!({"namespace": "a", "name": name, "type": "ClusterIP", "frontends": frontends});
    let answer = json!([
        service(
            "web",
            json!([
                frontend(
                    "10.96.0.1",
                    true,
                    json!([
                        backend("10.1.0.2", "active"),
                        backend("10.1.0.3", "draining")
                    ])
                ),
                frontend("fd96::1", true, json!([])),
            ])
        ),
        service("db", json!([frontend("10.96.0.2", false, json!([]))])),
        service("head", json!([])),
    ]);
    let answers = [("services", answer)];
    assert_eq!(
        ask(&answers, "service list").stdout,
        "NAMESPACE  NAME  TYPE       FRONTEND          KIND       FOR       RULES  STATE                  BACKENDS\n\
         a          db    ClusterIP  10.96.0.2:80/TCP  ClusterIP  everyone  -      not programmed         -\n\
         a          head  ClusterIP  -                 -          -         -      -                      -\n\
         a          web   ClusterIP  10.96.0.1:80/TCP  ClusterIP  everyone  -      served                 10.1.0.2:8080,10.1.0.3:8080 (draining)\n\
         a          web   ClusterIP  [fd96::1]:80/TCP  ClusterIP  everyone  -      refuses: no endpoints  -\n"
    );
    assert_eq!(ask(&answers, "service list -n b").stdout, "no services\n");
}

#[test]
fn policies_are_listed_from_files_and_from_the_agent_alike() {
    let wanted = "\
NAMESPACE  NAME          POD-SELECTOR  TYPES    INGRESS  EGRESS  PROBLEMS
shop       db            app=db        Ingress  2        0       -
shop       default-deny  {}            Ingress  0        0       -
shop       web-out       app=web       Egress   0        3       -
";
    let files = Files::shop();
    assert_eq!(weir("policy list -f {}", files.dir()).stdout, wanted);
    let answers = [("objects", objects(SHOP))];
    assert_eq!(ask(&answers, "policy list").stdout, wanted);
    assert_eq!(
        ask(&answers, "policy list -n other").stdout,
        "no network policies\n"
    );
}

#[test]
fn a_refused_part_of_a_policy_stands_in_the_list() {
    let files = Files::new(&[(
        "x.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n\
         spec: {podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0}}]}]}\n",
    )]);
    let value = json_of(&weir("policy list -f {} -o json", files.dir()));
    assert_eq!(value[0]["policyTypes"], json!(["Ingress", "Egress"]));
    let problem = value[0]["problems"][0].as_str().unwrap();
    assert!(
        problem.starts_with("spec.egress[0].to[0].ipBlock.cidr: "),
        "{problem}"
    );
}

const CLUSTER: &str = "\
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: default}
spec:
  tier: Baseline
  priority: 1
  subject: {namespaces: {}}
  ingress: [{action: Deny, from: [{namespaces: {}}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 20
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}
  egress: [{action: Accept, to: [{domainNames: [example.com]}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: later}
spec:
  tier: Admin
  priority: 3
  subject: {namespaces: {matchLabels: {team: red}}}
  egress: [{action: Deny, to: [{services: {}}]}, {action: Accept, to: []}]
";

#[test]
fn cluster_policies_are_listed_as_they_are_asked_with_their_conditions() {
    let files = Files::new(&[("x.yaml", CLUSTER)]);
    let done = weir("policy list -f {}", files.dir());
    let unknown = "spec.egress[0].to[0].services: is a field that this build does not know; \
                   the rule denies everything to its subject, all other rules stand";
    let empty =
        "spec.egress[1].to: has no element; the rule matches nothing, all other rules stand";
    let names =
        "spec.egress[0].to[0].domainNames: domainNames are not enforced yet and match nothing";
    assert_eq!(
        done.stdout,
        format!(
            "\
TIER      PRIORITY  NAME     SUBJECT                        INGRESS  EGRESS  ACCEPTED  PARTIALLY-SUPPORTED  PROBLEMS
Admin     3         later    namespaces team=red            0        2       False     False                {unknown}; {empty}
Admin     20        names    pods app=web in namespaces {{}}  0        1       True      True                 {names}
Baseline  1         default  namespaces {{}}                  1        0       True      False                -
"
        )
    );
    assert!(
        done.stderr
            .contains("unknown field spec.egress[0].to[0].services")
    );
    let value = json_of(&weir("policy list -f {} -o json", files.dir()));
    assert_eq!(
        value[2],
        json!({
            "kind": "ClusterNetworkPolicy", "name": "default", "tier": "Baseline", "priority": 1,
            "subject": "namespaces {}", "ingressRules": 1, "egressRules": 0,
            "conditions": [
                {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
                {"type": "PartiallySupported", "status": "False", "reason": "Enforced", "message": ""},
            ],
        })
    );
    // They belong to no namespace.
    assert_eq!(
        weir("policy list -f {} -n shop", files.dir()).stdout,
        "no network policies\n"
    );
}

#[test]
fn both_kinds_of_policies_are_listed_below_each_other() {
    let files = Files::new(&[("x.yaml", CLUSTER), ("y.yaml", SHOP)]);
    let done = weir("policy list -f {}", files.dir());
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(lines[0].starts_with("NAMESPACE  NAME "));
    assert_eq!(lines[4], "");
    assert!(lines[5].starts_with("TIER "));
    assert_eq!(lines.len(), 9);
}
