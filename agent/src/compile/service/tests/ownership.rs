//! Who has a frontend that several objects want.

use serde_json::json;
use weir_abi::Proto;

use super::kinds::typed;
use super::select::shown;
use super::*;
use crate::state::{Change, Object};

fn made(mut service: Service, time: &str) -> Service {
    service.metadata.creation_timestamp = serde_json::from_value(json!(time)).unwrap();
    service
}

fn host_port_pod(name: &str) -> k8s_openapi::api::core::v1::Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "creationTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {"nodeName": "n1", "containers": [{
            "name": "c", "ports": [{"containerPort": 80, "hostPort": 30080}],
        }]},
        "status": {"podIPs": [{"ip": "10.1.0.9"}]},
    }))
    .unwrap()
}

fn texts(index: &ServiceIndex) -> Vec<String> {
    index.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn a_cluster_ip_goes_before_an_external_ip_at_its_address_whoever_is_older() {
    let external = json!({"clusterIPs": ["10.96.0.2"], "externalIPs": ["10.96.0.1"]});
    let external = made(typed("old", "ClusterIP", external), "2020-01-01T00:00:00Z");
    let own = made(service("new", &["10.96.0.1"]), "2026-01-01T00:00:00Z");
    let slices = [
        slice("o", "old", &[("10.1.0.1", 'r')]),
        slice("n", "new", &[("10.1.0.2", 'r')]),
    ];
    for order in [[&external, &own], [&own, &external]] {
        let mut index = index(&order.map(Clone::clone), &slices);
        assert_eq!(
            shown(&programmed(&index), "10.96.0.1", 80, Proto::TCP),
            "10.1.0.2:8080"
        );
        assert_eq!(
            texts(&index),
            [
                "Service default/old: spec.externalIPs: 10.96.0.1:80/TCP is taken by Service default/new, as its ClusterIP"
            ]
        );
        index.apply(&Change::Delete(
            Object::Service(Box::new(own.clone())).key(),
        ));
        let actual = programmed(&index);
        assert_eq!(shown(&actual, "10.96.0.1", 80, Proto::TCP), "10.1.0.1:8080");
        assert_eq!(shown(&actual, "10.96.0.1", 81, Proto::TCP), "none");
        assert_eq!(texts(&index), [""; 0]);
    }
}

#[test]
fn an_external_frontend_is_the_older_services_then_the_one_whose_name_is_first() {
    let with = |name: &str, ip: &str| {
        typed(
            name,
            "ClusterIP",
            json!({"clusterIPs": [ip], "externalIPs": ["192.0.2.1"]}),
        )
    };
    let slices = [
        slice("a", "a", &[("10.1.0.1", 'r')]),
        slice("b", "b", &[("10.1.0.2", 'r')]),
    ];
    let same = [with("a", "10.96.0.1"), with("b", "10.96.0.2")];
    let index_of = |services: &[Service]| index(services, &slices);
    let first = index_of(&same);
    assert_eq!(
        shown(&programmed(&first), "192.0.2.1", 80, Proto::TCP),
        "10.1.0.1:8080"
    );
    let [a, b] = same;
    let aged = [
        made(a, "2026-01-01T00:00:00Z"),
        made(b, "2025-01-01T00:00:00Z"),
    ];
    let second = index_of(&aged);
    assert_eq!(
        shown(&programmed(&second), "192.0.2.1", 80, Proto::TCP),
        "10.1.0.2:8080"
    );
    assert_eq!(
        texts(&second),
        [
            "Service default/a: spec.externalIPs: 192.0.2.1:80/TCP is taken by Service default/b, which is older"
        ]
    );
}

#[test]
fn a_node_port_goes_before_a_host_port_that_gets_the_place_when_it_is_gone() {
    let service = made(typed("a", "NodePort", json!({})), "2026-01-01T00:00:00Z");
    let mut index = index(
        std::slice::from_ref(&service),
        &[slice("a", "a", &[("10.1.0.1", 'r')])],
    );
    index.apply_pod(&host_port_pod("p"));
    assert_eq!(
        shown(&programmed(&index), "0.0.0.0", 30080, Proto::TCP),
        "10.1.0.1:8080"
    );
    assert_eq!(
        texts(&index),
        [
            "Pod default/p: spec.containers[0].ports[0].hostPort: port 30080/TCP is taken by Service default/a, which goes before HostPorts"
        ]
    );
    index.apply(&Change::Delete(Object::Service(Box::new(service)).key()));
    assert_eq!(
        shown(&programmed(&index), "0.0.0.0", 30080, Proto::TCP),
        "10.1.0.9:80"
    );
    assert_eq!(texts(&index), [""; 0]);
}

#[test]
fn a_node_port_that_is_a_health_check_node_port_is_reported_until_that_is_gone() {
    let more = json!({
        "clusterIPs": ["10.96.0.2"],
        "ports": [{"name": "web", "port": 80}],
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 30080,
    });
    let checked = typed("b", "LoadBalancer", more);
    let services = [typed("a", "NodePort", json!({})), checked.clone()];
    for order in [[0, 1], [1, 0]] {
        let mut index = index(&order.map(|i: usize| services[i].clone()), &[]);
        assert_eq!(
            texts(&index),
            [
                "Service default/a: spec.ports[0].nodePort: 30080 is the healthCheckNodePort of Service default/b, too"
            ]
        );
        let version = index.problems_version();
        index.apply(&Change::Delete(
            Object::Service(Box::new(checked.clone())).key(),
        ));
        assert_eq!(texts(&index), [""; 0]);
        assert_ne!(index.problems_version(), version);
    }
}

#[test]
fn a_change_without_another_problem_leaves_the_version_of_the_problems_as_it_is() {
    let mut index = index(&[service("a", &["127.0.0.1"])], &[]);
    let version = index.problems_version();
    assert!(index.apply_service(&service("b", &["10.96.0.1"])));
    assert!(index.apply_slice(&slice("b", "b", &[("10.1.0.1", 'r')])));
    assert_eq!(index.problems_version(), version);
}
