//! EndpointSlices and cluster addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};
use weir_manifests::{ClusterIps, endpoint_slices};

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, ips: &[&str], port: u16, status: Value) -> Pod {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "n", "labels": {"app": "w"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": status,
    });
    pod["status"]["podIPs"] = json!(ips);
    of(pod)
}

fn service(spec: Value) -> Service {
    of(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec}))
}

#[test]
fn slices_list_pods_by_family_and_by_what_a_named_port_means() {
    let service = service(
        json!({"selector": {"app": "w"}, "ports": [{"name": "web", "port": 80, "targetPort": "http"}]}),
    );
    let pods = [
        pod("a", &["10.0.0.1", "fd00::1"], 8080, json!({})),
        pod("b", &["10.0.0.2"], 9090, json!({})),
        pod(
            "c",
            &["10.0.0.3"],
            8080,
            json!({"conditions": [{"type": "Ready", "status": "False"}]}),
        ),
        pod("d", &["10.0.0.4"], 8080, json!({"phase": "Succeeded"})),
        pod("e", &[], 8080, json!({})),
    ];
    let slices = endpoint_slices(&service, &pods);
    let shown: Vec<_> = slices
        .iter()
        .map(|slice| {
            let endpoints = slice.endpoints.clone().unwrap();
            let listed: Vec<_> = endpoints
                .iter()
                .map(|e| {
                    format!(
                        "{}{}",
                        e.addresses[0],
                        if e.conditions.as_ref().unwrap().ready == Some(true) {
                            ""
                        } else {
                            "!"
                        }
                    )
                })
                .collect();
            let port = slice.ports.as_ref().unwrap()[0].port.unwrap();
            format!(
                "{} {} {port} {}",
                slice.metadata.name.as_ref().unwrap(),
                slice.address_type,
                listed.join(",")
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "s-0 IPv4 8080 10.0.0.1,10.0.0.3!",
            "s-1 IPv4 9090 10.0.0.2",
            "s-2 IPv6 8080 fd00::1"
        ]
    );
    let slice = &slices[0];
    assert_eq!(
        slice.metadata.labels.as_ref().unwrap()["kubernetes.io/service-name"],
        "s"
    );
    let target = slice.endpoints.as_ref().unwrap()[0]
        .target_ref
        .clone()
        .unwrap();
    assert_eq!(
        (target.kind.unwrap(), target.name.unwrap()),
        ("Pod".to_owned(), "a".to_owned())
    );
}

#[test]
fn services_without_selector_have_no_slices() {
    let pods = [pod("a", &["10.0.0.1"], 80, json!({}))];
    for spec in [
        json!({"ports": [{"port": 80}]}),
        json!({"selector": {"app": "w"}, "type": "ExternalName"}),
    ] {
        assert!(endpoint_slices(&service(spec), &pods).is_empty());
    }
}

#[test]
fn cluster_addresses_are_given_once_and_only_where_needed() {
    let named = |name: &str, spec: Value| {
        of::<Service>(json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec}))
    };
    let mut services = [
        named("e", json!({"ipFamilies": ["IPv6"]})),
        named("a", json!({})),
        named("b", json!({"clusterIP": "10.96.0.1"})),
        named("c", json!({"clusterIP": "None"})),
        named("d", json!({"ipFamilyPolicy": "PreferDualStack"})),
    ];
    let v4 = Some(Ipv4Addr::new(10, 96, 0, 0));
    let v6: Option<Ipv6Addr> = Some("fd96::".parse().unwrap());
    assert!(ClusterIps::new(v4, v6).assign(&mut services).is_empty());
    let shown: Vec<_> = services
        .iter()
        .map(|s| {
            s.spec
                .as_ref()
                .unwrap()
                .cluster_ips
                .clone()
                .unwrap_or_default()
                .join("+")
        })
        .collect();
    assert_eq!(shown, ["10.96.0.2", "", "", "10.96.0.3+fd96::1", "fd96::2"]);
    let mut one = [named("x", json!({"ipFamilies": ["IPv6"]}))];
    assert_eq!(ClusterIps::new(v4, None).assign(&mut one), ["n/x"]);
}
