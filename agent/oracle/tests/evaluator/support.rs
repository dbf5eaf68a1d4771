//! A small cluster out of JSON, and questions about it.

use std::net::IpAddr;

use serde_json::{Value, json};
use weir_oracle::{
    Action, Answer, Cluster, Decision, End, Evaluator, Family, Protocol, Query, QueryError, Reason,
    Verdict,
};

pub fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A pod of namespace `a` on node `n1` unless `change` says otherwise.
pub fn pod(name: &str, app: &str, addresses: &[&str], change: Value) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "a", "labels": {"app": app}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [
            {"name": "http", "containerPort": 8080},
            {"name": "dns", "containerPort": 5353, "protocol": "UDP"},
        ]}]},
        "status": {"phase": "Running", "podIPs": ips},
    });
    merge(&mut pod, change);
    pod
}

pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

pub fn policy(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec})
}

/// A ClusterNetworkPolicy of the pods of app db in any namespace, unless `change` says otherwise.
pub fn cluster_policy(name: &str, tier: &str, change: Value) -> Value {
    let mut spec = json!({
        "tier": tier, "priority": 10,
        "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}}},
    });
    merge(&mut spec, change);
    json!({"metadata": {"name": name}, "spec": spec})
}

/// [`cluster`] with these ClusterNetworkPolicies as well.
pub fn tiers(cluster_policies: &[Value], policies: &[Value]) -> Cluster {
    Cluster {
        cluster_policies: cluster_policies.iter().map(|p| of(p.clone())).collect(),
        ..cluster(policies)
    }
}

/// Pods `a/web` and `a/db` on n1, `b/web` on n2 (namespace b is labelled `team=blue`), hostNetwork
/// pod `a/host` on n1, nodes n1 and n2 (role `N1` and `N2`) with the pod CIDRs 10.1.0.0/16 and
/// fd01::/16, 10.2.0.0/16 and fd02::/16; and these policies.
pub fn cluster(policies: &[Value]) -> Cluster {
    let other = json!({"metadata": {"namespace": "b"}, "spec": {"nodeName": "n2"}});
    let node = |name: &str, v4: &str, v6: &str| {
        let number = &name[1..];
        let cidrs = json!([format!("10.{number}.0.0/16"), format!("fd0{number}::/16")]);
        let metadata = json!({"name": name, "labels": {"role": name.to_uppercase()}});
        of(
            json!({"metadata": metadata, "spec": {"podCIDRs": cidrs}, "status": {"addresses": [
                {"type": "InternalIP", "address": v4}, {"type": "InternalIP", "address": v6},
                {"type": "Hostname", "address": name},
            ]}}),
        )
    };
    Cluster {
        namespaces: vec![of(
            json!({"metadata": {"name": "b", "labels": {"team": "blue"}}}),
        )],
        pods: vec![
            of(pod("web", "web", &["10.1.0.1", "fd01::1"], json!({}))),
            of(pod("db", "db", &["10.1.0.2", "fd01::2"], json!({}))),
            of(pod("web", "web", &["10.2.0.1", "fd02::1"], other)),
            of(pod(
                "host",
                "web",
                &["192.168.0.1"],
                json!({"spec": {"hostNetwork": true}}),
            )),
        ],
        policies: policies.iter().map(|p| of(p.clone())).collect(),
        nodes: vec![
            node("n1", "192.168.0.1", "fd00::1"),
            node("n2", "192.168.0.2", "fd00::2"),
        ],
        ..Cluster::default()
    }
}

/// `NS/POD`, `node:NAME` or an address.
pub fn end(text: &str) -> End {
    if let Some(node) = text.strip_prefix("node:") {
        return End::Node(node.to_owned());
    }
    match text.parse::<IpAddr>() {
        Ok(addr) => End::Address(addr),
        Err(_) => {
            let (namespace, name) = text.split_once('/').unwrap();
            End::Pod {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }
        }
    }
}

/// `PORT/PROTOCOL` or `icmp`.
pub fn query(from: &str, to: &str, port: &str) -> Query {
    let (port, protocol) = match port.split_once('/') {
        None => (None, Protocol::Icmp),
        Some((port, "tcp")) => (Some(port), Protocol::Tcp),
        Some((port, "udp")) => (Some(port), Protocol::Udp),
        Some((port, _)) => (Some(port), Protocol::Sctp),
    };
    Query {
        from: end(from),
        to: end(to),
        family: None,
        protocol,
        port: port.map(|p| p.parse().unwrap()),
        reply: false,
    }
}

pub fn ask(cluster: &Cluster, from: &str, to: &str, port: &str) -> Result<Answer, QueryError> {
    weir_oracle::evaluate(cluster, &query(from, to, port))
}

/// (egress, ingress) of a flow, `allow REASON` or `deny REASON`, in both families.
#[track_caller]
pub fn check(cluster: &Cluster, from: &str, to: &str, port: &str, egress: &str, ingress: &str) {
    let evaluator = Evaluator::new(cluster);
    for family in [Family::V4, Family::V6] {
        let mut query = query(from, to, port);
        let fixed = [&query.from, &query.to].into_iter().find_map(|e| match e {
            End::Address(addr) => Some(Family::of(*addr)),
            _ => None,
        });
        query.family = Some(fixed.unwrap_or(family));
        let answer = evaluator.evaluate(&query).unwrap();
        assert_eq!(shown(&answer.egress.decision), egress, "egress {query:?}");
        assert_eq!(
            shown(&answer.ingress.decision),
            ingress,
            "ingress {query:?}"
        );
        let both = egress.starts_with("allow") && ingress.starts_with("allow");
        assert_eq!(answer.verdict.allowed(), both);
    }
}

pub fn shown(decision: &Decision) -> String {
    let Decision {
        verdict,
        reason,
        rule,
        isolated_by,
    } = decision;
    let action = rule.as_ref().and_then(|r| r.action);
    let rule = rule
        .as_ref()
        .map(|r| format!(" {}:{}", r.name, r.path))
        .unwrap_or_default();
    assert_eq!(
        !rule.is_empty(),
        matches!(reason, Reason::Rule | Reason::Pass)
    );
    assert_eq!(!isolated_by.is_empty(), *reason == Reason::Isolated);
    let denies = *reason == Reason::Isolated || action == Some(Action::Deny);
    assert_eq!(*verdict == Verdict::Deny, denies);
    assert_eq!(*reason == Reason::Pass, action == Some(Action::Pass));
    let by: Vec<&str> = isolated_by.iter().map(|p| p.name.as_str()).collect();
    let by = if by.is_empty() {
        String::new()
    } else {
        format!(" {}", by.join("+"))
    };
    format!("{verdict} {reason}{rule}{by}")
}
