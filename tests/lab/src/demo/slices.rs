//! EndpointSlices that the manifests bring along. Those of a Service with a selector are made anew
//! by the lab, as a cluster's controller would: a dump of another cluster names addresses that
//! nobody has here. Those of a Service without one name hosts outside, which the lab makes.

use std::net::IpAddr;

use serde_json::Value;

use super::outside;
use super::plan::{OutsideHost, key, list, namespace, number};
use crate::wire::{Listen, Proto};

/// The slices that are written as they are; a warning for each that is not.
pub fn kept(slices: Vec<Value>, services: &[Value], warnings: &mut Vec<String>) -> Vec<Value> {
    let (made_anew, kept): (Vec<_>, Vec<_>) = slices
        .into_iter()
        .partition(|slice| services.iter().any(|s| has_selector(s) && owns(s, slice)));
    warnings.extend(made_anew.iter().map(|slice| {
        let name = key(slice);
        format!("EndpointSlice {name} is made anew, as its Service has a selector")
    }));
    kept
}

fn has_selector(service: &Value) -> bool {
    let selector = service["spec"]["selector"].as_object();
    selector.is_some_and(|selector| !selector.is_empty())
}

fn owns(service: &Value, slice: &Value) -> bool {
    let owner = &slice["metadata"]["labels"]["kubernetes.io/service-name"];
    *owner == service["metadata"]["name"] && namespace(service) == namespace(slice)
}

/// Adds the hosts that slices name, with the slices' ports.
pub fn add_hosts(slices: &[Value], hosts: &mut Vec<OutsideHost>) {
    for slice in slices {
        let ports: Vec<Listen> = list(&slice["ports"]).iter().filter_map(listen).collect();
        let addresses = list(&slice["endpoints"])
            .iter()
            .flat_map(|endpoint| list(&endpoint["addresses"]))
            .filter_map(|address| address.as_str()?.parse::<IpAddr>().ok())
            .filter(|address| outside::is_free(*address));
        for address in addresses {
            let index = hosts.iter().position(|host| host.address == address);
            let index = index.unwrap_or_else(|| {
                let declared = Vec::new();
                hosts.push(OutsideHost { address, declared });
                hosts.len() - 1
            });
            let declared = &mut hosts[index].declared;
            declared.extend(&ports);
            declared.sort();
            declared.dedup();
        }
    }
    hosts.sort_by_key(|host| host.address);
}

fn listen(port: &Value) -> Option<Listen> {
    Some(Listen {
        proto: Proto::parse(port["protocol"].as_str())?,
        port: number(&port["port"])?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(service: &str, addresses: &[&str]) -> Value {
        json!({
            "metadata": {"namespace": "shop", "name": format!("{service}-x1"),
                         "labels": {"kubernetes.io/service-name": service}},
            "ports": [{"port": 5432}, {"port": 53, "protocol": "UDP"}],
            "endpoints": [{"addresses": addresses}],
        })
    }

    fn service(name: &str, selector: &Value) -> Value {
        json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"selector": selector}})
    }

    #[test]
    fn only_slices_of_services_without_a_selector_are_kept() {
        let services = [
            service("web", &json!({"app": "web"})),
            service("db", &Value::Null),
            service("none", &json!({})),
        ];
        let slices = ["web", "db", "none", "gone"].map(|name| slice(name, &["192.0.2.1"]));
        let mut warnings = Vec::new();
        let kept = kept(slices.to_vec(), &services, &mut warnings);
        let names: Vec<String> = kept.iter().map(key).collect();
        assert_eq!(names, ["shop/db-x1", "shop/none-x1", "shop/gone-x1"]);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("shop/web-x1"));
    }

    #[test]
    fn their_addresses_become_hosts_with_their_ports() {
        let ports = |list: &[(Proto, u16)]| -> Vec<Listen> {
            let listen = |&(proto, port)| Listen { proto, port };
            list.iter().map(listen).collect()
        };
        let mut hosts = vec![OutsideHost {
            address: "203.0.113.9".parse().unwrap(),
            declared: ports(&[(Proto::Tcp, 443)]),
        }];
        // The pods' own range is nobody's outside.
        let named = slice("db", &["203.0.113.9", "192.0.2.7", "10.244.1.9"]);
        add_hosts(&[named], &mut hosts);
        let own = ports(&[(Proto::Tcp, 5432), (Proto::Udp, 53)]);
        let both = ports(&[(Proto::Tcp, 443), (Proto::Tcp, 5432), (Proto::Udp, 53)]);
        assert_eq!(
            hosts,
            [("192.0.2.7", own), ("203.0.113.9", both)].map(|(address, declared)| OutsideHost {
                address: address.parse().unwrap(),
                declared,
            })
        );
    }
}
