//! NodePorts, external addresses, load balancers' addresses and HostPorts.

use serde_json::json;
use weir_abi::Proto;
use weir_abi::service::{ServiceKey, marker};

use super::select::{From, shown, shown_from};
use super::*;

/// A Service of the type with one TCP port 80 (`web`, NodePort 30080) and more fields.
pub fn typed(name: &str, kind: &str, more: Value) -> Service {
    let mut spec = json!({
        "type": kind,
        "clusterIPs": ["10.96.0.1", "fd96::1"],
        "ports": [{"name": "web", "port": 80, "nodePort": 30080}],
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    service_with(name, spec)
}

/// With addresses of a load balancer.
pub fn balanced(mut service: Service, ingress: Value) -> Service {
    let status = json!({"loadBalancer": {"ingress": ingress}});
    service.status = serde_json::from_value(status).unwrap();
    service
}

fn both_families(service: &str) -> [EndpointSlice; 2] {
    [
        slice("s4", service, &[("10.1.0.1", 'r')]),
        slice("s6", service, &[("fd01::1", 'r')]),
    ]
}

fn pod(name: &str, spec: Value) -> k8s_openapi::api::core::v1::Pod {
    let mut whole = json!({
        "metadata": {"name": name, "uid": name},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.1.0.7"}, {"ip": "fd01::7"}]},
    });
    for (key, value) in spec.as_object().unwrap() {
        whole["spec"][key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn container(ports: Value) -> Value {
    json!({"containers": [{"name": "c", "ports": ports}]})
}

#[test]
fn a_node_port_stands_for_all_addresses_of_the_node_in_both_families_and_has_no_marker() {
    let index = index(&[typed("a", "NodePort", json!({}))], &both_families("a"));
    let actual = programmed(&index);
    assert_eq!(
        shown(&actual, "0.0.0.0", 30080, Proto::TCP),
        "10.1.0.1:8080"
    );
    assert_eq!(shown(&actual, "::", 30080, Proto::TCP), "[fd01::1]:8080");
    assert_eq!(shown(&actual, "0.0.0.0", 30080, Proto::UDP), "none");
    let node_wide = ServiceKey::marker(ServiceKey::node_wide(true));
    assert_eq!(actual.services.get(&node_wide), None);
    // The ClusterIP shares the set.
    assert_eq!(actual.set_count(), 2);
}

#[test]
fn a_node_port_of_a_cluster_ip_service_and_one_of_zero_are_none() {
    for (kind, number) in [("ClusterIP", 30080), ("LoadBalancer", 0)] {
        let ports = json!([{"name": "web", "port": 80, "nodePort": number}]);
        let service = typed("a", kind, json!({"ports": ports}));
        let actual = programmed(&index(&[service], &both_families("a")));
        assert_eq!(shown(&actual, "0.0.0.0", 30080, Proto::TCP), "none");
        assert_eq!(shown(&actual, "0.0.0.0", 0, Proto::TCP), "none");
        assert_eq!(shown(&actual, "10.96.0.1", 80, Proto::TCP), "10.1.0.1:8080");
    }
}

#[test]
fn an_external_ip_serves_its_ports_and_leaves_the_others_of_its_address_alone() {
    let ips = json!({"externalIPs": ["192.0.2.1", "2001:db8::1"]});
    let index = index(&[typed("a", "ClusterIP", ips)], &both_families("a"));
    let actual = programmed(&index);
    assert_eq!(shown(&actual, "192.0.2.1", 80, Proto::TCP), "10.1.0.1:8080");
    assert_eq!(
        shown(&actual, "2001:db8::1", 80, Proto::TCP),
        "[fd01::1]:8080"
    );
    assert_eq!(shown(&actual, "192.0.2.1", 22, Proto::TCP), "none");
    assert_eq!(shown(&actual, "10.96.0.1", 22, Proto::TCP), "refused");
}

#[test]
fn an_external_ip_that_the_api_would_refuse_or_of_a_family_without_a_cluster_ip_is_named() {
    let more = json!({
        "clusterIPs": ["10.96.0.1"],
        "externalIPs": ["127.0.0.1", "169.254.1.1", "0.0.0.0", "224.0.0.1", "2001:db8::1", "192.0.2.1"],
    });
    let index = index(&[typed("a", "ClusterIP", more)], &both_families("a"));
    let texts: Vec<_> = index.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "Service default/a: spec.externalIPs[0]: 127.0.0.1 is a loopback address",
            "Service default/a: spec.externalIPs[1]: 169.254.1.1 is a link-local address",
            "Service default/a: spec.externalIPs[2]: 0.0.0.0 is the unspecified address",
            "Service default/a: spec.externalIPs[3]: 224.0.0.1 is a multicast address",
            "Service default/a: spec.externalIPs[4]: 2001:db8::1: no ClusterIP is of its family",
        ]
    );
    let actual = programmed(&index);
    assert_eq!(shown(&actual, "192.0.2.1", 80, Proto::TCP), "10.1.0.1:8080");
}

#[test]
fn a_load_balancers_address_is_served_unless_its_mode_is_proxy_or_it_is_only_a_name() {
    let service = balanced(
        typed("a", "LoadBalancer", json!({})),
        json!([
            {"ip": "192.0.2.1"},
            {"ip": "192.0.2.2", "ipMode": "VIP"},
            {"ip": "192.0.2.3", "ipMode": "Proxy"},
            {"hostname": "lb.example.org"},
            {"ip": "2001:db8::1"},
        ]),
    );
    let index = index(&[service], &both_families("a"));
    let actual = programmed(&index);
    for (address, shows) in [
        ("192.0.2.1", "10.1.0.1:8080"),
        ("192.0.2.2", "10.1.0.1:8080"),
        ("192.0.2.3", "none"),
        ("2001:db8::1", "[fd01::1]:8080"),
    ] {
        assert_eq!(shown(&actual, address, 80, Proto::TCP), shows, "{address}");
    }
    assert_eq!(index.problems(), []);
}

#[test]
fn several_services_share_an_external_address_and_its_marker_goes_with_the_last() {
    let other = |name: &str, ip: &str, port: u16| {
        let ports = json!([{"name": "web", "port": port}]);
        let more = json!({"clusterIPs": [ip], "ports": ports, "externalIPs": ["192.0.2.1"]});
        typed(name, "ClusterIP", more)
    };
    let services = [other("a", "10.96.0.1", 80), other("b", "10.96.0.2", 81)];
    let slices = [
        slice("a", "a", &[("10.1.0.1", 'r')]),
        slice("b", "b", &[("10.1.0.2", 'r')]),
    ];
    let mut index = index(&services, &slices);
    assert_eq!(index.problems(), []);
    let shows = |index: &ServiceIndex| {
        let actual = programmed(index);
        [80, 81].map(|port| shown(&actual, "192.0.2.1", port, Proto::TCP))
    };
    assert_eq!(shows(&index), ["10.1.0.1:8080", "10.1.0.2:8080"]);
    let address: std::net::IpAddr = "192.0.2.1".parse().unwrap();
    let key = ServiceKey::marker(address.into());
    let flags = index.desired().frontends.get(&key);
    assert_eq!(flags, Some(&Target::Marker(0)));
    assert_ne!(marker::REFUSE_UNSERVED, 0);
    for (service, left) in services.iter().zip([true, false]) {
        let object = crate::state::Object::Service(Box::new(service.clone()));
        assert!(index.apply(&crate::state::Change::Delete(object.key())));
        assert_eq!(index.desired().frontends.contains_key(&key), left);
    }
}

#[test]
fn a_host_port_leads_to_its_pod_on_all_addresses_of_the_node_or_on_the_one_it_names() {
    let mut index = on_node("n1");
    let ports = json!([
        {"containerPort": 80, "hostPort": 8000},
        {"containerPort": 81, "hostPort": 8001, "hostIP": "192.0.2.5"},
        {"containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "0.0.0.0"},
        {"containerPort": 54, "hostPort": 5354, "protocol": "SCTP", "hostIP": "::"},
        {"containerPort": 82},
        {"containerPort": 83, "hostPort": 8003, "hostIP": "127.0.0.1"},
        {"containerPort": 83, "hostPort": 8003, "hostIP": "::1"},
    ]);
    assert!(index.apply_pod(&pod("p", container(ports))));
    let actual = programmed(&index);
    for (address, port, proto, shows) in [
        ("0.0.0.0", 8000, Proto::TCP, "10.1.0.7:80"),
        ("::", 8000, Proto::TCP, "[fd01::7]:80"),
        ("192.0.2.5", 8001, Proto::TCP, "10.1.0.7:81"),
        ("192.0.2.5", 22, Proto::TCP, "none"),
        ("0.0.0.0", 8001, Proto::TCP, "none"),
        ("0.0.0.0", 5353, Proto::UDP, "10.1.0.7:53"),
        ("::", 5353, Proto::UDP, "none"),
        ("::", 5354, Proto::SCTP, "[fd01::7]:54"),
        ("0.0.0.0", 5354, Proto::SCTP, "none"),
        ("127.0.0.1", 8003, Proto::TCP, "10.1.0.7:83"),
        ("::1", 8003, Proto::TCP, "[fd01::7]:83"),
    ] {
        assert_eq!(
            shown(&actual, address, port, proto),
            shows,
            "{address} {port}"
        );
    }
    assert_eq!(index.problems(), []);
}

#[test]
fn a_pod_has_no_host_port_elsewhere_in_the_hosts_network_or_when_it_is_over() {
    let ports = json!([{"containerPort": 80, "hostPort": 8000}]);
    let mut elsewhere = pod("p", container(ports.clone()));
    elsewhere.spec.as_mut().unwrap().node_name = Some("n2".into());
    let mut host = pod("p", container(ports.clone()));
    host.spec.as_mut().unwrap().host_network = Some(true);
    let over = ["Succeeded", "Failed"].map(|phase| {
        let mut pod = pod("p", container(ports.clone()));
        pod.status.as_mut().unwrap().phase = Some(phase.into());
        pod
    });
    let mut index = on_node("n1");
    for other in [elsewhere, host].into_iter().chain(over) {
        assert!(!index.apply_pod(&other));
        assert!(index.apply_pod(&pod("p", container(ports.clone()))));
        assert_eq!(
            shown(&programmed(&index), "0.0.0.0", 8000, Proto::TCP),
            "10.1.0.7:80"
        );
        assert!(index.apply_pod(&other));
        assert_eq!(index.desired(), &Desired::default());
    }
}

#[test]
fn a_sidecar_has_host_ports_and_another_init_container_has_none() {
    let spec = json!({"initContainers": [
        {"name": "i", "ports": [{"containerPort": 80, "hostPort": 8000}]},
        {"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 81, "hostPort": 8001}]},
    ]});
    let mut index = on_node("n1");
    index.apply_pod(&pod("p", spec));
    let actual = programmed(&index);
    assert_eq!(shown(&actual, "0.0.0.0", 8000, Proto::TCP), "none");
    assert_eq!(shown(&actual, "0.0.0.0", 8001, Proto::TCP), "10.1.0.7:81");
}

#[test]
fn a_host_port_that_is_none_is_named_and_the_others_work() {
    let ports = json!([
        {"containerPort": 80, "hostPort": 8000, "hostIP": "169.254.0.1"},
        {"containerPort": 80, "hostPort": 70000},
        {"containerPort": 80, "hostPort": 8001},
    ]);
    let mut index = on_node("n1");
    index.apply_pod(&pod("p", container(ports)));
    let texts: Vec<_> = index.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "Pod default/p: spec.containers[0].ports[0].hostIP: 169.254.0.1 is a link-local address",
            "Pod default/p: spec.containers[0].ports[1].hostPort: 70000 is not in 1-65535",
        ]
    );
    assert_eq!(
        shown(&programmed(&index), "0.0.0.0", 8001, Proto::TCP),
        "10.1.0.7:80"
    );
}

#[test]
fn a_service_to_be_left_alone_has_no_frontend_whether_a_label_an_annotation_or_a_flag_says_so() {
    let name = "service.kubernetes.io/service-proxy-name";
    let of = |map: &str, service: &str| {
        let mut value = serde_json::to_value(typed(service, "NodePort", json!({}))).unwrap();
        value["metadata"][map] = json!({name: "other"});
        serde_json::from_value::<Service>(value).unwrap()
    };
    let mut index = ServiceIndex::new(ServiceOptions {
        node_name: "n1".into(),
        skip_services: [ServiceName::new("default", "skipped")].into(),
    });
    for service in [
        of("labels", "l"),
        of("annotations", "a"),
        typed("skipped", "NodePort", json!({})),
    ] {
        assert!(!index.apply_service(&service));
    }
    assert_eq!(index.desired(), &Desired::default());
    assert!(index.apply_service(&typed("served", "NodePort", json!({}))));
}

#[test]
fn those_outside_find_the_frontend_of_everyone_where_the_policy_is_cluster() {
    let index = index(&[typed("a", "NodePort", json!({}))], &both_families("a"));
    let actual = programmed(&index);
    let outside = shown_from(&actual, "0.0.0.0", 30080, Proto::TCP, From::Outside);
    assert_eq!(outside, "10.1.0.1:8080");
    assert!(actual.services.keys().all(|key| key.scope == 0));
}
