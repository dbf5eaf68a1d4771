//! `weir policy trace` offline: its text, its limits, its exit status.

use serde_json::Value;

use crate::support::{Files, SHOP, trace, weir};

#[test]
fn a_denied_flow_is_explained_at_both_ends() {
    let done = trace("shop/job shop/db --port pg");
    assert_eq!(done.code, 1);
    assert_eq!(
        done.stdout,
        "\
DENIED  shop/job -> shop/db, 5432/TCP, IPv4
cause: ingress of pod shop/db: isolated by shop/db, shop/default-deny, none of whose 2 rules matches

egress of pod shop/job (10.2.0.3) on node n2: allowed: no policy selects the pod
  kernel: not asked (node n2)

ingress of pod shop/db (10.1.0.2) on node n1: denied: isolated, and no rule matches
  NetworkPolicy shop/db selects it by app=db
    spec.ingress[0] no match: peer: from[0] pod is not app=admin
    spec.ingress[1] no match: peer: from[0] pod is not app=web
  NetworkPolicy shop/default-deny selects it by {}, and has no rules
  1 more in the namespace does not select it for ingress
  kernel: not asked (node n1)
"
    );
    assert!(done.stderr.is_empty(), "{}", done.stderr);
}

#[test]
fn an_allowed_flow_names_the_rules_that_allow_it() {
    let done = trace("shop/web shop/db --port pg");
    assert_eq!(done.code, 0);
    assert_eq!(
        done.stdout,
        "\
ALLOWED  shop/web -> shop/db, 5432/TCP, IPv4
cause: egress allowed by NetworkPolicy shop/web-out spec.egress[0]
cause: ingress allowed by NetworkPolicy shop/db spec.ingress[1]

egress of pod shop/web-0: allowed by NetworkPolicy shop/web-out spec.egress[0]
  NetworkPolicy shop/web-out selects it by app=web
    spec.egress[0] matches: to[0] podSelector app=db, any port
  2 more in the namespace do not select it for egress
  kernel: not asked (node unknown)

ingress of pod shop/db (10.1.0.2) on node n1: allowed by NetworkPolicy shop/db spec.ingress[1]
  NetworkPolicy shop/db selects it by app=db
    spec.ingress[0] no match: peer: from[0] pod is not app=admin
    spec.ingress[1] matches: from[0] podSelector app=web, port \"pg\"/TCP
  1 more in the namespace does not select it for ingress
  kernel: not asked (node n1)
"
    );
}

#[test]
fn a_service_is_traced_to_its_backends() {
    let done = trace("shop/job svc:shop/web --port www --family ipv6");
    assert_eq!(done.code, 1);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines[0], "DENIED  shop/job -> svc:shop/web, 8080/TCP, IPv6");
    assert_eq!(
        lines[2],
        "service shop/web: backend shop/web-0 8080/TCP deny (1 of 2 backends, all with this verdict)"
    );
}

#[test]
fn backends_that_differ_are_an_error_unless_one_is_named() {
    let done = trace("shop/web svc:shop/both --port 5432");
    assert_eq!(done.code, 2);
    assert!(done.stdout.is_empty());
    let listed = "shop/both-a 5432/TCP allow, shop/both-b 5432/TCP deny";
    assert!(done.stderr.contains(listed), "{}", done.stderr);
    assert_eq!(
        trace("shop/web svc:shop/both --port 5432 --backend shop/both-a").code,
        0
    );
    assert_eq!(
        trace("shop/web svc:shop/both --port 5432 --backend shop/both-b").code,
        1
    );
    assert_eq!(
        trace("shop/web svc:shop/both --port 5432 --backend shop/db").code,
        2
    );
}

#[test]
fn ends_may_be_flags_nodes_and_addresses() {
    assert_eq!(
        trace("--from shop/web --to ip:203.0.113.1 --port 443").code,
        0
    );
    assert_eq!(trace("shop/web 203.0.113.129 --port 443").code, 1);
    assert_eq!(trace("shop/web 203.0.113.1 --port 443/udp").code, 1);
    assert_eq!(trace("node:n1 shop/db --port 1").code, 0);
    assert_eq!(trace("192.168.0.1 shop/db --protocol ICMP").code, 0);
    assert_eq!(trace("node:n1 shop/job --port 1").code, 1);
    assert_eq!(trace("10.2.0.3 10.1.0.2 --port 5432").code, 1);
    // -n completes bare names.
    assert_eq!(trace("-n shop web db --port pg/TCP").code, 0);
}

#[test]
fn a_reply_is_judged_by_the_connection_it_answers() {
    let done = trace("shop/db shop/web --port pg --state reply");
    assert_eq!(done.code, 0);
    assert!(
        done.stdout
            .starts_with("ALLOWED  shop/db -> shop/web, 5432/TCP, IPv4, reply\n")
    );
    assert_eq!(trace("shop/db shop/job --port pg --state reply").code, 1);
}

