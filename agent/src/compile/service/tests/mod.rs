//! What Services become, and that no prefix of the writes shows a half-made one.

mod changes;
mod kinds;
mod objects;
mod ownership;
mod policies;
mod prefix;
mod select;
mod topology;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use weir_abi::service::Slot;

use super::*;

/// A Service `default/NAME` with one ClusterIP for each address, TCP port 80 named `web`.
fn service(name: &str, addresses: &[&str]) -> Service {
    service_with(
        name,
        json!({
            "clusterIPs": addresses,
            "ports": [{"name": "web", "port": 80, "targetPort": "http"}],
        }),
    )
}

fn service_with(name: &str, spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

/// An index of a node that has seen nothing yet.
fn on_node(name: &str) -> ServiceIndex {
    ServiceIndex::new(ServiceOptions {
        node_name: name.into(),
        ..ServiceOptions::default()
    })
}

/// An endpoint on node n1: address, and `r` ready, `t` serving and terminating, `n` not ready.
fn endpoint(address: &str, state: char) -> Value {
    let conditions = match state {
        'r' => json!({"ready": true, "serving": true, "terminating": false}),
        't' => json!({"ready": false, "serving": true, "terminating": true}),
        _ => json!({"ready": false, "serving": false, "terminating": false}),
    };
    json!({
        "addresses": [address],
        "conditions": conditions,
        "nodeName": "n1",
        "targetRef": {"kind": "Pod", "namespace": "default", "name": address, "uid": format!("uid-{address}")},
    })
}

/// A slice of `service` with TCP port 8080 named `web`.
fn slice(name: &str, service: &str, endpoints: &[(&str, char)]) -> EndpointSlice {
    let list: Vec<Value> = endpoints.iter().map(|(a, s)| endpoint(a, *s)).collect();
    slice_with(
        name,
        service,
        json!([{"name": "web", "port": 8080}]),
        json!(list),
    )
}

fn slice_with(name: &str, service: &str, ports: Value, endpoints: Value) -> EndpointSlice {
    let v6 = endpoints[0]["addresses"][0]
        .as_str()
        .is_some_and(|a| a.contains(':'));
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "ports": ports,
        "endpoints": endpoints,
    }))
    .unwrap()
}

fn index(services: &[Service], slices: &[EndpointSlice]) -> ServiceIndex {
    let mut index = on_node("n1");
    for service in services {
        index.apply_service(service);
    }
    for slice in slices {
        index.apply_slice(slice);
    }
    index
}

/// The kernel after everything was planned and written.
fn programmed(index: &ServiceIndex) -> ServiceActual {
    let mut actual = ServiceActual::default();
    for write in plan(&actual.clone(), index.desired(), None).writes() {
        actual.apply(write);
    }
    actual
}

/// The mirror that a restarted agent makes of the same maps.
fn restarted(actual: &ServiceActual) -> ServiceActual {
    let mut slots = actual.slots().to_vec();
    // The map ends elsewhere.
    slots.resize(slots.len() + 7, Slot::default());
    let ranges = actual.source_ranges().flat_map(|(_, keys)| keys.to_vec());
    ServiceActual::new(actual.services.clone(), slots, actual.backends(), ranges)
}

/// How many slots are in use.
fn used_slots(actual: &ServiceActual) -> usize {
    let used = |slot: &&Slot| **slot != Slot::default();
    actual.slots().iter().filter(used).count()
}
