//! From manifests to what the lab must make: which pod runs where, what its server listens on,
//! which addresses Services get, and who is outside the cluster. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use weir_manifests::ClusterIps;

use super::input::Input;
use super::{outside, slices};
use crate::wire::{Listen, Proto};

/// Where ClusterIPs come from, `10.96.0.0/16` and `fd00:10:96::/112`.
const SERVICE_BASES: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(10, 96, 0, 0),
    Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0),
);
/// Where the search for a port that nobody declares begins.
const UNDECLARED_FROM: u16 = 7001;

/// A pod to be made.
#[derive(Clone, Debug)]
pub struct PlannedPod {
    /// The Pod object.
    pub object: Value,
    /// `namespace/workload`, by which the matrix is grouped.
    pub workload: String,
    /// Index of its node.
    pub node: usize,
    /// Ports that the manifests give it: containerPorts and numeric targetPorts of Services that
    /// select it, sorted.
    pub declared: Vec<Listen>,
}

impl PlannedPod {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        key(&self.object)
    }
}

/// A host outside the cluster, one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideHost {
    /// Its address.
    pub address: IpAddr,
    /// Ports that policies name for it.
    pub declared: Vec<Listen>,
}

/// What the lab must make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Pods with a network of their own.
    pub pods: Vec<PlannedPod>,
    /// hostNetwork pods, which CNI never sees: counted, not probed.
    pub host_pods: Vec<String>,
    /// Namespace objects.
    pub namespaces: Vec<Value>,
    /// NetworkPolicy and ClusterNetworkPolicy objects.
    pub policies: Vec<Value>,
    /// Service objects, with their ClusterIPs.
    pub services: Vec<Value>,
    /// EndpointSlices that the manifests bring along.
    pub slices: Vec<Value>,
    /// Hosts outside the cluster, for the policies' address blocks.
    pub outside: Vec<OutsideHost>,
    /// A TCP port that no manifest names; every server listens there as well, so that a probe that
    /// passes is answered by name.
    pub undeclared: Listen,
    /// What was passed over or refused in the manifests.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Spreads the pods of an input over nodes and gives Services their addresses.
    #[must_use]
    pub fn new(mut input: Input, node_names: &[String]) -> Self {
        let services = with_cluster_ips(input.services, &mut input.warnings);
        let mut next_node = 0;
        let mut pods = Vec::new();
        let mut host_pods = Vec::new();
        for (object, workload) in input.pods {
            if object["spec"]["hostNetwork"] == json!(true) {
                host_pods.push(key(&object));
                continue;
            }
            let wanted = object["spec"]["nodeName"].as_str();
            let node = wanted.and_then(|name| node_names.iter().position(|node| node == name));
            let node = node.unwrap_or_else(|| {
                next_node += 1;
                (next_node - 1) % node_names.len()
            });
            let declared = declared_ports(&object, &services);
            pods.push(PlannedPod {
                object,
                workload,
                node,
                declared,
            });
        }
        let used: BTreeSet<u16> = pods
            .iter()
            .flat_map(|pod| &pod.declared)
            .map(|listen| listen.port)
            .collect();
        let named = ports_in(&services);
        let free = |port: &u16| !used.contains(port) && !named.contains(port);
        let port = (UNDECLARED_FROM..u16::MAX)
            .find(free)
            .unwrap_or(UNDECLARED_FROM);
        let slices = slices::kept(input.slices, &services, &mut input.warnings);
        let mut policies = input.policies;
        policies.extend(input.cluster_policies);
        let mut outside = outside::hosts(&policies);
        slices::add_hosts(&slices, &mut outside);
        let mut namespaces = input.namespaces;
        add_missing_namespaces(&mut namespaces, pods.iter().map(|pod| &pod.object));
        Self {
            outside,
            pods,
            host_pods,
            namespaces,
            policies,
            services,
            slices,
            undeclared: Listen {
                proto: Proto::Tcp,
                port,
            },
            warnings: input.warnings,
        }
    }

    /// Workloads in the order of their first pod, each with its pods' indices.
    #[must_use]
    pub fn workloads(&self) -> Vec<(String, Vec<usize>)> {
        let mut workloads: Vec<(String, Vec<usize>)> = Vec::new();
        for (index, pod) in self.pods.iter().enumerate() {
            match workloads.iter_mut().find(|(name, _)| *name == pod.workload) {
                Some((_, pods)) => pods.push(index),
                None => workloads.push((pod.workload.clone(), vec![index])),
            }
        }
        workloads
    }
}

