//! From a Service's port to the backends that serve it.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort as ApiPort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::cluster::{Evaluator, key};
use crate::party::{End, Protocol, QueryError};
use crate::ports;

/// A Service's port, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServicePort {
    /// By number.
    Number(u16),
    /// By name.
    Name(String),
}

/// One backend of a Service's port. Its target is a pod where one is known, so that a pod without
/// an address can be judged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Where a connection arrives after translation.
    pub end: End,
    /// Its addresses; empty for a pod that has none yet.
    pub addresses: Vec<IpAddr>,
    /// The protocol of the Service's port.
    pub protocol: Protocol,
    /// The port at which it arrives.
    pub port: u16,
}

/// An endpoint before the choice by readiness.
struct Found {
    backend: Backend,
    ready: bool,
    /// Terminating, but still serving: used if nothing is ready.
    serving: bool,
}

impl Evaluator<'_> {
    /// The backends of one port of a Service, sorted: of its EndpointSlices, or, if it has none,
    /// of the pods that it selects. Ready ones, or else those that still serve while they
    /// terminate. A `protocol` of [`None`] means that of the port if its name or number says
    /// which, else TCP.
    ///
    /// # Errors
    /// [`QueryError::Service`] if the Service or the port is not there, or has no backend.
    pub fn backends(
        &self,
        namespace: &str,
        name: &str,
        port: &ServicePort,
        protocol: Option<Protocol>,
    ) -> Result<Vec<Backend>, QueryError> {
        let fail = |reason: String| QueryError::Service {
            service: format!("{namespace}/{name}"),
            reason,
        };
        let mut services = self.cluster.services.iter().rev();
        let service = services
            .find(|s| is_named(&s.metadata, namespace, name))
            .ok_or_else(|| fail("no such service in the objects".to_owned()))?;
        let spec = service.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            let reason = "is an ExternalName: probe the name it stands for".to_owned();
            return Err(fail(reason));
        }
        let headless = spec.cluster_ip.as_deref() == Some("None");
        let ports = spec.ports.clone().unwrap_or_default();
        let (api_port, protocol) = find_port(&ports, port, protocol).map_err(fail)?;

        let slices: Vec<&EndpointSlice> = self
            .cluster
            .endpoint_slices
            .iter()
            .filter(|slice| belongs_to(slice, namespace, name))
            .collect();
        let found = if slices.is_empty() {
            self.found_by_selector(service, &api_port, protocol)
        } else {
            self.found_in_slices(&slices, namespace, &api_port, protocol)
        };
        let mut backends = choose(found);
        if headless && let ServicePort::Number(number) = port {
            // No translation: the client dials the pod at the port it was told.
            for backend in &mut backends {
                backend.port = *number;
            }
        }
        backends.sort_by_key(|b| (b.end.to_string(), b.port));
        backends.dedup();
        if backends.is_empty() {
            return Err(fail("has no endpoints that are ready".to_owned()));
        }
        Ok(backends)
    }

    fn found_in_slices(
        &self,
        slices: &[&EndpointSlice],
        namespace: &str,
        port: &ApiPort,
        protocol: Protocol,
    ) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        for slice in slices {
            let listed = slice.ports.iter().flatten();
            let number = listed
                .filter(|p| same_port(p, port, protocol))
                .find_map(|p| p.port.and_then(|n| u16::try_from(n).ok()));
            let Some(number) = number else { continue };
            for endpoint in slice.endpoints.iter().flatten() {
                let one = self.found_endpoint(endpoint, namespace, protocol, number);
                let Some(one) = one else { continue };
                // A dual-stack pod stands in one slice of each family.
                let same = |f: &&mut Found| {
                    f.backend.end == one.backend.end && f.backend.port == one.backend.port
                };
                match found.iter_mut().find(same) {
                    Some(other) => other.backend.addresses.extend(one.backend.addresses),
                    None => found.push(one),
                }
            }
        }
        found
    }

    fn found_endpoint(
        &self,
        endpoint: &Endpoint,
        namespace: &str,
        protocol: Protocol,
        port: u16,
    ) -> Option<Found> {
        let addresses = endpoint.addresses.iter().filter_map(|a| a.parse().ok());
        let addresses: Vec<IpAddr> = addresses.collect();
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let target = endpoint.target_ref.as_ref();
        let pod = target.filter(|t| t.kind.as_deref() == Some("Pod"));
        let pod = pod.and_then(|t| {
            let end = End::Pod {
                namespace: t.namespace.clone().unwrap_or_else(|| namespace.to_owned()),
                name: t.name.clone()?,
            };
            self.resolve(&end).is_ok().then_some(end)
        });
        let end = match pod {
            Some(pod) => pod,
            None => End::Address(*addresses.first()?),
        };
        Some(Found {
            backend: Backend {
                end,
                addresses,
                protocol,
                port,
            },
            // EndpointConditions: a condition that is not there counts as ready.
            ready: conditions.ready.unwrap_or(true),
            serving: conditions.serving.unwrap_or(true) && conditions.terminating.unwrap_or(false),
        })
    }

    /// What the EndpointSlice controller would list.
    fn found_by_selector(
        &self,
        service: &Service,
        port: &ApiPort,
        protocol: Protocol,
    ) -> Vec<Found> {
        let spec = service.spec.clone().unwrap_or_default();
        let selector = spec.selector.unwrap_or_default();
        if selector.is_empty() {
            return Vec::new();
        }
        let namespace = key(&service.metadata).0;
        let publish = spec.publish_not_ready_addresses.unwrap_or(false);
        let mut found = Vec::new();
        for pod in &self.pods {
            let selected = pod.namespace == namespace
                && selector.iter().all(|(k, v)| pod.labels.get(k) == Some(v));
            let number = match &port.target_port {
                None => u16::try_from(port.port).ok(),
                // 0 is what a missing targetPort was in old API versions.
                Some(IntOrString::Int(0)) => u16::try_from(port.port).ok(),
                Some(IntOrString::Int(n)) => u16::try_from(*n).ok(),
                Some(IntOrString::String(name)) => pod.named_port(name, protocol),
            };
            let (true, Some(number)) = (selected, number) else {
                continue;
            };
            let (ready, terminating) = (pod.ready, pod.terminating);
            found.push(Found {
                backend: Backend {
                    end: End::Pod {
                        namespace: pod.namespace.clone(),
                        name: pod.name.clone(),
                    },
                    addresses: pod.addresses.clone(),
                    protocol,
                    port: number,
                },
                ready: publish || (ready && !terminating),
                serving: ready && terminating,
            });
        }
        found
    }
}

