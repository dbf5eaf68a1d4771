//! `weir policy test`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_agent::cli::Done;

use crate::support::{Files, SHOP, weir};

fn test(probes: &str, more: &str) -> Done {
    let files = Files::new(&[("shop.yaml", SHOP), ("probes", probes)]);
    let dir = files.dir().to_str().unwrap().to_owned();
    weir(
        &format!("policy test --manifests {dir}/shop.yaml --probes {{}}{more}"),
        &files.path("probes"),
    )
}

fn tested(probes: &str) -> (Value, u8) {
    let done = test(probes, " --output json");
    (serde_json::from_str(&done.stdout).unwrap(), done.code)
}

#[test]
fn the_document_is_the_one_that_is_promised() {
    let done = test(
        "- {note: first, to: shop/db, from: shop/web, port: pg, allow: yes, verdict: mine, error: mine}\n\
         - {from: shop/job, to: shop/db, port: 5432}\n",
        " -o json",
    );
    let wanted = r#"{
  "probes": [
    {
      "note": "first",
      "to": "shop/db",
      "from": "shop/web",
      "port": "pg",
      "allow": true,
      "verdict": "allow",
      "egress": {
        "verdict": "allow",
        "reason": "rule",
        "rule": {
          "kind": "NetworkPolicy",
          "namespace": "shop",
          "name": "web-out",
          "path": "spec.egress[0]"
        }
      },
      "ingress": {
        "verdict": "allow",
        "reason": "rule",
        "rule": {
          "kind": "NetworkPolicy",
          "namespace": "shop",
          "name": "db",
          "path": "spec.ingress[1]"
        }
      }
    },
    {
      "from": "shop/job",
      "to": "shop/db",
      "port": 5432,
      "verdict": "deny",
      "egress": {
        "verdict": "allow",
        "reason": "not-selected"
      },
      "ingress": {
        "verdict": "deny",
        "reason": "isolated",
        "isolatedBy": [
          {
            "kind": "NetworkPolicy",
            "namespace": "shop",
            "name": "db",
            "path": "spec.podSelector"
          },
          {
            "kind": "NetworkPolicy",
            "namespace": "shop",
            "name": "default-deny",
            "path": "spec.podSelector"
          }
        ]
      }
    }
  ],
  "summary": {
    "total": 2,
    "agree": 1,
    "disagree": 0,
    "unchecked": 1,
    "errors": 0,
    "warnings": []
  }
}
"#;
    assert_eq!(done.stdout, wanted);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
}

#[test]
fn the_highest_exit_status_counts() {
    let holds = "- {from: shop/job, to: shop/db, port: 1, allow: false}\n";
    let fails = "- {from: shop/job, to: shop/db, port: 1, allow: true}\n";
    let wrong = "- {from: shop/nix, to: shop/db, port: 1, allow: true}\n";
    let unchecked = "- {from: shop/job, to: shop/db, port: 1}\n";
    for (probes, code) in [
        (holds.to_owned(), 0),
        (unchecked.to_owned(), 0),
        (format!("{holds}{fails}"), 1),
        (format!("{wrong}{holds}"), 2),
        (format!("{fails}{wrong}"), 2),
    ] {
        assert_eq!(tested(&probes).1, code, "{probes}");
        assert_eq!(test(&probes, "").code, code, "{probes}");
    }
}

#[test]
fn an_error_probe_says_why_and_the_others_are_judged() {
    let (document, code) = tested(
        "- {from: shop/job, to: 'svc:shop/nobody', port: 80, allow: true}\n\
         - {from: shop/web, to: 'svc:shop/both', port: 5432}\n\
         - {from: shop/web, to: 'svc:shop/both', port: 5432, backend: shop/both-a, allow: true}\n\
         - {from: shop/web-1, to: shop/both-b, port: 443, family: IPv6}\n\
         - 7\n",
    );
    assert_eq!(code, 2);
    let probes = document["probes"].as_array().unwrap();
    let errors: Vec<&str> = probes
        .iter()
        .map(|p| p["error"].as_str().unwrap_or(""))
        .collect();
    assert!(errors[0].contains("has no endpoints"), "{errors:?}");
    assert!(
        errors[1].contains("shop/both-a 5432/TCP allow, shop/both-b 5432/TCP deny"),
        "{errors:?}"
    );
    assert_eq!((errors[2], &probes[2]["verdict"]), ("", &json!("allow")));
    assert_eq!(errors[3], "", "an IPv4 block says nothing of IPv6");
    assert!(errors[4].contains("mapping"), "{errors:?}");
    assert_eq!(probes[0]["verdict"], "error");
    assert_eq!(probes[0].get("egress"), None);
    let summary = &document["summary"];
    assert_eq!(
        (&summary["total"], &summary["errors"], &summary["agree"]),
        (&json!(5), &json!(3), &json!(1))
    );
}

#[test]
fn a_verdict_that_hangs_on_a_missing_address_is_an_error() {
    let policy = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: block, namespace: shop}\n\
                  spec: {podSelector: {matchLabels: {app: job}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}\n";
    let files = Files::new(&[
        ("shop.yaml", &format!("{SHOP}{policy}")),
        (
            "probes.txt",
            "- {from: shop/job, to: shop/both-a, port: 1}\n- {from: shop/job, to: shop/db, port: 1}\n",
        ),
    ]);
    let dir = files.dir().to_str().unwrap().to_owned();
    let done = weir(
        &format!("policy test -f {dir} -p {{}} -o json"),
        &files.path("probes.txt"),
    );
    let document: Value = serde_json::from_str(&done.stdout).unwrap();
    let error = document["probes"][0]["error"].as_str().unwrap();
    assert!(
        error.contains("an address that pod shop/both-a does not have"),
        "{error}"
    );
    assert_eq!(document["probes"][1]["egress"]["reason"], "rule");
}

