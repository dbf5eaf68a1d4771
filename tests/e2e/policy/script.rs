//! Reads `cases.txt`; its head says how it is written.

use std::path::Path;

use serde_json::Value;
use weir_lab::{Listen, Proto};

/// One case.
#[derive(Debug)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// Its policies.
    pub policies: Vec<Value>,
    /// What a person says of it.
    pub claims: Vec<Claim>,
}

/// What a person says of one connection.
#[derive(Debug)]
pub struct Claim {
    /// Who connects.
    pub from: String,
    /// To whom.
    pub to: String,
    /// Where.
    pub at: Listen,
    /// Whether it passes.
    pub passes: bool,
}

/// All cases of a text.
pub fn read(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    for line in lines {
        if let Some(name) = line.strip_prefix("case ") {
            let name = name.to_owned();
            cases.push(Case {
                name,
                policies: Vec::new(),
                claims: Vec::new(),
            });
            continue;
        }
        let number = cases.len();
        let case = cases.last_mut().expect("the text begins with a case");
        match line.split_at(2) {
            ("+ ", rest) => case.claims.extend(claims(rest, true)),
            ("- ", rest) => case.claims.extend(claims(rest, false)),
            _ => {
                let (namespace, spec) = line.split_once(": ").expect("NAMESPACE: SPEC");
                let name = format!("case-{number}-{}", case.policies.len());
                case.policies.push(policy(namespace, &name, spec));
            }
        }
    }
    cases
}

fn claims(text: &str, passes: bool) -> Vec<Claim> {
    text.split('|')
        .flat_map(|part| {
            let (from, targets) = part.split_once('>').expect("FROM > TO:PORT");
            targets.split_whitespace().map(move |target| {
                let (to, port) = target.rsplit_once(':').expect("TO:PORT");
                let (port, proto) = match port.split_once('/') {
                    Some((port, "udp")) => (port, Proto::Udp),
                    Some((_, other)) => panic!("protocol {other}"),
                    None => (port, Proto::Tcp),
                };
                Claim {
                    from: from.trim().to_owned(),
                    to: to.to_owned(),
                    at: Listen {
                        proto,
                        port: port.parse().expect("a port"),
                    },
                    passes,
                }
            })
        })
        .collect()
}

fn policy(namespace: &str, name: &str, spec: &str) -> Value {
    let text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{namespace: {namespace}, name: {name}}}\nspec: {spec}\n"
    );
    let parsed = weir_manifests::parse_bytes(Path::new(name), text.as_bytes());
    assert!(
        parsed.errors.is_empty() && parsed.warnings.is_empty(),
        "{spec}: {parsed:?}"
    );
    let object = parsed
        .objects
        .first()
        .expect("one policy")
        .object
        .to_json()
        .unwrap();
    // The object is the text: nothing of it was passed over.
    assert!(
        parsed.passed_over.is_empty(),
        "{spec}: {:?}",
        parsed.passed_over
    );
    object
}
