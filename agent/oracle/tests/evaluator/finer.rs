//! The finer points of `networking.k8s.io/v1`.

use serde_json::{Value, json};
use weir_oracle::PartyKind;

use crate::policies::{FREE, egress, ingress};
use crate::support::{ask, check, cluster, of, pod, policy};

const OUT: &str = "allow not-subject";
const IN: &str = "allow rule p:spec.ingress[0]";
const TO: &str = "allow rule p:spec.egress[0]";
const DENY: &str = "deny isolated p";

#[test]
fn a_named_port_is_another_number_on_another_pod() {
    let named = json!([{"ports": [{"port": "http"}]}]);
    let at = |number: u16| {
        json!({"metadata": {"namespace": "b"}, "spec": {"containers": [{"name": "c", "ports": [
            {"name": "http", "containerPort": number},
        ]}]}})
    };
    let more = || {
        let pods = [("x", 9090, "10.2.0.8"), ("y", 8080, "10.2.0.9")];
        pods.map(|(name, number, address)| of(pod(name, "web", &[address], at(number))))
    };
    let mut c = cluster(&[egress(named.clone())]);
    c.pods.extend(more());
    check(&c, "a/web", "b/x", "9090/tcp", TO, FREE);
    check(&c, "a/web", "b/x", "8080/tcp", DENY, FREE);
    check(&c, "a/web", "b/y", "8080/tcp", TO, FREE);
    check(&c, "a/web", "b/y", "9090/tcp", DENY, FREE);
    // Towards the pods that one policy selects as well.
    let mut c = cluster(&[policy("p", json!({"ingress": named}))]);
    for mut pod in more() {
        pod.metadata.namespace = Some("a".to_owned());
        c.pods.push(pod);
    }
    check(&c, "b/web", "a/x", "9090/tcp", FREE, IN);
    check(&c, "b/web", "a/x", "8080/tcp", FREE, DENY);
    check(&c, "b/web", "a/y", "8080/tcp", FREE, IN);
    check(&c, "b/web", "a/db", "9090/tcp", FREE, DENY);
}

#[test]
fn of_equal_port_names_the_first_container_counts() {
    let containers = json!({"spec": {"containers": [
        {"name": "c", "ports": [{"name": "http", "containerPort": 1}]},
        {"name": "d", "ports": [{"name": "http", "containerPort": 2}]},
    ]}});
    let mut c = cluster(&[ingress(json!([{"ports": [{"port": "http"}]}]))]);
    c.pods[1] = of(pod("db", "db", &["10.1.0.2", "fd01::2"], containers));
    check(&c, "a/web", "a/db", "1/tcp", FREE, IN);
    check(&c, "a/web", "a/db", "2/tcp", FREE, DENY);
}

#[test]
fn end_port_reaches_to_the_limits_and_no_further() {
    for (port, inside, outside) in [
        (json!({"port": 1, "endPort": 1}), "1/tcp", "2/tcp"),
        (
            json!({"port": 65535, "endPort": 65535}),
            "65535/tcp",
            "65534/tcp",
        ),
        (
            json!({"port": 65534, "endPort": 65535}),
            "65535/tcp",
            "65533/tcp",
        ),
        (
            json!({"port": 1, "endPort": 65534}),
            "65534/tcp",
            "65535/tcp",
        ),
        (
            json!({"port": 7, "endPort": 9, "protocol": "SCTP"}),
            "9/sctp",
            "9/tcp",
        ),
        (
            json!({"port": 7, "endPort": 9, "protocol": "UDP"}),
            "7/udp",
            "10/udp",
        ),
    ] {
        let c = cluster(&[ingress(json!([{"ports": [port]}]))]);
        check(&c, "a/web", "a/db", inside, FREE, IN);
        check(&c, "a/web", "a/db", outside, FREE, DENY);
    }
}

#[test]
fn an_empty_selector_of_a_peer_is_not_a_missing_one() {
    for (peer, same, other) in [
        (json!({"podSelector": {}}), IN, DENY),
        (
            json!({"podSelector": {}, "namespaceSelector": null}),
            IN,
            DENY,
        ),
        (json!({"namespaceSelector": {}}), IN, IN),
        (json!({"podSelector": {}, "namespaceSelector": {}}), IN, IN),
        (
            json!({"podSelector": {"matchLabels": {}, "matchExpressions": []}}),
            IN,
            DENY,
        ),
    ] {
        let c = cluster(&[ingress(json!([{"from": [peer]}]))]);
        check(&c, "a/web", "a/db", "80/tcp", FREE, same);
        check(&c, "b/web", "a/db", "80/tcp", FREE, other);
    }
}

