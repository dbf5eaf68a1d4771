mod changes;

use std::net::IpAddr;

use serde_json::{Value, json};
use weir_abi::policy::{ClassId, GroupId, PolicySlot, RuleVerdict};
use weir_abi::{Addr, Proto};

use super::Index;
use crate::{Actual, Direction, Event, LocalEndpoint, ObjectName, PodRef, plan};

fn pod_in(namespace: &str, name: &str, app: &str, ip: &str) -> Value {
    json!({
        "metadata": {"namespace": namespace, "name": name, "uid": name, "labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}]},
        "status": {"podIPs": [{"ip": ip}]},
    })
}

fn pod(name: &str, app: &str, ip: &str) -> Value {
    pod_in("shop", name, app, ip)
}

fn apply_pod(pod: Value) -> Event {
    Event::ApplyPod(Box::new(serde_json::from_value(pod).unwrap()))
}

fn policy(name: &str, spec: Value) -> Event {
    let object = json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec});
    Event::ApplyPolicy(Box::new(serde_json::from_value(object).unwrap()))
}

fn endpoint(slot: u32, pod: &str, ip: &str) -> Event {
    let name = ObjectName::new("shop", pod);
    let uid = Some(pod.to_owned());
    Event::ApplyEndpoint(LocalEndpoint {
        slot,
        pod: Some(PodRef { name, uid }),
        addresses: vec![ip.parse().unwrap()],
    })
}

fn node(name: &str, cidr: &str) -> Event {
    let object = json!({"metadata": {"name": name}, "spec": {"podCIDRs": [cidr]}});
    Event::ApplyNode(Box::new(serde_json::from_value(object).unwrap()))
}

/// Only pods with `app: web` reach the pods with `app: db`.
fn web_to_db() -> Event {
    policy(
        "web-to-db",
        json!({
            "podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
        }),
    )
}

/// A database in slot 1, a web server elsewhere, and the policy between them.
fn shop() -> Index {
    let mut index = Index::new("n1");
    tell(
        &mut index,
        [
            node("n1", "10.1.0.0/24"),
            node("n2", "10.2.0.0/24"),
            apply_pod(pod("db", "db", "10.1.0.1")),
            apply_pod(pod("web", "web", "10.2.0.1")),
            endpoint(1, "db", "10.1.0.1"),
            web_to_db(),
        ],
    );
    index
}

fn tell<const N: usize>(index: &mut Index, events: [Event; N]) {
    for event in events {
        let _ = index.apply(event);
    }
}

fn maps(index: &mut Index) -> Actual {
    let mut actual = Actual::default();
    for write in plan(&actual.clone(), index.compile()).unwrap().writes() {
        actual.apply(write);
    }
    actual
}

fn tcp(actual: &Actual, slot: u32, direction: Direction, peer: &str, port: u16) -> RuleVerdict {
    let peer: IpAddr = peer.parse().unwrap();
    actual
        .verdict(slot, direction, peer.into(), Proto::TCP, port)
        .verdict
}

/// Whether slot 1 lets `peer` in on port 80.
fn lets_in(index: &mut Index, peer: &str) -> bool {
    tcp(&maps(index), 1, Direction::Ingress, peer, 80).allowed()
}

fn class(index: &mut Index, addr: &str) -> ClassId {
    maps(index).class(Addr::from(addr.parse::<IpAddr>().unwrap()))
}

#[test]
fn an_unknown_pod_matches_blocks_and_no_selector() {
    let mut index = shop();
    tell(
        &mut index,
        [policy(
            "all-pods",
            json!({
                "podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}],
            }),
        )],
    );
    assert!(lets_in(&mut index, "10.2.0.1"));
    assert!(!lets_in(&mut index, "10.2.0.77"));
    assert_eq!(class(&mut index, "10.3.0.77"), ClassId::WORLD);
    tell(
        &mut index,
        [policy(
            "block",
            json!({
                "podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.2.0.64/26"}}]}],
            }),
        )],
    );
    assert!(lets_in(&mut index, "10.2.0.77"));
    assert!(!lets_in(&mut index, "10.2.0.3"));
}