#[test]
fn questions_without_an_answer_exit_with_2_and_say_why() {
    for (arguments, wanted) in [
        ("shop/dv shop/db --port 1", "did you mean shop/db?"),
        ("shop/job shop/db", "TCP needs a port"),
        ("shop/job shop/db --port http", "no TCP port named \"http\""),
        ("shop/job shop/db --port 0", "must be 1 to 65535"),
        ("shop/job shop/db --port 70000", "must be 1 to 65535"),
        (
            "shop/job shop/db --port 80/foo",
            "none of tcp, udp, sctp, icmp",
        ),
        (
            "shop/job shop/db --port 80/udp --protocol tcp",
            "port says UDP, protocol says TCP",
        ),
        (
            "shop/job shop/db --port 80 --protocol icmp",
            "ICMP takes no port",
        ),
        ("shop/job svc:shop/nobody --port 80", "has no endpoints"),
        ("shop/job svc:shop/nix --port 80", "no such service"),
        ("shop/job svc:shop/web --port 81", "has no port 81"),
        ("shop/job svc:shop/web", "which port"),
        ("svc:shop/web shop/db --port 80", "only for the target"),
        (
            "shop/job shop/db --port 80 --backend shop/db",
            "needs a svc:",
        ),
        ("shop/job ip:nix --port 80", "no IP address"),
        ("shop/job node:n9 --port 80", "no node n9"),
        ("shop/job a/b/c --port 80", "not of the form NS/NAME"),
        (
            "shop/job ip:2001:db8::1 --port 80 --family IPv4",
            "is no IPv4 address",
        ),
        (
            "shop/job shop/db --port 80 --family 4",
            "neither IPv4 nor IPv6",
        ),
        (
            "shop/job shop/db --port 80 --state old",
            "neither reply nor new",
        ),
    ] {
        let done = trace(arguments);
        assert_eq!(done.code, 2, "{arguments}: {}", done.stdout);
        assert!(done.stdout.is_empty());
        assert!(done.stderr.contains(wanted), "{arguments}: {}", done.stderr);
    }
}

#[test]
fn a_denied_report_of_many_policies_fits_40_lines_of_100_columns() {
    let mut text = SHOP.to_owned();
    let long = "x".repeat(60);
    for i in 0..30 {
        for (section, other, kind) in [("ingress", "from", "Ingress"), ("egress", "to", "Egress")] {
            text += &format!(
                "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p-{i}-{section}-{long}, namespace: shop}}\n\
                 spec: {{podSelector: {{}}, policyTypes: [{kind}], {section}: [{{{other}: [{{podSelector: {{matchLabels: {{app: {long}, b: {long}}}}}}}]}}, \
                 {{ports: [{{port: 1}}, {{port: 2}}]}}]}}\n"
            );
        }
    }
    let files = Files::new(&[("x.yaml", &text)]);
    let done = weir(
        "policy trace -f {} shop/job shop/db --port 5432",
        files.dir(),
    );
    assert_eq!(done.code, 1);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(lines.len() <= 40, "{} lines", lines.len());
    assert!(
        lines.len() >= 35,
        "room is left unused: {} lines",
        lines.len()
    );
    assert!(lines.iter().all(|line| line.chars().count() <= 100));
    assert!(lines[0].starts_with("DENIED"));
    assert!(lines[1].starts_with("cause: egress of pod shop/job: isolated by "));
    assert!(lines[2].starts_with("cause: ingress of pod shop/db: isolated by "));
    assert!(done.stdout.contains("more lines: --verbose shows them"));
    let all = weir(
        "policy trace -v -f {} shop/job shop/db --port 5432",
        files.dir(),
    );
    assert!(all.stdout.lines().count() > 150);
    assert!(!all.stdout.contains("more lines"));
}

#[test]
fn json_has_the_same_facts() {
    let done = trace("shop/job shop/db --port 5432 -o json");
    assert_eq!(done.code, 1);
    let value: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(value["verdict"], "deny");
    assert_eq!(value["port"], 5432);
    assert_eq!(value["ingress"]["reason"], "isolated");
    assert_eq!(value["ingress"]["isolatedBy"][0]["name"], "db");
    assert_eq!(
        value["ingress"]["policies"][0]["rules"][1]["matches"],
        false
    );
    assert_eq!(value["ingress"]["kernel"]["state"], "not-asked");
    assert_eq!(value["egress"]["reason"], "not-selected");
}

#[test]
fn a_broken_manifest_is_named_and_the_rest_is_judged() {
    let files = Files::new(&[("a.yaml", SHOP), ("b.yaml", "kind: [\n")]);
    let done = weir("policy trace -f {} shop/web shop/db --port pg", files.dir());
    assert_eq!(done.code, 2);
    assert!(done.stdout.starts_with("ALLOWED"));
    assert!(done.stderr.contains("b.yaml:"), "{}", done.stderr);
}

#[test]
fn the_cause_names_every_isolating_policy_that_fits_its_line() {
    let policy = |name: &str, rule: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: {name}, namespace: team}}\nspec: {{podSelector: {{}}, ingress: [{rule}]}}\n"
        )
    };
    let pods = "\
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: team}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: team}
";
    let rule = "{from: [{podSelector: {matchLabels: {app: x}}}]}";
    let three = ["first-policy", "second-policy", "third-policy"].map(|n| policy(n, rule));
    let files = Files::new(&[("all.yaml", &format!("{pods}{}", three.concat()))]);
    let done = weir("policy trace -f {} team/a team/b --port 80", files.dir());
    assert_eq!(
        done.stdout.lines().nth(1),
        Some(
            "cause: ingress of pod team/b: isolated by team/first-policy, team/second-policy, team/third-policy"
        )
    );
}
