//! `weir policy matrix`: who reaches whom, in every format.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_agent::cli::Done;

use crate::support::{Files, weir};

/// Two namespaces: `a/web` reaches `a/db` on one of its two ports, `b/job` on another that it does not
/// declare; nobody reaches `a/web`, and `b/job` is open.
const WORLD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec: {containers: []}
status: {podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: a, labels: {app: db}}
spec: {containers: [{name: c, image: x, ports: [{containerPort: 5432}, {containerPort: 9187}]}]}
status: {podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: 'job', namespace: b, labels: {app: job}}
spec: {containers: []}
status: {podIPs: [{ip: 10.0.0.3}]}
---
apiVersion: v1
kind: Pod
metadata: {name: idle, namespace: b, labels: {app: idle}}
spec: {containers: []}
status: {podIPs: [{ip: 10.0.0.4}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: a}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: a}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - {from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}
  - {from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}, podSelector: {matchLabels: {app: job}}}], ports: [{port: 5432, endPort: 5440}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: a}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: idle, namespace: b}
spec: {podSelector: {matchLabels: {app: idle}}, policyTypes: [Egress]}
";

fn matrix(arguments: &str) -> Done {
    let files = Files::new(&[("x.yaml", WORLD)]);
    let line = format!("policy matrix -f {{}} {arguments}");
    weir(line.trim_end(), files.dir())
}

#[test]
fn a_namespaces_table_has_its_pods_and_those_elsewhere_who_reach_it() {
    let done = matrix("-n a");
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert_eq!(
        done.stdout,
        "       a/db       a/web  b/job\n\
         a/db              none   none\n\
         a/web  5432/TCP          none\n\
         b/job  5432/TCP+  none\n\
         \n\
         from rows to columns; ports that pass, of those the target declares; +: others too (--ports)\n"
    );
    let exact = matrix("-n a --ports").stdout;
    assert!(exact.contains("b/job  5432-5440/TCP  none\n"), "{exact}");
    assert_eq!(matrix("-n a --verbose").stdout, exact);
}

#[test]
fn all_namespaces_are_shown_by_default_and_outside_with_them() {
    let all = matrix("").stdout;
    assert_eq!(all, matrix("-A").stdout);
    for name in ["a/db", "b/idle", "elsewhere"] {
        assert!(all.contains(&format!("\n{name} ")), "{name}: {all}");
    }
    assert!(
        all.lines()
            .any(|line| line.starts_with("b/job ") && line.contains("all")),
        "{all}"
    );
}

#[test]
fn a_table_that_is_too_wide_has_numbers_and_then_signs() {
    let many: String = (0..40)
        .map(|n| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: pod-{n:02}, namespace: c, labels: {{n: '{n}'}}}}\n\
                 spec: {{containers: [{{name: c, image: x, ports: [{{containerPort: 80}}]}}]}}\n"
            )
        })
        .collect();
    let policy = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: c}\n\
                  spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}\n";
    let files = Files::new(&[("x.yaml", &format!("{many}{policy}"))]);
    let wide = weir("policy matrix -f {} -n c", files.dir()).stdout;
    assert!(
        wide.lines().all(|line| line.chars().count() <= 100),
        "{wide}"
    );
    assert!(wide.contains("\n 40 c/pod-39  + +"), "{wide}");
    assert!(
        wide.contains("just the ports that the target declares"),
        "{wide}"
    );
    let few: String = many.split_inclusive("---\n").take(10).collect();
    let files = Files::new(&[("x.yaml", &format!("{few}\n{policy}"))]);
    let numbered = weir("policy matrix -f {} -n c", files.dir()).stdout;
    assert!(numbered.contains("  1 c/pod-00"), "{numbered}");
    assert!(numbered.contains("80/TCP"), "{numbered}");
}

#[test]
fn json_has_every_end_and_every_judged_pair() {
    let value: Value = serde_json::from_str(&matrix("-n a -o json").stdout).unwrap();
    let ends = value["ends"].as_array().unwrap();
    assert_eq!(ends.len(), 3);
    assert_eq!(
        ends[0],
        json!({"label": "a/db", "namespace": "a", "inNamespace": true, "members": ["a/db"], "declared": [
            {"protocol": "TCP", "first": 5432, "last": 5432}, {"protocol": "TCP", "first": 9187, "last": 9187}]})
    );
    let cells = value["cells"].as_array().unwrap();
    let pairs: BTreeSet<(&str, &str)> = cells
        .iter()
        .map(|c| (c["from"].as_str().unwrap(), c["to"].as_str().unwrap()))
        .collect();
    assert_eq!((cells.len(), pairs.len()), (6, 6));
    let cell = cells
        .iter()
        .find(|c| c["from"] == "b/job" && c["to"] == "a/db");
    assert_eq!(
        cell.unwrap(),
        &json!({"from": "b/job", "to": "a/db", "verdict": "some", "declaredOnly": false,
                "ports": [{"protocol": "TCP", "first": 5432, "last": 5440}]})
    );
}

#[test]
fn csv_has_the_same_fields_as_the_table() {
    assert_eq!(
        matrix("-n a -o csv").stdout,
        "from \\ to,a/db,a/web,b/job\r\n\
         a/db,,none,none\r\n\
         a/web,5432/TCP,,none\r\n\
         b/job,5432/TCP+,none,\r\n"
    );
}

#[test]
fn dot_has_an_edge_for_each_pair_that_something_passes() {
    let dot = matrix("-n a -o dot").stdout;
    assert!(
        dot.starts_with("digraph policy {\n") && dot.ends_with("}\n"),
        "{dot}"
    );
    assert_eq!(dot.matches('{').count(), dot.matches('}').count());
    let edges: Vec<&str> = dot.lines().filter(|line| line.contains("->")).collect();
    assert_eq!(
        edges,
        [
            "  e1 -> e0 [label=\"5432/TCP\"];",
            "  e2 -> e0 [label=\"5432/TCP+\"];"
        ]
    );
    assert!(
        dot.contains("    label=\"a\";\n    e0 [label=\"a/db\"];"),
        "{dot}"
    );
}

/// Every tag of an XML text is closed in order, every attribute quoted; gives the tags.
fn well_formed(xml: &str) -> Vec<String> {
    let (mut open, mut seen) = (Vec::new(), Vec::new());
    let mut rest = xml;
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>'), "a bare > in {}", &rest[..at]);
        let end = at + rest[at..].find('>').expect("a tag that ends");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.split([' ', '/']).next().unwrap().to_owned();
        seen.push(name.clone());
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<String>::new());
    seen
}

#[test]
fn svg_is_well_formed_labelled_and_needs_nothing_else() {
    let svg = matrix("-n a -o svg").stdout;
    let tags = well_formed(&svg);
    let count = |name: &str| tags.iter().filter(|tag| *tag == name).count();
    // The ground, a field per pair, and the legend; a name at each row, column and entry.
    assert_eq!(
        (count("rect"), count("text"), count("svg")),
        (1 + 9 + 4, 6 + 4, 1)
    );
    assert!(
        svg.contains("<title>a/web -&gt; a/db: 5432/TCP</title>"),
        "{svg}"
    );
    assert!(svg.contains(">nothing passes</text>"), "{svg}");
    assert!(!svg.contains("href") && !svg.contains("url("), "{svg}");
}

#[test]
fn a_namespace_without_pods_is_an_error() {
    let done = matrix("-n nowhere");
    assert_eq!(done.code, 2);
    assert!(
        done.stderr.contains("namespace nowhere has no pods"),
        "{}",
        done.stderr
    );
}
