//! From the objects to the few fields that count, with what is wrong in them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weir_abi::{Addr, Proto};

use super::hash::hash;

/// Another load balancer takes care of the object.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The object belongs to a headless Service.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Which Service an EndpointSlice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Names a Service, or another object with a namespace. Copies share their text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ServiceName {
    /// From its two parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// From an object's metadata; without a namespace it is `default`.
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        let namespace = match meta.namespace.as_deref() {
            None | Some("") => "default",
            Some(namespace) => namespace,
        };
        Self {
            namespace: namespace.into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A part of an object that is not used, and why; the rest of it works.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// For example `Service shop/cart`.
    pub object: String,
    /// For example `spec.ports[1].port`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.message)
    }
}

/// Collects problems of one object.
struct Report {
    object: String,
    problems: Vec<Problem>,
}

impl Report {
    fn new(kind: &str, name: &ServiceName) -> Self {
        Self {
            object: format!("{kind} {name}"),
            problems: Vec::new(),
        }
    }

    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let problem = Problem {
            object: self.object.clone(),
            field: field.into(),
            message: message.into(),
        };
        self.problems.push(problem);
    }

    /// The value, or a problem.
    fn check<T>(&mut self, field: impl Into<String>, value: Result<T, String>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(message) => {
                self.add(field, message);
                None
            }
        }
    }
}

/// What counts of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ParsedService {
    pub kind: String,
    /// Seconds since 1970, of two Services with one address the older one has it.
    pub created: i64,
    pub addresses: Vec<Addr>,
    pub ports: Vec<Port>,
    pub problems: Vec<Problem>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub name: String,
    pub number: u16,
    pub proto: Proto,
}

/// What counts of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ParsedSlice {
    pub service: ServiceName,
    pub ports: Vec<Port>,
    pub endpoints: Box<[ParsedEndpoint]>,
    pub problems: Vec<Problem>,
}

/// An endpoint of a slice. There are many of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ParsedEndpoint {
    pub addr: Addr,
    pub readiness: Readiness,
    /// Hash of the UID of what stands behind the address, so that a reused address is told apart.
    pub uid: [u8; 16],
    /// `namespace/name` of the pod; empty if it is none.
    pub pod: Box<str>,
    pub node: Box<str>,
}

/// What an endpoint takes; of several reports about one endpoint the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Readiness {
    /// Nothing.
    NotReady,
    /// Established flows; new ones only if no endpoint is ready.
    Terminating,
    /// Everything.
    Ready,
}

/// `None`: the Service has no frontend that Weir programs (headless, ExternalName, another proxy's).
pub(super) fn service(service: &Service) -> Option<ParsedService> {
    let labels = service.metadata.labels.as_ref();
    let spec = service.spec.as_ref()?;
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if labels.is_some_and(|l| l.contains_key(PROXY_NAME) || l.contains_key(HEADLESS))
        || kind == "ExternalName"
    {
        return None;
    }
    let name = ServiceName::of(&service.metadata);
    let mut report = Report::new("Service", &name);
    let (field, texts) = match &spec.cluster_ips {
        Some(ips) if !ips.is_empty() => ("spec.clusterIPs", ips.as_slice()),
        _ => ("spec.clusterIP", spec.cluster_ip.as_slice()),
    };
    let mut addresses = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        if text == "None" {
            return None;
        }
        if text.is_empty() {
            continue;
        }
        let field = if field == "spec.clusterIPs" {
            format!("{field}[{i}]")
        } else {
            field.into()
        };
        match report.check(&field, address(text)) {
            Some(addr) if addresses.contains(&addr) => report.add(field, "is there twice"),
            Some(addr) => addresses.push(addr),
            None => {}
        }
    }
    let mut ports: Vec<Port> = Vec::new();
    for (i, port) in spec.ports.iter().flatten().enumerate() {
        let field = format!("spec.ports[{i}]");
        let Some(port) = service_port(&mut report, &field, port) else {
            continue;
        };
        let twin = |p: &&Port| p.number == port.number && p.proto == port.proto;
        if let Some(twin) = ports.iter().find(twin) {
            let message = format!("port and protocol are those of {:?} already", twin.name);
            report.add(field, message);
        } else if ports.iter().any(|p| p.name == port.name) {
            report.add(
                format!("{field}.name"),
                format!("{:?} is there twice", port.name),
            );
        } else {
            ports.push(port);
        }
    }
    let created = service.metadata.creation_timestamp.as_ref();
    Some(ParsedService {
        kind: kind.to_owned(),
        created: created.map_or(0, |time| time.0.as_second()),
        addresses,
        ports,
        problems: report.problems,
    })
}