#[test]
fn this_nodes_record_says_whose_an_address_is() {
    let mut index = shop();
    // A newer Pod object claims the address of a local endpoint.
    let mut claimer = pod("claimer", "web", "10.1.0.2");
    claimer["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    tell(
        &mut index,
        [
            apply_pod(claimer),
            apply_pod(pod("cache", "cache", "10.1.0.9")),
        ],
    );
    assert!(lets_in(&mut index, "10.1.0.2"));
    tell(&mut index, [endpoint(2, "cache", "10.1.0.2")]);
    assert!(!lets_in(&mut index, "10.1.0.2"));
    // So does an endpoint that no pod stands behind.
    tell(
        &mut index,
        [Event::ApplyEndpoint(LocalEndpoint {
            slot: 2,
            pod: None,
            addresses: vec!["10.1.0.2".parse().unwrap()],
        })],
    );
    assert!(!lets_in(&mut index, "10.1.0.2"));
    tell(&mut index, [Event::DeleteEndpoint(2)]);
    assert!(lets_in(&mut index, "10.1.0.2"));
}

#[test]
fn of_two_live_pods_the_newest_has_the_address() {
    let mut index = shop();
    let at = |name: &str, app: &str, created: Value, phase: &str| {
        let mut pod = pod(name, app, "10.2.0.1");
        pod["metadata"]["creationTimestamp"] = created;
        pod["status"]["phase"] = json!(phase);
        apply_pod(pod)
    };
    let (first, second) = (json!("2026-01-01T00:00:00Z"), json!("2026-01-02T00:00:00Z"));
    tell(
        &mut index,
        [
            at("web", "web", first.clone(), "Running"),
            at("a", "other", second.clone(), "Running"),
        ],
    );
    assert!(!lets_in(&mut index, "10.2.0.1"));
    tell(&mut index, [at("a", "other", second, "Succeeded")]);
    assert!(lets_in(&mut index, "10.2.0.1"));
    tell(&mut index, [at("a", "other", json!(null), "Running")]);
    assert!(lets_in(&mut index, "10.2.0.1"));
    // Equally new: the name that comes last.
    tell(&mut index, [at("a", "other", first.clone(), "Running")]);
    assert!(lets_in(&mut index, "10.2.0.1"));
    tell(&mut index, [at("x", "other", first, "Running")]);
    assert!(!lets_in(&mut index, "10.2.0.1"));
}

#[test]
fn finished_and_host_network_pods_are_no_peers() {
    for (path, field, value) in [
        ("status", "phase", json!("Succeeded")),
        ("status", "phase", json!("Failed")),
        ("spec", "hostNetwork", json!(true)),
    ] {
        let mut index = shop();
        let mut web = pod("web", "web", "10.2.0.1");
        web[path][field] = value.clone();
        assert!(lets_in(&mut index, "10.2.0.1"));
        tell(&mut index, [apply_pod(web)]);
        assert!(!lets_in(&mut index, "10.2.0.1"), "{field} {value}");
    }
}

#[test]
fn an_endpoint_is_closed_until_its_pod_is_known_and_open_if_it_has_none() {
    let mut index = Index::new("n1");
    tell(
        &mut index,
        [
            web_to_db(),
            endpoint(1, "db", "10.1.0.1"),
            Event::ApplyEndpoint(LocalEndpoint {
                slot: 2,
                pod: None,
                addresses: vec!["10.1.0.2".parse().unwrap()],
            }),
        ],
    );
    let groups = |index: &mut Index, slot| PolicySlot::unpack(maps(index).slot(slot).groups);
    assert_eq!(groups(&mut index, 1), (GroupId::CLOSED, GroupId::CLOSED));
    assert_eq!(groups(&mut index, 2), (GroupId::OPEN, GroupId::OPEN));
    tell(&mut index, [apply_pod(pod("db", "db", "10.1.0.1"))]);
    let (ingress, egress) = groups(&mut index, 1);
    assert!(ingress >= GroupId::FIRST_DYNAMIC);
    assert_eq!(egress, GroupId::OPEN);
}

#[test]
fn an_endpoint_whose_pod_is_gone_keeps_its_policy_until_it_goes_too() {
    let mut index = shop();
    tell(
        &mut index,
        [Event::DeletePod(ObjectName::new("shop", "db"))],
    );
    assert!(lets_in(&mut index, "10.2.0.1"));
    assert!(!lets_in(&mut index, "192.0.2.1"));
    // As a peer it is no pod any more; changes of policy still reach it.
    assert_ne!(class(&mut index, "10.1.0.1"), class(&mut index, "10.2.0.1"));
    tell(
        &mut index,
        [policy(
            "web-to-db",
            json!({"podSelector": {"matchLabels": {"app": "db"}}}),
        )],
    );
    assert!(!lets_in(&mut index, "10.2.0.1"));
    tell(&mut index, [Event::DeleteEndpoint(1)]);
    assert_eq!(maps(&mut index).slot(1).groups, 0);
}