/// `namespace/name` of an object; no namespace is `default`.
#[must_use]
pub fn key(object: &Value) -> String {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or("default");
    format!(
        "{namespace}/{}",
        metadata["name"].as_str().unwrap_or_default()
    )
}

/// The namespace of an object; none is `default`.
#[must_use]
pub fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"]
        .as_str()
        .unwrap_or("default")
}

/// A list inside an object; an absent one is empty.
#[must_use]
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Whether a Service selects a pod: a selector, in the same namespace, that the labels satisfy.
#[must_use]
pub fn selects(service: &Value, pod: &Value) -> bool {
    let Some(selector) = service["spec"]["selector"].as_object() else {
        return false;
    };
    let labels = &pod["metadata"]["labels"];
    !selector.is_empty()
        && namespace(service) == namespace(pod)
        && selector.iter().all(|(key, value)| labels[key] == *value)
}

/// A pod's number for a Service port's target: a number as it is, a name by the containers' ports.
#[must_use]
pub fn target_port(port: &Value, pod: &Value) -> Option<u16> {
    let target = if port["targetPort"].is_null() {
        &port["port"]
    } else {
        &port["targetPort"]
    };
    if let Some(number) = number(target) {
        return Some(number);
    }
    let name = target.as_str()?;
    let protocol = Proto::parse(port["protocol"].as_str());
    container_ports(pod).find_map(|candidate| {
        let same = candidate["name"].as_str() == Some(name)
            && Proto::parse(candidate["protocol"].as_str()) == protocol;
        same.then(|| number(&candidate["containerPort"])).flatten()
    })
}

/// A port number.
#[must_use]
pub fn number(value: &Value) -> Option<u16> {
    value
        .as_u64()
        .and_then(|number| u16::try_from(number).ok())
        .filter(|port| *port != 0)
}

fn container_ports(pod: &Value) -> impl Iterator<Item = &Value> {
    let spec = &pod["spec"];
    // A sidecar is an init container that never ends.
    let sidecars = list(&spec["initContainers"])
        .iter()
        .filter(|init| init["restartPolicy"] == "Always");
    list(&spec["containers"])
        .iter()
        .chain(sidecars)
        .flat_map(|container| list(&container["ports"]))
}

