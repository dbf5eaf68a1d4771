//! What counts of an EndpointSlice.

use std::collections::BTreeSet;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use weir_abi::Addr;

use super::super::hash::hash;
use super::{HEADLESS, PROXY_NAME, Port, Problem, Report, ServiceName, address};

/// Which Service an EndpointSlice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What counts of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct ParsedSlice {
    pub service: ServiceName,
    pub ports: Box<[Port]>,
    pub endpoints: Box<[ParsedEndpoint]>,
    pub problems: Vec<Problem>,
}

/// An endpoint of a slice. There are many of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct ParsedEndpoint {
    pub addr: Addr,
    pub readiness: Readiness,
    /// Hash of the UID of what stands behind the address, so that a reused address is told apart.
    pub uid: [u8; 16],
    /// `namespace/name` of the pod; empty if it is none.
    pub pod: Box<str>,
    pub node: Box<str>,
    /// Whether it is on this node.
    pub is_local: bool,
    /// Whether it is meant for this node.
    pub for_node: NodeHint,
    /// The zones that it is meant for; empty: it does not say.
    pub for_zones: Box<[Box<str>]>,
}

/// What an endpoint says of the nodes that it is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum NodeHint {
    /// Nothing.
    None,
    /// Others than this one.
    Others,
    /// This one.
    This,
}

/// What an endpoint takes; of several reports about one endpoint the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Readiness {
    /// Nothing.
    NotReady,
    /// Established flows; new ones only if no endpoint is ready.
    Terminating,
    /// Everything.
    Ready,
}

/// `None`: the slice belongs to no Service that Weir programs, or has no addresses.
pub(in super::super) fn slice(slice: &EndpointSlice, node_name: &str) -> Option<ParsedSlice> {
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
                ports: Box::default(),
                endpoints: Box::default(),
                problems,
            });
        }
    };
    let mut ports: Vec<Port> = Vec::new();
    for (i, port) in slice.ports.iter().flatten().enumerate() {
        // Without a number the slice says "every port", which no Service port can stand for.
        let Some(number) = port.port else { continue };
        let parts = (port.name.as_deref(), number, port.protocol.as_deref());
        ports.extend(Port::parse(&mut report, &format!("ports[{i}]"), parts));
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
            Some(addr) => drop(endpoints.insert(parsed_endpoint(addr, endpoint, node_name))),
            None => {}
        }
    }
    let endpoints = endpoints.into_iter().collect();
    Some(ParsedSlice {
        service,
        ports: ports.into(),
        endpoints,
        problems: report.problems,
    })
}

fn parsed_endpoint(addr: Addr, endpoint: &Endpoint, node_name: &str) -> ParsedEndpoint {
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
    let node = endpoint.node_name.as_deref().unwrap_or_default();
    let hints = endpoint.hints.as_ref();
    let nodes = hints
        .and_then(|h| h.for_nodes.as_deref())
        .unwrap_or_default();
    let for_node = if nodes.is_empty() {
        NodeHint::None
    } else if nodes.iter().any(|n| n.name == node_name) {
        NodeHint::This
    } else {
        NodeHint::Others
    };
    let zones = hints
        .and_then(|h| h.for_zones.as_deref())
        .unwrap_or_default();
    ParsedEndpoint {
        addr,
        readiness,
        uid: hash(&[uid.as_bytes()]),
        pod: pod.unwrap_or_default().into(),
        node: node.into(),
        is_local: !node.is_empty() && node == node_name,
        for_node,
        for_zones: zones.iter().map(|z| z.name.as_str().into()).collect(),
    }
}
