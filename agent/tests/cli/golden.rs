//! Denied flows of different causes, as `weir policy trace` tells them: the rule that decides, or the
//! policies that isolate the pod, stand in the first three lines.
//!
//! The whole reports are in `golden/`; `WEIR_BLESS=1 cargo test -p weir-agent --test cli golden`
//! writes them anew. Read the difference before you commit it.

use std::path::{Path, PathBuf};

use crate::support::weir;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cli/golden")
        .join(name)
}

/// Traces a flow that is denied and compares the report with `NAME.txt`. Each of `causes` must stand
/// in the first three lines.
#[track_caller]
fn denied(name: &str, flow: &str, causes: &[&str]) {
    let command = format!("policy trace --manifests {{}} {flow}");
    let done = weir(&command, &golden("world.yaml"));
    assert_eq!(done.code, 1, "{}{}", done.stdout, done.stderr);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(lines.len() <= 40, "{} lines", lines.len());
    assert!(lines.iter().all(|line| line.chars().count() <= 100));
    let head = lines[..3].join("\n");
    assert!(head.starts_with("DENIED "), "{head}");
    for cause in causes {
        assert!(head.contains(cause), "{cause}: {head}");
    }
    let file = golden(&format!("{name}.txt"));
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&file, &done.stdout).unwrap();
    }
    let wanted = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(
        done.stdout,
        wanted,
        "{} differs: WEIR_BLESS=1 writes it anew",
        file.display()
    );
}

#[test]
fn a_default_deny_names_the_one_policy_that_isolates() {
    denied(
        "default-deny-of-one",
        "open/web shop/web --port http",
        &["isolated by shop/default-deny"],
    );
}

#[test]
fn a_default_deny_names_all_policies_that_isolate() {
    denied(
        "default-deny-of-several",
        "shop/mail shop/db --port pg",
        &["ingress of pod shop/db: isolated by shop/db, shop/default-deny"],
    );
}

#[test]
fn egress_is_denied_at_the_source() {
    denied(
        "egress-at-the-source",
        "shop/web 198.51.100.1 --port 443",
        &["egress of pod shop/web: isolated by shop/web-out"],
    );
}

#[test]
fn both_ends_may_deny() {
    denied(
        "both-ends",
        "shop/web shop/mail --port 25",
        &[
            "egress of pod shop/web: isolated by shop/web-out",
            "ingress of pod shop/mail: isolated by shop/default-deny, shop/mail",
        ],
    );
}

#[test]
fn a_wrong_port_is_denied() {
    denied(
        "wrong-port",
        "203.0.113.7 shop/db --port 5433",
        &["isolated by shop/db, shop/default-deny"],
    );
}

#[test]
fn a_pod_of_the_wrong_namespace_is_denied() {
    denied(
        "wrong-namespace",
        "open/web shop/db --port pg",
        &["isolated by shop/db, shop/default-deny"],
    );
}

#[test]
fn an_excepted_address_is_denied() {
    denied(
        "ip-block-except",
        "203.0.113.200 shop/db --port 5432",
        &["isolated by shop/db, shop/default-deny"],
    );
}

#[test]
fn a_named_port_that_the_pod_lacks_is_denied() {
    denied(
        "named-port-that-the-pod-lacks",
        "shop/web open/web --port 9000",
        &["egress of pod shop/web: isolated by shop/web-out"],
    );
}

#[test]
fn icmp_is_denied_by_rules_that_all_have_ports() {
    denied(
        "icmp-and-rules-with-ports",
        "shop/web shop/db --protocol icmp --family IPv6",
        &[
            "isolated by shop/web-out",
            "isolated by shop/db, shop/default-deny",
        ],
    );
}

#[test]
fn a_refused_rule_allows_nothing() {
    denied(
        "refused-rule",
        "open/web shop/mail --port 25",
        &["isolated by shop/default-deny, shop/mail"],
    );
}

#[test]
fn an_unknown_pod_is_matched_by_no_selector() {
    denied(
        "unknown-pod",
        "10.1.0.99 shop/db --port 5432",
        &["isolated by shop/db, shop/default-deny"],
    );
}

#[test]
fn the_admin_tier_denies() {
    denied(
        "admin-deny",
        "open/web vault/keys --port 443",
        &["denied by Admin policy vault spec.ingress[1] \"nobody-else\""],
    );
}

#[test]
fn the_admin_tier_denies_pods_that_nobody_knows() {
    denied(
        "admin-deny-of-an-unknown-pod",
        "10.2.0.99 vault/keys --port 443",
        &["denied by Admin policy vault spec.ingress[1] \"nobody-else\""],
    );
}

#[test]
fn the_admin_tier_denies_nodes() {
    denied(
        "admin-deny-of-a-node",
        "vault/keys node:n2 --port 10250",
        &["egress of pod vault/keys: denied by Admin policy vault spec.egress[0] \"no-nodes\""],
    );
}

#[test]
fn a_rule_with_an_unknown_field_denies_everything() {
    denied(
        "admin-unknown-field",
        "legacy/old 198.51.100.1 --port 443",
        &[
            "denied by Admin policy legacy-out spec.egress[0] \"backups\"",
            "refused: spec.egress[0].to[0].storageClasses",
        ],
    );
}

#[test]
fn the_baseline_tier_denies_what_the_admin_tier_passed_on() {
    denied(
        "admin-pass-and-baseline-deny",
        "shop/mail vault/keys --port 443",
        &["denied by Baseline ClusterNetworkPolicy default spec.ingress[1]"],
    );
}

#[test]
fn the_baseline_tier_denies() {
    denied(
        "baseline-deny",
        "open/web legacy/old --port 443",
        &["denied by Baseline ClusterNetworkPolicy default spec.ingress[1]"],
    );
}

#[test]
fn a_service_is_denied_at_its_backend() {
    denied(
        "service",
        "open/web svc:shop/db --port sql",
        &["ingress of pod shop/db: isolated by shop/db, shop/default-deny"],
    );
}