fn declared_ports(pod: &Value, services: &[Value]) -> Vec<Listen> {
    let own = container_ports(pod).filter_map(|port| {
        let proto = Proto::parse(port["protocol"].as_str())?;
        Some(Listen {
            proto,
            port: number(&port["containerPort"])?,
        })
    });
    let by_services = services
        .iter()
        .filter(|service| selects(service, pod))
        .flat_map(|service| list(&service["spec"]["ports"]))
        .filter_map(|port| {
            let proto = Proto::parse(port["protocol"].as_str())?;
            Some(Listen {
                proto,
                port: target_port(port, pod)?,
            })
        });
    own.chain(by_services)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn ports_in(services: &[Value]) -> BTreeSet<u16> {
    let ports = services
        .iter()
        .flat_map(|service| list(&service["spec"]["ports"]));
    ports.filter_map(|port| number(&port["port"])).collect()
}

/// Gives every Service that needs them ClusterIPs, as the API server would.
fn with_cluster_ips(mut services: Vec<Service>, warnings: &mut Vec<String>) -> Vec<Value> {
    let (v4, v6) = SERVICE_BASES;
    let without = ClusterIps::new(Some(v4), Some(v6)).assign(&mut services);
    warnings.extend(
        without
            .iter()
            .map(|name| format!("Service {name} got no address")),
    );
    services
        .iter()
        .filter_map(|service| serde_json::to_value(service).ok())
        .collect()
}

fn add_missing_namespaces<'a>(
    namespaces: &mut Vec<Value>,
    objects: impl Iterator<Item = &'a Value>,
) {
    let mut names: BTreeSet<String> = objects.map(|object| namespace(object).to_owned()).collect();
    for present in &mut *namespaces {
        let name = present["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        present["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
        names.remove(&name);
    }
    namespaces.extend(
        names
            .iter()
            .map(|name| crate::cluster::namespace_object(name, &[])),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ports: &Value) -> Value {
        json!({
            "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
            "spec": {"containers": [{"ports": ports}]},
        })
    }

    fn service(selector: &str, ports: &Value) -> Value {
        json!({
            "metadata": {"namespace": "shop", "name": selector},
            "spec": {"selector": {"app": selector}, "ports": ports},
        })
    }

    fn plan(pods: Vec<Value>, services: Vec<Value>) -> Plan {
        let pods = pods
            .into_iter()
            .map(|pod| (pod, "shop/x".to_owned()))
            .collect();
        let services = services
            .into_iter()
            .map(|service| serde_json::from_value(service).unwrap())
            .collect();
        let input = Input {
            pods,
            services,
            ..Input::default()
        };
        Plan::new(input, &["n1".into(), "n2".into()])
    }

    #[test]
    fn a_server_listens_on_container_ports_and_on_numeric_target_ports() {
        let web = pod(
            "web",
            &json!([{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]),
        );
        let other = pod("other", &json!([]));
        let ports = json!([{"port": 1, "targetPort": 8080}, {"port": 9090}]);
        let plan = plan(vec![web, other], vec![service("web", &ports)]);
        let declared: Vec<(Proto, u16)> = plan.pods[0]
            .declared
            .iter()
            .map(|listen| (listen.proto, listen.port))
            .collect();
        assert_eq!(
            declared,
            [
                (Proto::Tcp, 80),
                (Proto::Tcp, 8080),
                (Proto::Tcp, 9090),
                (Proto::Udp, 53)
            ]
        );
        assert!(plan.pods[1].declared.is_empty());
    }

    #[test]
    fn a_named_target_port_is_looked_up_by_name_and_protocol() {
        let named = json!([
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns", "containerPort": 54},
        ]);
        let pod = pod("web", &named);
        assert_eq!(
            target_port(&json!({"port": 1, "targetPort": "dns"}), &pod),
            Some(54)
        );
        let udp = json!({"port": 1, "targetPort": "dns", "protocol": "UDP"});
        assert_eq!(target_port(&udp, &pod), Some(53));
        assert_eq!(
            target_port(&json!({"port": 1, "targetPort": "no"}), &pod),
            None
        );
    }

    #[test]
    fn the_undeclared_port_is_one_that_nobody_names() {
        let taken = json!([{"containerPort": 7001}]);
        let ports = json!([{"port": 7002, "targetPort": 1}]);
        let plan = plan(vec![pod("web", &taken)], vec![service("web", &ports)]);
        assert_eq!(plan.undeclared.port, 7003);
    }

    #[test]
    fn pods_are_spread_and_a_pod_with_a_node_keeps_it() {
        let mut fixed = pod("fixed", &json!([]));
        fixed["spec"]["nodeName"] = json!("n2");
        let mut host = pod("host", &json!([]));
        host["spec"]["hostNetwork"] = json!(true);
        let plan = plan(
            vec![
                pod("a", &json!([])),
                fixed,
                pod("b", &json!([])),
                host,
                pod("c", &json!([])),
            ],
            vec![],
        );
        let nodes: Vec<usize> = plan.pods.iter().map(|pod| pod.node).collect();
        assert_eq!(nodes, [0, 1, 1, 0]);
        assert_eq!(plan.host_pods, ["shop/host"]);
        assert_eq!(plan.namespaces[0]["metadata"]["name"], "shop");
    }
}
