//! What `GET /v1/services` and `weir service list` show.

use std::net::IpAddr;

use weir_abi::service::{RangeKey, ServiceKey, scope};
use weir_abi::{Addr, Proto};
use weir_api::service::{BackendInfo, FrontendInfo, ServiceInfo};

use super::actual::ServiceActual;
use super::claims::{FrontendKind, Owner};
use super::compile::{self, Wanted, WantedHostPort};
use super::desired::{Desired, Target};
use super::endpoints::{Endpoint, Uses, endpoints};
use super::index::ServiceIndex;
use super::parse::{ParsedPod, ParsedService, Readiness, ServiceName, ServicePort, TrafficPolicy};
use crate::state::Kind;

impl ServiceIndex {
    /// Every Service, and every Pod with HostPorts on this node, sorted by namespace and name, compared
    /// with what the kernel holds.
    pub fn list(&self, actual: &ServiceActual) -> Vec<ServiceInfo> {
        let kernel = Kernel {
            actual,
            desired: self.desired(),
        };
        let services = self
            .services()
            .map(|(name, s)| self.service_info(name, &s, &kernel));
        let pods = self
            .pods()
            .map(|(name, pod)| self.pod_info(name, pod, &kernel));
        let mut all: Vec<ServiceInfo> = services.chain(pods).collect();
        all.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        all
    }

    fn service_info(
        &self,
        name: &ServiceName,
        service: &ParsedService,
        kernel: &Kernel<'_>,
    ) -> ServiceInfo {
        let owner = Owner::Service(name.clone());
        let mut frontends = Vec::new();
        for wanted in compile::wanted(service) {
            if !self.has(&owner, &wanted.claim) {
                continue;
            }
            match wanted.port {
                Some(port) => {
                    frontends.extend(self.frontends(name, service, &wanted, port, kernel))
                }
                None => {
                    for port in &service.ports {
                        frontends.extend(self.frontends(name, service, &wanted, port, kernel));
                    }
                }
            }
        }
        let mut problems = self.problems_of(Kind::Service, name);
        for slice in self.slice_names(name) {
            problems.extend(self.problems_of(Kind::EndpointSlice, &slice));
        }
        ServiceInfo {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            kind: service.kind.as_str().into(),
            frontends,
            problems,
        }
    }

    /// What one place leads to: everyone, and those outside if it is another set.
    fn frontends(
        &self,
        name: &ServiceName,
        service: &ParsedService,
        wanted: &Wanted<'_>,
        port: &ServicePort,
        kernel: &Kernel<'_>,
    ) -> Vec<FrontendInfo> {
        let kind = wanted.claim.kind;
        let mut place = wanted.claim.place;
        if kind == FrontendKind::ClusterIp {
            (place.port, place.proto) = (port.port.number, port.port.proto);
        }
        let v4 = place.addr.is_v4();
        let slices = self.slices_of(name);
        let both = Uses {
            cluster: true,
            local: true,
        };
        let found = endpoints(name, (&port.port, v4), both, slices.iter(), self.zone());
        let policy = match kind {
            FrontendKind::ClusterIp => service.internal,
            _ => service.external,
        };
        let is_local = policy == TrafficPolicy::Local;
        let is_split = is_local && kind != FrontendKind::ClusterIp;
        let scopes = [(scope::EVERYONE, "everyone"), (scope::OUTSIDE, "outside")];
        let scopes = scopes.into_iter().take(if is_split { 2 } else { 1 });
        let frontends = scopes.map(|(scope, from)| {
            let by_local = is_local && (scope == scope::OUTSIDE || !is_split);
            let key = compile::key(place, scope);
            let ranges = service.ranges.as_deref();
            let ranges = ranges.filter(|_| kind == FrontendKind::LoadBalancer);
            FrontendInfo {
                address: place.addr.to_ip().to_string(),
                port: place.port,
                protocol: protocol(place.proto).into(),
                port_name: port.port.name.to_string(),
                kind: kind.as_str().into(),
                from: from.into(),
                policy: if by_local { "Local" } else { "Cluster" }.into(),
                affinity_seconds: service.affinity_secs,
                source_ranges: ranges.map(|list| list.iter().map(prefix).collect()),
                programmed: kernel.holds(&key),
                backends: found
                    .backends
                    .iter()
                    .map(|b| backend(b, by_local))
                    .collect(),
            }
        });
        frontends.collect()
    }

