//! `weir policy diff`: what changes, for people and for programs, and the exit status.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weir_agent::cli::{Done, run};

use crate::agent::{FakeAgent, objects};
use crate::support::{Files, SHOP, weir};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// `weir policy diff` over a base of files with one file added.
fn diff(base: &str, with: &str, more: &[&str]) -> Done {
    let files = Files::new(&[("base.yaml", base), ("with.yaml", with)]);
    let path = |name: &str| files.path(name).to_str().unwrap().to_owned();
    let (base, with) = (path("base.yaml"), path("with.yaml"));
    let words = ["weir", "policy", "diff", "-f", &base, "--with", &with];
    run(words.iter().chain(more), false)
}

fn json_of(done: &Done) -> Value {
    serde_json::from_str(&done.stdout).unwrap()
}

fn labels(ends: &Value) -> Vec<&str> {
    let ends = ends.as_array().unwrap().iter();
    ends.map(|end| end["label"].as_str().unwrap()).collect()
}

#[test]
fn the_shops_diff_is_as_a_person_reads_it() {
    let shop = here("../manifests/shop");
    let with = here("tests/cli/golden/diff-with.yaml");
    let words = ["weir", "policy", "diff", "-f"].map(Into::into);
    let words = words.into_iter().chain([
        shop.into_os_string(),
        "--with".into(),
        with.into_os_string(),
        "--without".into(),
        "data/redis".into(),
    ]);
    let done = run(words, false);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert_eq!(done.stdout, include_str!("golden/diff-shop.txt"));
}

#[test]
fn nothing_changes_exits_with_0_and_says_how_much_was_looked_at() {
    let done = diff(
        SHOP,
        &policy("shop", "again", "{podSelector: {}, policyTypes: [Ingress]}"),
        &[],
    );
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    assert!(
        done.stdout.starts_with("no verdict changes in "),
        "{}",
        done.stdout
    );
    assert!(
        done.stdout.ends_with("; policies: 3 before, 4 after\n"),
        "{}",
        done.stdout
    );
}

#[test]
fn an_unknown_policy_to_take_away_is_an_error_that_names_the_nearest() {
    let files = Files::shop();
    let done = weir("policy diff -f {} --without shop/webout", files.dir());
    assert_eq!(done.code, 2);
    assert!(
        done.stderr.contains("the nearest is shop/web-out"),
        "{}",
        done.stderr
    );
    assert_eq!(weir("policy diff -f {}", files.dir()).code, 2);
    let done = weir("policy diff -f {} --with /nowhere", files.dir());
    assert!(
        done.code == 2 && done.stderr.contains("/nowhere"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_replaced_policy_counts_as_it_is_in_the_file_without_a_warning() {
    let closed = policy("shop", "db", "{podSelector: {matchLabels: {app: db}}}");
    let done = diff(SHOP, &closed, &[]);
    assert_eq!(done.code, 1);
    assert!(!done.stderr.contains("replaces"), "{}", done.stderr);
    assert!(
        done.stdout
            .contains("  shop/web (2 pods)\n  -> shop/both-a, shop/db\n"),
        "{}",
        done.stdout
    );
    assert!(
        done.stdout
            .contains("       5432/TCP: ingress: isolated by shop/db, shop/default-deny\n"),
        "{}",
        done.stdout
    );
    let verbose = diff(SHOP, &closed, &["--verbose"]);
    let before = "(before: egress: shop/web-out spec.egress[0]; ingress: shop/db spec.ingress[1])";
    assert!(verbose.stdout.contains(before), "{}", verbose.stdout);
}

#[test]
fn a_namespaces_labels_and_a_pods_labels_can_change_as_well() {
    let base = format!(
        "{SHOP}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: other, labels: {{a: b}}}}\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: x, namespace: other}}\nspec: {{containers: []}}\n{}",
        policy(
            "shop",
            "in",
            "{podSelector: {matchLabels: {app: job}}, ingress: [{from: [{namespaceSelector: {matchLabels: {a: b}}}]}]}"
        ),
    );
    let other = "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n";
    let done = diff(&base, other, &[]);
    assert!(
        done.stdout
            .contains("  other/x\n  -> shop/job\n       all: "),
        "{}",
        done.stdout
    );
    // A file of one policy leaves the labels of its namespace alone.
    let policy = policy("other", "p", "{podSelector: {matchLabels: {no: one}}}");
    assert_eq!(diff(&base, &policy, &[]).code, 0);
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: job, namespace: shop, labels: {app: admin}}\n\
               spec: {nodeName: n2, containers: []}\nstatus: {podIPs: [{ip: 10.2.0.3}]}\n";
    let done = diff(SHOP, pod, &[]);
    assert!(
        done.stdout
            .contains("denied -> allowed\n\n  shop/job\n  -> shop/both-a, shop/db\n"),
        "{}",
        done.stdout
    );
}

#[test]
fn pods_that_come_or_go_are_named_and_not_compared() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: new, namespace: shop}\nspec: {containers: []}\n";
    let done = diff(SHOP, pod, &[]);
    assert_eq!(done.code, 0);
    assert!(
        done.stdout
            .starts_with("1 pod is new and cannot be compared: shop/new\n"),
        "{}",
        done.stdout
    );
    let value = json_of(&diff(SHOP, pod, &["-o", "json"]));
    assert_eq!(value["summary"]["podsNew"], json!(["shop/new"]));
}

