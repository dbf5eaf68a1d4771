//! From a Service's port to its backends.

use crate::support::{cluster, end, of, pod};
use serde_json::{Value, json};
use weir_oracle::{Backend, Cluster, Evaluator, Protocol, QueryError, ServicePort};

fn service(change: Value) -> Value {
    let mut service = json!({
        "metadata": {"name": "s", "namespace": "a"},
        "spec": {"selector": {"app": "web"}, "ports": [
            {"name": "main", "port": 80, "targetPort": "http"},
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353},
            {"name": "same", "port": 7},
        ]},
    });
    crate::support::merge(&mut service, change);
    service
}

fn with(change: Value) -> Cluster {
    let mut c = cluster(&[]);
    c.services.push(of(service(change)));
    c
}

fn backends(
    c: &Cluster,
    port: ServicePort,
    protocol: Option<Protocol>,
) -> Result<Vec<Backend>, QueryError> {
    Evaluator::new(c).backends("a", "s", &port, protocol)
}

fn shown(c: &Cluster, port: ServicePort) -> Vec<String> {
    let list = backends(c, port, None).unwrap();
    list.iter()
        .map(|b| format!("{} {}/{}", b.end, b.port, b.protocol))
        .collect()
}

#[test]
fn without_slices_a_service_follows_its_selector_in_its_namespace() {
    let c = with(json!({}));
    // a/host has the label too; it is reachable at its node's address.
    assert_eq!(
        shown(&c, ServicePort::Number(80)),
        ["a/host 8080/TCP", "a/web 8080/TCP"]
    );
    assert_eq!(
        shown(&c, ServicePort::Name("main".into())),
        ["a/host 8080/TCP", "a/web 8080/TCP"]
    );
    assert_eq!(
        shown(&c, ServicePort::Number(53)),
        ["a/host 5353/UDP", "a/web 5353/UDP"]
    );
    assert_eq!(
        shown(&c, ServicePort::Number(7)),
        ["a/host 7/TCP", "a/web 7/TCP"]
    );
}

#[test]
fn readiness_decides_and_terminating_pods_that_serve_are_the_fallback() {
    let mut c = with(json!({"spec": {"selector": {"app": "r"}}}));
    let ready =
        |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
    let mut gone = ready("True");
    gone["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
    c.pods
        .push(of(pod("bad", "r", &["10.1.1.1"], ready("False"))));
    c.pods.push(of(pod("gone", "r", &["10.1.1.2"], gone)));
    assert_eq!(shown(&c, ServicePort::Number(7)), ["a/gone 7/TCP"]);
    c.pods
        .push(of(pod("good", "r", &["10.1.1.3"], ready("True"))));
    assert_eq!(shown(&c, ServicePort::Number(7)), ["a/good 7/TCP"]);
    c.services[0]
        .spec
        .as_mut()
        .unwrap()
        .publish_not_ready_addresses = Some(true);
    assert_eq!(
        shown(&c, ServicePort::Number(7)),
        ["a/bad 7/TCP", "a/gone 7/TCP", "a/good 7/TCP"]
    );
}

#[test]
fn slices_win_over_the_selector_and_families_are_joined() {
    let mut c = with(json!({}));
    let slice = |name: &str, kind: &str, addr: &str, target: Value| {
        of(json!({
            "metadata": {"name": name, "namespace": "a", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": kind,
            "ports": [{"name": "main", "port": 9, "protocol": "TCP"}],
            "endpoints": [{"addresses": [addr], "targetRef": target}],
        }))
    };
    let db = json!({"kind": "Pod", "name": "db", "namespace": "a"});
    c.endpoint_slices
        .push(slice("1", "IPv4", "10.1.0.2", db.clone()));
    c.endpoint_slices.push(slice("2", "IPv6", "fd01::2", db));
    c.endpoint_slices
        .push(slice("3", "IPv4", "203.0.113.7", Value::Null));
    let list = backends(&c, ServicePort::Number(80), None).unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!((list[0].end.clone(), list[0].port), (end("a/db"), 9));
    assert_eq!(list[0].addresses.len(), 2);
    assert_eq!(list[1].end, end("203.0.113.7"));
    // A port that the slices do not have.
    assert!(backends(&c, ServicePort::Number(7), None).is_err());
}

#[test]
fn a_headless_service_does_not_translate_numbers() {
    let c = with(json!({"spec": {"clusterIP": "None"}}));
    assert_eq!(shown(&c, ServicePort::Number(80))[1], "a/web 80/TCP");
    assert_eq!(
        shown(&c, ServicePort::Name("main".into()))[1],
        "a/web 8080/TCP"
    );
}

#[test]
fn services_that_lead_nowhere_are_errors_that_say_why() {
    let error = |c: &Cluster, port: ServicePort, protocol| {
        backends(c, port, protocol).unwrap_err().to_string()
    };
    let c = with(json!({}));
    let number = ServicePort::Number;
    assert!(
        error(&c, number(81), None)
            .contains("has no port 81; it has 80/TCP (main), 53/UDP (dns), 7/TCP (same)")
    );
    assert!(error(&c, number(80), Some(Protocol::Udp)).contains("has no port 80/UDP"));
    assert!(error(&c, ServicePort::Name("x".into()), None).contains("has no port \"x\""));
    assert!(error(&cluster(&[]), number(80), None).contains("no such service"));
    let nobody = with(json!({"spec": {"selector": {"app": "nobody"}}}));
    assert!(error(&nobody, number(80), None).contains("has no endpoints"));
    let external = with(json!({"spec": {"type": "ExternalName"}}));
    assert!(error(&external, number(80), None).contains("ExternalName"));
}
