//! What `ports` does.

use serde_json::{Value, json};

use crate::policies::{FREE, egress, ingress};
use crate::support::{check, cluster};

#[test]
fn ports_match_by_protocol_number_and_range() {
    let (yes, no) = ("allow rule p:spec.ingress[0]", "deny isolated p");
    for (port, flow, wanted) in [
        (json!({"port": 80}), "80/tcp", yes),
        (json!({"port": 80}), "81/tcp", no),
        (json!({"port": 80}), "80/udp", no),
        (json!({"port": 80}), "icmp", no),
        (json!({"protocol": "UDP", "port": 80}), "80/udp", yes),
        (json!({"protocol": "SCTP", "port": 80}), "80/sctp", yes),
        (json!({"protocol": "SCTP", "port": 80}), "80/tcp", no),
        (json!({"port": 80, "endPort": 90}), "80/tcp", yes),
        (json!({"port": 80, "endPort": 90}), "90/tcp", yes),
        (json!({"port": 80, "endPort": 90}), "79/tcp", no),
        (json!({"port": 80, "endPort": 90}), "91/tcp", no),
        (json!({"port": 80, "endPort": 80}), "80/tcp", yes),
        (json!({"port": 1, "endPort": 65535}), "65535/tcp", yes),
        // Without a port: all of the protocol, TCP if none is said.
        (json!({}), "1/tcp", yes),
        (json!({}), "1/udp", no),
        (json!({"protocol": "UDP"}), "65535/udp", yes),
        (json!({"protocol": "UDP"}), "icmp", no),
    ] {
        let c = cluster(&[ingress(json!([{"ports": [port]}]))]);
        check(&c, "a/web", "a/db", flow, FREE, wanted);
    }
}

#[test]
fn a_named_port_is_the_destination_pods_in_both_directions() {
    let named = json!([{"ports": [{"port": "http"}, {"port": "dns", "protocol": "UDP"}]}]);
    let c = cluster(&[ingress(named.clone())]);
    let yes = "allow rule p:spec.ingress[0]";
    check(&c, "a/web", "a/db", "8080/tcp", FREE, yes);
    check(&c, "a/web", "a/db", "5353/udp", FREE, yes);
    check(&c, "a/web", "a/db", "8080/udp", FREE, "deny isolated p");
    check(&c, "a/web", "a/db", "5353/tcp", FREE, "deny isolated p");
    check(&c, "a/web", "a/db", "80/tcp", FREE, "deny isolated p");
    let c = cluster(&[egress(named)]);
    check(
        &c,
        "a/web",
        "a/db",
        "8080/tcp",
        "allow rule p:spec.egress[0]",
        FREE,
    );
    check(&c, "a/web", "a/db", "80/tcp", "deny isolated p", FREE);
    // Addresses without a pod have no named ports, nodes and hostNetwork pods neither.
    check(
        &c,
        "a/web",
        "203.0.113.1",
        "8080/tcp",
        "deny isolated p",
        "allow not-subject",
    );
    check(
        &c,
        "a/web",
        "node:n2",
        "8080/tcp",
        "deny isolated p",
        "allow not-subject",
    );
    check(
        &c,
        "a/web",
        "a/host",
        "8080/tcp",
        "deny isolated p",
        "allow not-subject",
    );
}

#[test]
fn named_ports_of_sidecars_count_and_those_of_ordinary_init_containers_do_not() {
    for (restart, wanted) in [
        (json!("Always"), "allow rule p:spec.ingress[0]"),
        (Value::Null, "deny isolated p"),
    ] {
        let mut c = cluster(&[ingress(json!([{"ports": [{"port": "mesh"}]}]))]);
        let init = json!({"name": "i", "restartPolicy": restart, "ports": [
            {"name": "mesh", "containerPort": 15000},
        ]});
        let db = crate::support::pod(
            "db",
            "db",
            &["10.1.0.2", "fd01::2"],
            json!({"spec": {"initContainers": [init]}}),
        );
        c.pods[1] = crate::support::of(db);
        check(&c, "a/web", "a/db", "15000/tcp", FREE, wanted);
    }
}