fn service_port(report: &mut Report, field: &str, port: &ServicePort) -> Option<Port> {
    let number = report.check(format!("{field}.port"), port_number(port.port));
    let proto = report.check(
        format!("{field}.protocol"),
        protocol(port.protocol.as_deref()),
    );
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        number: number?,
        proto: proto?,
    })
}

/// `None`: the slice belongs to no Service that Weir programs, or has no addresses.
pub(super) fn slice(slice: &EndpointSlice) -> Option<ParsedSlice> {
    let labels = slice.metadata.labels.as_ref()?;
    if labels.contains_key(PROXY_NAME) || labels.contains_key(HEADLESS) {
        return None;
    }
    let name = ServiceName::of(&slice.metadata);
    let service = ServiceName {
        name: labels.get(SERVICE_NAME)?.as_str().into(),
        namespace: name.namespace.clone(),
    };
    let mut report = Report::new("EndpointSlice", &name);
    let v4 = match slice.address_type.as_str() {
        "IPv4" => true,
        "IPv6" => false,
        "FQDN" => return None,
        other => {
            report.add(
                "addressType",
                format!("{other:?} is not IPv4, IPv6 or FQDN"),
            );
            let problems = report.problems;
            return Some(ParsedSlice {
                service,
                ports: vec![],
                endpoints: Box::default(),
                problems,
            });
        }
    };
    let mut ports: Vec<Port> = Vec::new();
    for (i, port) in slice.ports.iter().flatten().enumerate() {
        ports.extend(slice_port(&mut report, &format!("ports[{i}]"), port));
    }
    let mut endpoints = BTreeSet::new();
    for (i, endpoint) in slice.endpoints.iter().flatten().enumerate() {
        let field = format!("endpoints[{i}].addresses[0]");
        // Further addresses have no meaning (discovery.k8s.io/v1).
        let Some(text) = endpoint.addresses.first() else {
            report.add(field, "is missing");
            continue;
        };
        match report.check(&field, address(text)) {
            Some(addr) if addr.is_v4() != v4 => {
                report.add(field, format!("{text} is not {}", slice.address_type));
            }
            Some(addr) => drop(endpoints.insert(parsed_endpoint(addr, endpoint))),
            None => {}
        }
    }
    let endpoints = endpoints.into_iter().collect();
    Some(ParsedSlice {
        service,
        ports,
        endpoints,
        problems: report.problems,
    })
}

fn slice_port(report: &mut Report, field: &str, port: &EndpointPort) -> Option<Port> {
    // Without a number the slice says "every port", which no Service port can stand for.
    let number = report.check(format!("{field}.port"), port_number(port.port?));
    let proto = report.check(
        format!("{field}.protocol"),
        protocol(port.protocol.as_deref()),
    );
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        number: number?,
        proto: proto?,
    })
}

fn parsed_endpoint(addr: Addr, endpoint: &Endpoint) -> ParsedEndpoint {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    // Unknown is ready, serving (as ready), and not terminating (discovery.k8s.io/v1).
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    let terminating = conditions.terminating.unwrap_or(false);
    let readiness = match (ready, serving && terminating) {
        (true, _) => Readiness::Ready,
        (false, true) => Readiness::Terminating,
        (false, false) => Readiness::NotReady,
    };
    let target = endpoint.target_ref.as_ref();
    let pod = target
        .filter(|t| t.kind.as_deref() == Some("Pod"))
        .map(|t| {
            let [namespace, name] =
                [&t.namespace, &t.name].map(|s| s.as_deref().unwrap_or_default());
            format!("{namespace}/{name}")
        });
    let uid = target.and_then(|t| t.uid.as_deref()).unwrap_or_default();
    ParsedEndpoint {
        addr,
        readiness,
        uid: hash(&[uid.as_bytes()]),
        pod: pod.unwrap_or_default().into(),
        node: endpoint.node_name.as_deref().unwrap_or_default().into(),
    }
}

fn port_number(port: i32) -> Result<u16, String> {
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{port} is not in 1-65535")),
    }
}

fn protocol(text: Option<&str>) -> Result<Proto, String> {
    match text.unwrap_or("TCP") {
        "TCP" | "" => Ok(Proto::TCP),
        "UDP" => Ok(Proto::UDP),
        "SCTP" => Ok(Proto::SCTP),
        other => Err(format!("{other:?} is not TCP, UDP or SCTP")),
    }
}

/// An address that a Service or an endpoint may have; the API server refuses the others.
fn address(text: &str) -> Result<Addr, String> {
    let Ok(ip) = text.parse::<IpAddr>() else {
        return Err(format!("{text:?} is not an IP address"));
    };
    let why = match ip {
        _ if ip.is_unspecified() => "the unspecified address",
        _ if ip.is_loopback() => "a loopback address",
        _ if ip.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_link_local() => "a link-local address",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "a link-local address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4-mapped address",
        _ => return Ok(ip.into()),
    };
    Err(format!("{text} is {why}"))
}