#[test]
fn a_pod_of_the_same_name_and_another_uid_is_another_pod() {
    let mut index = shop();
    let mut successor = pod("db", "open", "10.2.0.8");
    successor["metadata"]["uid"] = json!("other");
    tell(&mut index, [apply_pod(successor)]);
    assert!(!lets_in(&mut index, "192.0.2.1"));
    // An endpoint that does not know its UID (a static pod) goes by the name.
    tell(
        &mut index,
        [Event::ApplyEndpoint(LocalEndpoint {
            slot: 1,
            pod: Some(PodRef {
                name: ObjectName::new("shop", "db"),
                uid: None,
            }),
            addresses: vec!["10.1.0.1".parse().unwrap()],
        })],
    );
    assert!(lets_in(&mut index, "192.0.2.1"));
}

#[test]
fn a_host_network_pod_is_selected_by_nothing() {
    let mut index = shop();
    let mut db = pod("db", "db", "10.1.0.1");
    db["spec"]["hostNetwork"] = json!(true);
    tell(&mut index, [apply_pod(db)]);
    assert_eq!(
        tcp(&maps(&mut index), 1, Direction::Ingress, "192.0.2.1", 80),
        RuleVerdict::NOT_SELECTED
    );
}

fn cluster_policy(spec: Value) -> Event {
    let object = json!({"metadata": {"name": "lock"}, "spec": spec});
    Event::ApplyClusterPolicy(Box::new(serde_json::from_value(object).unwrap()))
}

#[test]
fn a_namespace_that_comes_last_decides_which_cluster_policies_judge_a_pod_that_is_no_peer() {
    let mut index = shop();
    // Without an address in its object it is nobody's peer, but this node has its endpoint.
    let mut db = pod("db", "db", "10.1.0.1");
    db["status"] = json!({});
    let spec = json!({
        "tier": "Admin", "priority": 1,
        "subject": {"namespaces": {"matchLabels": {"team": "a"}}},
        "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
    });
    let alone = [
        Event::DeletePod(ObjectName::new("shop", "web")),
        Event::DeletePolicy(ObjectName::new("shop", "web-to-db")),
        apply_pod(db),
        apply_pod(pod_in("other", "job", "job", "10.2.0.2")),
        cluster_policy(spec),
    ];
    tell(&mut index, alone);
    assert!(lets_in(&mut index, "10.2.0.2"));
    let namespace = json!({"metadata": {"name": "shop", "labels": {"team": "a"}}});
    let namespace = serde_json::from_value(namespace).unwrap();
    assert!(index.apply(Event::ApplyNamespace(Box::new(namespace))).0);
    assert!(!lets_in(&mut index, "10.2.0.2"));
}

#[test]
fn a_named_port_of_a_deny_rule_is_every_port_of_an_unknown_pod_but_not_what_has_no_ports() {
    let mut index = shop();
    let spec = json!({
        "tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
        "egress": [{
            "action": "Deny", "to": [{"namespaces": {}}],
            "protocols": [{"destinationNamedPort": "http"}],
        }],
    });
    tell(&mut index, [cluster_policy(spec)]);
    let actual = maps(&mut index);
    let unknown = Addr::from("10.2.0.99".parse::<IpAddr>().unwrap());
    let allowed = |proto, port| {
        let verdict = actual.verdict(1, Direction::Egress, unknown, proto, port);
        verdict.verdict.allowed()
    };
    for proto in [Proto::TCP, Proto::UDP, Proto::SCTP] {
        assert!(!allowed(proto, 1) && !allowed(proto, 65535), "{proto:?}");
    }
    assert!(allowed(Proto::ICMP, 0));
}

#[test]
fn the_policies_that_isolate_are_those_in_force_and_not_those_that_are_still_to_be_written() {
    let mut index = shop();
    let isolating = |index: &Index| {
        let [ingress, egress] = index.isolated_by(1);
        [ingress, egress].map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let nobody: [Vec<String>; 2] = Default::default();
    assert_eq!(isolating(&index), nobody, "nothing was written");
    let _ = index.compile();
    assert_eq!(isolating(&index), nobody, "compiled is not written");
    index.settled();
    let by_one = [vec!["shop/web-to-db".to_owned()], vec![]];
    assert_eq!(isolating(&index), by_one);
    let name = ObjectName::new("shop", "web-to-db");
    let _ = index.apply(Event::DeletePolicy(name));
    assert_eq!(isolating(&index), by_one, "the kernel still has it");
    let _ = index.compile();
    index.settled();
    assert_eq!(isolating(&index), nobody);
}
