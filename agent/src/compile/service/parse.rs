//! From the objects to the few fields that count, with what is wrong in them.

mod compact;
mod pod;
mod service;
mod slice;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weir_abi::{Addr, Proto};

pub(super) use compact::Compact;
pub(super) use pod::{ParsedPod, pod};
pub(super) use service::{ParsedService, ServicePort, TrafficPolicy, service};
pub(super) use slice::{NodeHint, ParsedEndpoint, ParsedSlice, Readiness, slice};

/// Another load balancer takes care of the object.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The object belongs to a headless Service.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Names a Service, or another object with a namespace. Copies share their text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

impl ServiceName {
    /// Shares its text with the same name among those of a map, or its namespace with a neighbour's.
    pub(super) fn share<V>(&mut self, among: &BTreeMap<Self, V>) {
        let before = among.range(..=&*self).next_back();
        let after = || among.range(&*self..).next();
        let Some((other, _)) = before
            .filter(|(b, _)| b.namespace == self.namespace)
            .or_else(after)
        else {
            return;
        };
        if other.name == self.name {
            self.name = other.name.clone();
        }
        if other.namespace == self.namespace {
            self.namespace = other.namespace.clone();
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

/// A port of a Service or a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub name: Box<str>,
    /// In host order.
    pub number: u16,
    pub proto: Proto,
}

impl Port {
    /// `None` with a problem if the number or the protocol is not one.
    fn parse(
        report: &mut Report,
        field: &str,
        (name, number, proto): (Option<&str>, i32, Option<&str>),
    ) -> Option<Self> {
        let number = report.check(format!("{field}.port"), port_number(number));
        let proto = report.check(format!("{field}.protocol"), protocol(proto));
        Some(Self {
            name: name.unwrap_or_default().into(),
            number: number?,
            proto: proto?,
        })
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

/// An address of the node that a HostPort may name: its loopback as well, for its own sockets.
fn host_address(text: &str) -> Result<Addr, String> {
    match text.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => Ok(ip.into()),
        _ => address(text),
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