#[test]
fn the_labels_that_count_are_those_the_objects_have_now() {
    let rule = json!([{"from": [{
        "namespaceSelector": {"matchLabels": {"team": "blue"}},
        "podSelector": {"matchLabels": {"app": "web"}},
    }]}]);
    let mut c = cluster(&[ingress(rule)]);
    check(&c, "b/web", "a/db", "80/tcp", FREE, IN);
    c.pods[2]
        .metadata
        .labels
        .as_mut()
        .unwrap()
        .insert("app".to_owned(), "x".to_owned());
    check(&c, "b/web", "a/db", "80/tcp", FREE, DENY);
    c.pods[2]
        .metadata
        .labels
        .as_mut()
        .unwrap()
        .insert("app".to_owned(), "web".to_owned());
    c.namespaces[0].metadata.labels = None;
    check(&c, "b/web", "a/db", "80/tcp", FREE, DENY);
    // And of the pod that is selected.
    c.pods[1].metadata.labels = None;
    check(&c, "b/web", "a/db", "80/tcp", FREE, FREE);
}

#[test]
fn a_namespace_cannot_call_itself_otherwise() {
    let name = |name: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    let c = |wanted: &str| {
        let mut c = cluster(&[ingress(
            json!([{"from": [{"namespaceSelector": name(wanted)}]}]),
        )]);
        let labels = c.namespaces[0].metadata.labels.as_mut().unwrap();
        labels.insert(
            "kubernetes.io/metadata.name".to_owned(),
            "kube-system".to_owned(),
        );
        c
    };
    check(&c("kube-system"), "b/web", "a/db", "80/tcp", FREE, DENY);
    check(&c("b"), "b/web", "a/db", "80/tcp", FREE, IN);
}

#[test]
fn pending_pods_are_selected_and_matched() {
    let rule = json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]);
    let mut c = cluster(&[ingress(rule)]);
    for pod in &mut c.pods {
        pod.status.as_mut().unwrap().phase = Some("Pending".to_owned());
    }
    check(&c, "a/web", "a/db", "80/tcp", FREE, IN);
    check(&c, "b/web", "a/db", "80/tcp", FREE, DENY);
}

#[test]
fn host_network_pods_are_reached_and_reach_others_by_their_nodes_addresses() {
    let block = |key: &str| {
        let cidrs = ["192.168.0.1/32", "fd00::1/128"];
        json!([{key: cidrs.map(|cidr| json!({"ipBlock": {"cidr": cidr}}))}])
    };
    let c = cluster(&[egress(block("to"))]);
    check(&c, "a/web", "a/host", "80/tcp", TO, OUT);
    check(&c, "a/web", "node:n1", "80/tcp", TO, OUT);
    check(&c, "a/web", "node:n2", "80/tcp", DENY, OUT);
    let mut c = cluster(&[ingress(block("from"))]);
    c.pods[1].spec.as_mut().unwrap().node_name = Some("n2".to_owned());
    check(&c, "a/host", "a/db", "80/tcp", OUT, IN);
    check(&c, "192.168.0.1", "a/db", "80/tcp", OUT, IN);
    check(&c, "fd00::1", "a/db", "80/tcp", OUT, IN);
}

#[test]
fn an_unknown_pod_is_matched_by_blocks_and_by_no_selector() {
    let c = |peer: Value| cluster(&[ingress(json!([{"from": [peer]}]))]);
    let by_selector = c(json!({"namespaceSelector": {}}));
    for (cidr, address) in [("10.2.0.0/16", "10.2.7.7"), ("fd02::/16", "fd02::7")] {
        let by_block = c(json!({"ipBlock": {"cidr": cidr}}));
        check(&by_selector, address, "a/db", "80/tcp", OUT, DENY);
        check(&by_block, address, "a/db", "80/tcp", OUT, IN);
        let from = ask(&by_block, address, "a/db", "80/tcp").unwrap().from;
        assert_eq!(from.kind, PartyKind::UnknownPod);
        assert_eq!(from.to_string(), format!("unknown pod {address}"));
        assert_eq!(from.node.as_deref(), Some("n2"));
    }
}