fn choose(found: Vec<Found>) -> Vec<Backend> {
    let any_ready = found.iter().any(|f| f.ready);
    found
        .into_iter()
        .filter(|f| if any_ready { f.ready } else { f.serving })
        .map(|f| f.backend)
        .collect()
}

/// No namespace is `default`.
fn is_in(metadata: &ObjectMeta, namespace: &str) -> bool {
    metadata.namespace.as_deref().unwrap_or("default") == namespace
}

fn is_named(metadata: &ObjectMeta, namespace: &str, name: &str) -> bool {
    metadata.name.as_deref() == Some(name) && is_in(metadata, namespace)
}

fn belongs_to(slice: &EndpointSlice, namespace: &str, service: &str) -> bool {
    let labels = slice.metadata.labels.as_ref();
    let owner = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
    owner.is_some_and(|owner| owner == service) && is_in(&slice.metadata, namespace)
}

fn same_port(listed: &EndpointPort, port: &ApiPort, protocol: Protocol) -> bool {
    let name = |n: &Option<String>| n.clone().unwrap_or_default();
    let listed_protocol = ports::protocol(listed.protocol.as_deref().unwrap_or("TCP"));
    name(&listed.name) == name(&port.name) && listed_protocol == Some(protocol)
}

fn find_port(
    ports: &[ApiPort],
    wanted: &ServicePort,
    protocol: Option<Protocol>,
) -> Result<(ApiPort, Protocol), String> {
    let of = |port: &ApiPort| ports::protocol(port.protocol.as_deref().unwrap_or("TCP"));
    let matching = ports.iter().filter(|port| match wanted {
        ServicePort::Number(number) => port.port == i32::from(*number),
        ServicePort::Name(name) => port.name.as_deref() == Some(name),
    });
    let matching: Vec<(ApiPort, Protocol)> = matching
        .filter_map(|port| Some((port.clone(), of(port)?)))
        .filter(|(_, p)| protocol.is_none_or(|wanted| wanted == *p))
        .collect();
    let tcp = matching.iter().find(|(_, p)| *p == Protocol::Tcp);
    match (tcp, matching.as_slice()) {
        (Some(port), _) => Ok(port.clone()),
        (None, [first, ..]) => Ok(first.clone()),
        (None, []) => {
            let listed = ports.iter().map(|port| {
                let protocol = port.protocol.as_deref().unwrap_or("TCP");
                match &port.name {
                    Some(name) => format!("{}/{protocol} ({name})", port.port),
                    None => format!("{}/{protocol}", port.port),
                }
            });
            let listed: Vec<String> = listed.collect();
            let asked = match wanted {
                ServicePort::Number(number) => number.to_string(),
                ServicePort::Name(name) => format!("{name:?}"),
            };
            let over = protocol.map(|p| format!("/{p}")).unwrap_or_default();
            Err(format!(
                "has no port {asked}{over}; it has {}",
                listed.join(", ")
            ))
        }
    }
}
