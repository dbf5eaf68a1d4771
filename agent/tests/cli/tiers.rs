//! ClusterNetworkPolicies in `policy trace` and `policy test`.

use serde_json::{Value, json};
use weir_agent::cli::Done;

use crate::support::{Files, weir};

const WORLD: &str = include_str!("golden/world.yaml");

/// The world of the golden files and more.
fn trace(more: &str, arguments: &str) -> Done {
    let files = Files::new(&[("a.yaml", WORLD), ("b.yaml", more)]);
    weir(&format!("policy trace -f {{}} {arguments}"), files.dir())
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
         metadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

#[test]
fn a_flow_that_was_passed_on_and_not_decided_names_the_rule() {
    let pass = policy(
        "pass",
        "{tier: Baseline, priority: 9, subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: open}}}, \
         ingress: [{name: onward, action: Pass, from: [{namespaces: {}}]}]}",
    );
    let done = trace(&pass, "vault/keys open/web --port 80");
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(
        done.stdout,
        "\
ALLOWED  vault/keys -> open/web, 80/TCP, IPv4
cause: egress allowed: no policy decides
cause: ingress allowed: passed on by Baseline ClusterNetworkPolicy pass spec.ingress[0] \"onward\", a…

egress of pod vault/keys (10.1.0.6) on node n1: allowed: no policy decides
  Admin ClusterNetworkPolicy vault (priority 10) has it as subject by namespaces guard=strict
    spec.egress[0] \"no-nodes\" Deny no match: peer: to[0] no node role=worker has address 10.2.0.5
    spec.egress[1] Accept no match: peer: to[0] domainNames keys.example.com are not enforced yet
  3 ClusterNetworkPolicies are not about its egress
  kernel: not asked (node n1)

ingress of pod open/web (10.2.0.5) on node n2: allowed: passed on by Baseline ClusterNetworkPolicy
    pass spec.ingress[0] \"onward\", and nothing after it decides
  Baseline ClusterNetworkPolicy pass (priority 9) has it as subject by namespaces
      kubernetes.io/metadata.name=open
    spec.ingress[0] \"onward\" Pass matches and passes it on: from[0] namespaces {}, any protocol
  3 ClusterNetworkPolicies are not about its ingress
  kernel: not asked (node n2)
"
    );
}

#[test]
fn an_accepted_flow_says_that_nothing_after_it_is_asked() {
    let accept = policy(
        "accept",
        "{tier: Admin, priority: 1, subject: {namespaces: {}}, \
         ingress: [{action: Accept, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: open}}}]}]}",
    );
    let done = trace(&accept, "open/web shop/db --port 1");
    assert_eq!(done.code, 0, "{}", done.stdout);
    for line in [
        "cause: ingress allowed by Admin ClusterNetworkPolicy accept spec.ingress[0]\n",
        "  NetworkPolicies and the Baseline tier are not asked\n",
    ] {
        assert!(done.stdout.contains(line), "{line}: {}", done.stdout);
    }
    assert!(
        !done.stdout.contains("shop/default-deny"),
        "{}",
        done.stdout
    );
}

const PAIR: &str = "\
---
apiVersion: v1
kind: Service
metadata: {name: pair, namespace: open}
spec: {selector: {tier: pair}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: open, labels: {tier: pair, deny: a}}
spec: {nodeName: n1, containers: []}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: open, labels: {tier: pair, deny: b}}
spec: {nodeName: n1, containers: []}
";

#[test]
fn each_backend_of_a_service_is_listed_with_what_decides_there() {
    let deny = |name: &str| {
        policy(
            &format!("deny-{name}"),
            &format!(
                "{{tier: Admin, priority: 1, subject: {{pods: {{podSelector: {{matchLabels: {{deny: {name}}}}}}}}}, \
                 ingress: [{{action: Deny, from: [{{namespaces: {{}}}}]}}]}}"
            ),
        )
    };
    let done = trace(
        &format!("{PAIR}{}{}", deny("a"), deny("b")),
        "open/web svc:open/pair --port 80",
    );
    assert_eq!(done.code, 1, "{}", done.stderr);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(
        &lines[1..4],
        [
            "cause: ingress of pod open/a: denied by Admin ClusterNetworkPolicy deny-a spec.ingress[0]",
            "service open/pair: backend open/a 80/TCP deny (1 of 2 backends, all with this verdict)",
            "  open/b 80/TCP deny; ingress denied by Admin ClusterNetworkPolicy deny-b spec.ingress[0]; kernel: …",
        ]
    );
    let same = trace(PAIR, "open/web svc:open/pair --port 80");
    assert!(
        same.stdout.contains("\n  open/b 80/TCP allow; kernel: egress not asked (node n2), ingress not asked (node n1)\n"),
        "{}",
        same.stdout
    );
}