#[test]
fn addresses_outside_nodes_and_families_are_told_apart() {
    let spec = "{podSelector: {matchLabels: {app: db}}, ingress: [\
                {from: [{ipBlock: {cidr: 192.168.0.0/24}}, {ipBlock: {cidr: 'fd01::/64', except: ['fd01::8000/113']}}]}]}";
    let value = json_of(&diff(
        SHOP,
        &policy("shop", "blocks", spec),
        &["-o", "json"],
    ));
    let changes = value["changes"].as_array().unwrap();
    assert!(
        changes.iter().all(|c| c["change"] == "allowed"),
        "{value:#}"
    );
    let from: Vec<&str> = changes.iter().flat_map(|c| labels(&c["from"])).collect();
    // The database's own node is at 192.168.0.1, and reaches db anyway; not so both-a, which runs
    // nowhere.
    for expect in ["node:n1", "192.168.0.0/24", "fd01::/64"] {
        assert!(from.contains(&expect), "{expect}: {from:?}");
    }
    assert!(
        !from.contains(&"elsewhere") && !from.contains(&"fd01::8000/113"),
        "{from:?}"
    );
    let of_node: Vec<&str> = changes
        .iter()
        .filter(|c| labels(&c["from"]).contains(&"node:n1"))
        .flat_map(|c| labels(&c["to"]))
        .collect();
    assert!(of_node.contains(&"shop/both-a"), "{of_node:?}");

    let egress = "{podSelector: {matchLabels: {app: job}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}";
    let done = diff(SHOP, &policy("shop", "v4", egress), &[]);
    assert!(
        done.stdout
            .contains("       IPv6 all: egress: isolated by shop/v4\n"),
        "{}",
        done.stdout
    );
    assert!(!done.stdout.contains("IPv4 "), "{}", done.stdout);
}

#[test]
fn json_has_every_pair_with_its_members_ports_and_rules() {
    let spec = "{podSelector: {matchLabels: {app: job}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80, endPort: 90}]}]}";
    let open = policy(
        "shop",
        "open",
        "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{}]}",
    );
    let done = diff(
        &format!("{SHOP}{open}"),
        &policy("shop", "job", spec),
        &["-o", "json"],
    );
    assert_eq!(done.code, 1);
    let value = json_of(&done);
    let change = &value["changes"][0];
    assert_eq!(value["changes"].as_array().unwrap().len(), 1, "{value:#}");
    assert_eq!(change["change"], "allowed");
    assert_eq!(
        change["from"],
        json!([{"label": "shop/web (2 pods)", "members": ["shop/web-0", "shop/web-1"]}])
    );
    assert_eq!(
        change["to"],
        json!([{"label": "shop/job", "members": ["shop/job"]}])
    );
    assert_eq!(change["pairs"], 2);
    let flow = &change["flows"][0];
    assert_eq!(
        flow["ports"],
        json!([{"protocol": "TCP", "first": 80, "last": 90}])
    );
    assert_eq!(flow["before"]["ingress"]["verdict"], "deny");
    assert_eq!(
        flow["before"]["ingress"]["rule"]["isolatedBy"][0]["name"],
        "default-deny"
    );
    assert_eq!(flow["after"]["ingress"]["rule"]["path"], "spec.ingress[0]");
    assert_eq!(flow["after"]["egress"]["rule"]["name"], "open");
    let summary = &value["summary"];
    assert_eq!(
        (&summary["changed"], &summary["allowed"], &summary["denied"]),
        (&json!(2), &json!(2), &json!(0))
    );
}

#[test]
fn a_change_for_all_is_one_block_and_not_one_per_pod() {
    let pod = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: a}}\nspec: {{containers: []}}\n"
        )
    };
    let base: String =
        ["p1", "p2", "p3"].map(pod).concat() + &policy("a", "d", "{podSelector: {}}");
    let open = policy(
        "a",
        "o",
        "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}",
    );
    let done = diff(&base, &open, &[]);
    assert_eq!(
        done.stdout,
        "denied -> allowed\n\n  a/p (3 pods)\n  -> a/p (3 pods)\n       all: ingress: a/o spec.ingress[0]\n\n\
         6 of 12 pairs change; policies: 1 before, 2 after\n"
    );
}

#[test]
fn a_cluster_network_policy_is_added_and_taken_away_like_others() {
    let deny = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
                metadata: {name: lock}\nspec:\n  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n  \
                ingress:\n  - action: Deny\n    from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]\n";
    let done = diff(SHOP, deny, &[]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    let expect = "  shop/web (2 pods)\n  -> shop/both-a, shop/db\n       5432/TCP: ingress: Admin lock spec.ingress[0]\n";
    assert!(done.stdout.contains(expect), "{}", done.stdout);
    assert!(
        done.stdout.ends_with("policies: 3 before, 4 after\n"),
        "{}",
        done.stdout
    );
    let files = Files::new(&[("x.yaml", &format!("{SHOP}---\n{deny}"))]);
    let done = weir("policy diff -f {} --without lock", files.dir());
    assert!(
        done.code == 1 && done.stdout.contains("denied -> allowed"),
        "{}",
        done.stdout
    );
    let done = weir("policy diff -f {} --without lok", files.dir());
    assert!(
        done.stderr
            .contains("the nearest is lock (ClusterNetworkPolicy)"),
        "{}",
        done.stderr
    );
}

#[test]
fn the_base_can_be_the_agents_objects() {
    let agent = FakeAgent::start("n1", objects(SHOP), &[]);
    let done = weir(
        "policy diff --socket {} --without shop/default-deny",
        &agent.socket(),
    );
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stdout.contains("denied -> allowed"), "{}", done.stdout);
}