    fn pod_info(&self, name: &ServiceName, pod: &ParsedPod, kernel: &Kernel<'_>) -> ServiceInfo {
        let owner = Owner::Pod(name.clone());
        let wanted = compile::host_ports(name, pod).into_iter();
        let owned = wanted.filter(|w| self.has(&owner, &w.claim));
        let frontends = owned.map(
            |WantedHostPort {
                 claim,
                 name: port,
                 backend,
             }| {
                let place = claim.place;
                FrontendInfo {
                    address: place.addr.to_ip().to_string(),
                    port: place.port,
                    protocol: protocol(place.proto).into(),
                    port_name: port.to_owned(),
                    kind: claim.kind.as_str().into(),
                    from: "everyone".into(),
                    policy: "Local".into(),
                    programmed: kernel.holds(&compile::key(place, scope::EVERYONE)),
                    backends: vec![BackendInfo {
                        address: backend.addr.to_ip().to_string(),
                        port: backend.port.get(),
                        state: "active".into(),
                        pod: name.to_string(),
                        node: self.node_name().to_owned(),
                    }],
                    ..FrontendInfo::default()
                }
            },
        );
        ServiceInfo {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            kind: FrontendKind::HostPort.as_str().into(),
            frontends: frontends.collect(),
            problems: self.problems_of(Kind::Pod, name),
        }
    }
}

fn backend(backend: &Endpoint<'_>, by_local: bool) -> BackendInfo {
    let is_member = if by_local {
        backend.in_local
    } else {
        backend.in_cluster
    };
    let state = match backend.parsed.readiness {
        _ if is_member => "active",
        Readiness::Ready => "unused",
        Readiness::Terminating => "draining",
        Readiness::NotReady => "notReady",
    };
    BackendInfo {
        address: backend.content.addr.to_ip().to_string(),
        port: backend.content.port.get(),
        state: state.into(),
        pod: backend.parsed.pod.to_string(),
        node: backend.parsed.node.to_string(),
    }
}

fn protocol(proto: Proto) -> &'static str {
    match proto {
        Proto::TCP => "TCP",
        Proto::UDP => "UDP",
        _ => "SCTP",
    }
}

fn prefix(key: &RangeKey) -> String {
    let len = key.prefix_len - 64;
    let [word, ..] = key.addr;
    let ip: IpAddr = match key.family {
        4 => word.to_ne_bytes().into(),
        _ => Addr(key.addr).to_ip(),
    };
    format!("{ip}/{len}")
}

/// What the kernel holds and what it should.
struct Kernel<'a> {
    actual: &'a ServiceActual,
    desired: &'a Desired,
}

impl Kernel<'_> {
    /// Whether the kernel leads a frontend to the members of its set, in the way that it should.
    fn holds(&self, key: &ServiceKey) -> bool {
        let Some(Target::Frontend(frontend)) = self.desired.frontends.get(key) else {
            return false;
        };
        let marker = ServiceKey::marker(key.addr);
        let is_open = key.addr == ServiceKey::node_wide(key.addr.is_v4())
            || self.actual.services.contains_key(&marker);
        let wanted = frontend.value(
            self.desired,
            |hash| self.actual.set(hash),
            |hash| self.actual.ranges_id(hash),
        );
        is_open && wanted.is_some() && self.actual.services.get(key) == wanted.as_ref()
    }
}