#[test]
fn the_deciding_rule_is_shown_however_many_come_before_it() {
    let mut rules: Vec<String> = (0..24)
        .map(|i| format!("{{name: rule-{i}, action: Accept, from: [{{namespaces: {{matchLabels: {{no: one}}}}}}]}}"))
        .collect();
    rules.push("{name: the-last, action: Deny, from: [{namespaces: {}}]}".to_owned());
    let many: String = (0..3)
        .map(|i| {
            let rules = if i == 2 { &rules[..] } else { &rules[..24] };
            let spec = format!(
                "{{tier: Admin, priority: {i}, subject: {{namespaces: {{}}}}, ingress: [{}]}}",
                rules.join(", ")
            );
            policy(&format!("many-{i}"), &spec)
        })
        .collect();
    let done = trace(&many, "open/web shop/db --port 80");
    assert_eq!(done.code, 1, "{}", done.stderr);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!((35..=40).contains(&lines.len()), "{} lines", lines.len());
    assert!(lines.iter().all(|line| line.chars().count() <= 100));
    assert!(
        lines[1].ends_with("denied by Admin policy many-2 spec.ingress[24] \"the-last\""),
        "{}",
        lines[1]
    );
    let cut = lines
        .iter()
        .position(|line| line.contains("more lines"))
        .unwrap();
    assert!(
        lines[cut + 1].starts_with("    spec.ingress[24] \"the-last\" Deny matches: "),
        "{}",
        lines[cut + 1]
    );
}

#[test]
fn json_has_tiers_actions_and_names() {
    let done = trace("", "shop/mail vault/keys --port 443 -o json");
    let value: Value = serde_json::from_str(&done.stdout).unwrap();
    let ingress = &value["ingress"];
    assert_eq!(ingress["verdict"], "deny");
    assert_eq!(ingress["rule"]["tier"], "Baseline");
    assert_eq!(ingress["otherClusterPolicies"], 1);
    let first = &ingress["policies"][0];
    assert_eq!(
        (
            &first["kind"],
            &first["name"],
            &first["tier"],
            &first["priority"],
            &first["subject"]
        ),
        (
            &json!("ClusterNetworkPolicy"),
            &json!("vault"),
            &json!("Admin"),
            &json!(10),
            &json!("namespaces guard=strict")
        )
    );
    let rule = &first["rules"][0];
    assert_eq!(
        (
            &rule["path"],
            &rule["action"],
            &rule["rule"],
            &rule["matches"]
        ),
        (
            &json!("spec.ingress[0]"),
            &json!("Pass"),
            &json!("shop-decides-for-itself"),
            &json!(true)
        )
    );
}

#[test]
fn a_policy_that_is_refused_is_warned_of() {
    let done = trace("", "legacy/old 198.51.100.1 --port 443");
    let wanted = "warning: ClusterNetworkPolicy legacy-out: spec.egress[0].to[0].storageClasses: is no \
                  field that is known here; the rule denies everything\n";
    assert!(done.stderr.contains(wanted), "{}", done.stderr);
}

#[test]
fn probes_name_the_rule_with_tier_and_action() {
    let probes = "\
- {from: open/web, to: vault/keys, port: 443, allow: false}
- {from: shop/mail, to: vault/keys, port: 443, allow: false}
- {from: legacy/old, to: open/web, port: 1, allow: false}
";
    let files = Files::new(&[("a.yaml", WORLD)]);
    let probe = Files::new(&[("p.yaml", probes)]);
    let path = probe.path("p.yaml");
    let command = format!("policy test -f {{}} --probes {}", path.display());
    let done = weir(&format!("{command} -o json"), files.dir());
    assert_eq!(done.code, 0, "{}", done.stderr);
    let value: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(
        value["probes"][0]["ingress"],
        json!({"verdict": "deny", "reason": "rule", "rule": {
            "kind": "ClusterNetworkPolicy", "name": "vault", "tier": "Admin", "action": "Deny",
            "path": "spec.ingress[1]", "rule": "nobody-else",
        }})
    );
    assert_eq!(value["probes"][1]["ingress"]["rule"]["tier"], "Baseline");
    // Refused as a Pass, used as a Deny.
    assert_eq!(value["probes"][2]["egress"]["rule"]["action"], "Deny");
    let table = weir(&command, files.dir()).stdout;
    assert!(
        table.contains("  ingress: Admin vault spec.ingress[1] Deny\n"),
        "{table}"
    );
}