#[test]
fn replies_nodes_and_icmp_are_probed() {
    let (document, code) = tested(
        "probes:\n\
         - {from: shop/db, to: shop/web, port: pg, state: reply, allow: true}\n\
         - {from: shop/db, to: shop/job, port: 5432, state: reply, allow: false}\n\
         - {from: 'node:n1', to: shop/db, protocol: icmp, allow: true}\n\
         - {from: 'ip:198.51.100.1', to: shop/db, protocol: Icmp, allow: false}\n\
         - {from: shop/db, to: shop/db, port: 1, protocol: SCTP, allow: true}\n",
    );
    assert_eq!(code, 0, "{document:#}");
    let reasons: Vec<(&Value, &Value)> = document["probes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (&p["egress"]["reason"], &p["ingress"]["reason"]))
        .collect();
    assert_eq!(
        json!(reasons),
        json!([
            ["reply", "reply"],
            ["isolated", "reply"],
            ["not-subject", "own-node"],
            ["not-subject", "isolated"],
            ["self", "self"]
        ])
    );
}

#[test]
fn warnings_of_the_objects_are_in_the_summary() {
    let files = Files::new(&[
        ("a.yaml", SHOP),
        (
            "b.yaml",
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: bad, namespace: shop}\n\
             spec: {podSelector: {}, ingress: [{ports: [{port: 0}]}]}\n---\nkind: [\n",
        ),
        (
            "probes.txt",
            "- {from: shop/job, to: shop/both-a, port: 1, allow: false}\n",
        ),
    ]);
    let dir = files.dir().to_str().unwrap().to_owned();
    let done = weir(
        &format!("policy test -f {dir} -p {{}} -o json"),
        &files.path("probes.txt"),
    );
    assert_eq!(done.code, 2, "a document does not parse");
    let document: Value = serde_json::from_str(&done.stdout).unwrap();
    let warnings = document["summary"]["warnings"].to_string();
    assert!(
        warnings.contains("NetworkPolicy shop/bad: spec.ingress[0].ports[0].port"),
        "{warnings}"
    );
    assert!(warnings.contains("b.yaml:"), "{warnings}");
    assert!(done.stderr.contains("b.yaml:"), "{}", done.stderr);
}

#[test]
fn strict_fails_on_what_is_passed_over_and_show_ignored_lists_it() {
    let files = Files::new(&[
        ("a.yaml", SHOP),
        (
            "b.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
        ),
        ("probes.txt", "[]\n"),
    ]);
    let dir = files.dir().to_str().unwrap().to_owned();
    let run = |more: &str| {
        weir(
            &format!("policy test -f {dir} -p {{}}{more}"),
            &files.path("probes.txt"),
        )
    };
    assert_eq!(run("").code, 0);
    let listed = run(" --show-ignored");
    assert_eq!(listed.code, 0);
    assert!(
        listed.stderr.contains("b.yaml:1: kind ConfigMap"),
        "{}",
        listed.stderr
    );
    assert_eq!(run(" --strict").code, 2);
}

#[test]
fn bad_input_exits_with_2() {
    assert_eq!(test("probes: 7\n", "").code, 2);
    assert_eq!(test("- [\n", "").code, 2);
    let files = Files::shop();
    let done = weir("policy test -f {} -p /nowhere/p.yaml", files.dir());
    assert_eq!(done.code, 2);
    assert!(done.stderr.contains("/nowhere/p.yaml"));
}

#[test]
fn thousands_of_probes_take_well_under_a_second() {
    let mut text = String::new();
    for app in 0..50 {
        text += &format!(
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: app-{app}, namespace: big}}\n\
             spec: {{replicas: 4, selector: {{}}, template: {{metadata: {{labels: {{app: a{app}}}}}, spec: {{containers: [{{name: c}}]}}}}}}\n\
             ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p-{app}, namespace: big}}\n\
             spec: {{podSelector: {{matchLabels: {{app: a{app}}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: a{}}}}}}}], ports: [{{port: 80}}]}}]}}\n",
            (app + 1) % 50
        );
    }
    let mut probes = Vec::new();
    for i in 0..5000 {
        let (from, to) = (i % 50, i * 7 % 50);
        probes.push(json!({
            "from": format!("big/app-{from}-{}", i % 4), "to": format!("big/app-{to}"), "port": 80,
            "allow": from == (to + 1) % 50 || (from == to && i % 4 == 0),
        }));
    }
    let files = Files::new(&[
        ("big.yaml", &text),
        ("probes.json", &json!(probes).to_string()),
    ]);
    let dir = files.dir().to_str().unwrap().to_owned();
    let start = Instant::now();
    let done = weir(
        &format!("policy test -f {dir}/big.yaml -p {{}} -o json"),
        &files.path("probes.json"),
    );
    let took = start.elapsed();
    let document: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(
        document["summary"]["agree"], 5000,
        "{}",
        document["summary"]
    );
    assert_eq!(done.code, 0);
    // An unoptimised build on a busy machine; a release build takes a tenth.
    assert!(took < Duration::from_secs(5), "{took:?}");
}
