//! EndpointSlices for Services with a selector, as the EndpointSlice controller writes them: one
//! for each family and each way the Service's named ports resolve.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::plan::{list, namespace, selects, target_port};

/// A running pod.
#[derive(Clone, Copy, Debug)]
pub struct Ready<'a> {
    /// Its object, with UID and labels.
    pub object: &'a Value,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
    /// Its node's name.
    pub node: &'a str,
}

/// The slices of one Service; none for one without a selector.
#[must_use]
pub fn of_service(service: &Value, pods: &[Ready]) -> Vec<Value> {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    if !service["spec"]["selector"].is_object() || service["spec"]["type"] == "ExternalName" {
        return Vec::new();
    }
    let backing: Vec<&Ready> = pods.iter().filter(|pod| selects(service, pod.object)).collect();
    let families: Vec<bool> = match list(&service["spec"]["ipFamilies"]) {
        // A headless Service without families has IPv4, the cluster's first.
        [] => vec![true],
        named => named.iter().map(|family| family == "IPv4").collect(),
    };
    let mut slices = Vec::new();
    for v4 in families {
        let mut by_ports: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
        for pod in &backing {
            let Some(address) = pod.addresses.iter().find(|address| address.is_ipv4() == v4)
            else {
                continue;
            };
            let ports = ports_for(service, pod.object);
            let entry = by_ports.entry(ports.to_string()).or_insert((ports, Vec::new()));
            entry.1.push(endpoint(pod, *address));
        }
        if by_ports.is_empty() {
            by_ports.insert(String::new(), (json!([]), Vec::new()));
        }
        let family = if v4 { "IPv4" } else { "IPv6" };
        for (index, (ports, endpoints)) in by_ports.into_values().enumerate() {
            slices.push(json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "namespace": namespace(service),
                    "name": format!("{name}-{}-{index}", family.to_lowercase()),
                    "labels": {"kubernetes.io/service-name": name},
                },
                "addressType": family,
                "ports": ports,
                "endpoints": endpoints,
            }));
        }
    }
    slices
}

fn ports_for(service: &Value, pod: &Value) -> Value {
    list(&service["spec"]["ports"])
        .iter()
        .filter_map(|port| {
            Some(json!({
                "name": port["name"].as_str().unwrap_or_default(),
                "protocol": port["protocol"].as_str().unwrap_or("TCP"),
                "port": target_port(port, pod)?,
            }))
        })
        .collect()
}

fn endpoint(pod: &Ready, address: IpAddr) -> Value {
    let metadata = &pod.object["metadata"];
    json!({
        "addresses": [address.to_string()],
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "nodeName": pod.node,
        "targetRef": {
            "kind": "Pod",
            "namespace": namespace(pod.object),
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_whose_named_port_differs_stand_in_different_slices() {
        let pod = |name: &str, port: u16| {
            json!({
                "metadata": {"namespace": "a", "name": name, "labels": {"app": "web"}},
                "spec": {"containers": [{"ports": [{"name": "http", "containerPort": port}]}]},
            })
        };
        let (first, second) = (pod("web-0", 80), pod("web-1", 81));
        let addresses: [[IpAddr; 2]; 2] =
            ["10.0.0.1 fd00::1", "10.0.0.2 fd00::2"].map(|pair| {
                let (v4, v6) = pair.split_once(' ').unwrap();
                [v4.parse().unwrap(), v6.parse().unwrap()]
            });
        let ready = [
            Ready { object: &first, addresses: &addresses[0], node: "n1" },
            Ready { object: &second, addresses: &addresses[1], node: "n2" },
        ];
        let service = json!({
            "metadata": {"namespace": "a", "name": "web"},
            "spec": {"selector": {"app": "web"}, "ipFamilies": ["IPv4", "IPv6"],
                     "ports": [{"port": 80, "targetPort": "http"}]},
        });
        let slices = of_service(&service, &ready);
        let summary: Vec<(String, u64, String)> = slices
            .iter()
            .map(|slice| {
                (
                    slice["addressType"].as_str().unwrap().to_owned(),
                    slice["ports"][0]["port"].as_u64().unwrap(),
                    slice["endpoints"][0]["addresses"][0].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        let expected = [
            ("IPv4", 80, "10.0.0.1"),
            ("IPv4", 81, "10.0.0.2"),
            ("IPv6", 80, "fd00::1"),
            ("IPv6", 81, "fd00::2"),
        ];
        assert_eq!(summary, expected.map(|(a, b, c)| (a.to_owned(), b, c.to_owned())));
    }

    #[test]
    fn a_service_without_backends_has_an_empty_slice_and_one_without_selector_none() {
        let mut service = json!({
            "metadata": {"namespace": "a", "name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        });
        let slices = of_service(&service, &[]);
        assert_eq!((slices.len(), &slices[0]["endpoints"]), (1, &json!([])));
        service["spec"]["selector"] = Value::Null;
        assert!(of_service(&service, &[]).is_empty());
    }
}
