//! One object → its frontends, sets and backends.

use std::collections::BTreeMap;

use weir_abi::service::{BackendState, ServiceKey, frontend, marker, scope};
use weir_abi::{Addr, PortBe};

use super::claims::{Claim, FrontendKind, Place};
use super::desired::{Frontend, Ranges};
use super::endpoints::{Endpoints, Uses, endpoints};
use super::hash::{Content, SetHash};
use super::parse::{
    ParsedPod, ParsedService, ParsedSlice, ServiceName, ServicePort, TrafficPolicy,
};

/// What one object wants in the kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Compiled {
    /// Its frontends, as far as no other object has them.
    pub frontends: Vec<(ServiceKey, Frontend)>,
    /// The addresses of those that need a marker, with its flags.
    pub markers: Vec<(Addr, u32)>,
    /// Its sets, with their members.
    pub sets: Vec<(SetHash, Box<[Content]>)>,
    /// Its backends: those that no set has keep their flows, or take nothing.
    pub backends: Vec<(Content, BackendState)>,
    /// Who may use its load balancer's addresses.
    pub ranges: Option<Ranges>,
}

impl Compiled {
    fn add_set(&mut self, members: impl Iterator<Item = Content>) -> Option<SetHash> {
        let members: Box<[Content]> = members.collect();
        if members.is_empty() {
            return None;
        }
        let hash = SetHash::of(members.iter().copied());
        if !self.sets.iter().any(|(other, _)| *other == hash) {
            self.sets.push((hash, members));
        }
        Some(hash)
    }

    fn add_marker(&mut self, addr: Addr, flags: u32) {
        let is_node_wide = addr == ServiceKey::node_wide(addr.is_v4());
        if !is_node_wide && !self.markers.iter().any(|(other, _)| *other == addr) {
            self.markers.push((addr, flags));
        }
    }

    fn shrink(mut self) -> Self {
        self.frontends.shrink_to_fit();
        self.markers.shrink_to_fit();
        self.sets.shrink_to_fit();
        self.backends.shrink_to_fit();
        self
    }
}

/// A frontend with the port that it leads to.
pub(super) struct Wanted<'a> {
    pub claim: Claim,
    /// `None`: a ClusterIP, of which each port is one.
    pub port: Option<&'a ServicePort>,
}

/// All that a Service wants, each place once.
pub(super) fn wanted(service: &ParsedService) -> Vec<Wanted<'_>> {
    let mut all: Vec<Wanted<'_>> = Vec::new();
    for addr in &service.cluster_ips {
        let claim = Claim {
            place: Place::whole(*addr),
            kind: FrontendKind::ClusterIp,
            field: "spec.clusterIPs".into(),
        };
        all.push(Wanted { claim, port: None });
    }
    let lists = [
        (
            &service.ingress_ips,
            FrontendKind::LoadBalancer,
            "status.loadBalancer.ingress",
        ),
        (
            &service.external_ips,
            FrontendKind::ExternalIp,
            "spec.externalIPs",
        ),
    ];
    let is_new = |all: &[Wanted<'_>], place| !all.iter().any(|w| w.claim.place == place);
    for (addresses, kind, field) in lists {
        for addr in addresses {
            for port in &service.ports {
                let place = place(*addr, port.port.number, port);
                if is_new(&all, place) {
                    let field = field.into();
                    let claim = Claim { place, kind, field };
                    let port = Some(port);
                    all.push(Wanted { claim, port });
                }
            }
        }
    }
    for port in &service.ports {
        for v4 in [true, false] {
            let Some(number) = port.node_port.filter(|_| service.has_family(v4)) else {
                continue;
            };
            let place = place(ServiceKey::node_wide(v4), number, port);
            if is_new(&all, place) {
                let claim = Claim {
                    place,
                    kind: FrontendKind::NodePort,
                    field: format!("spec.ports[{}].nodePort", port.at),
                };
                let port = Some(port);
                all.push(Wanted { claim, port });
            }
        }
    }
    all
}

fn place(addr: Addr, number: u16, port: &ServicePort) -> Place {
    Place {
        addr,
        port: number,
        proto: port.port.proto,
    }
}

/// The key of a frontend in `SERVICES`.
pub(super) fn key(place: Place, scope: u8) -> ServiceKey {
    ServiceKey {
        addr: place.addr,
        port: PortBe::new(place.port),
        proto: place.proto,
        scope,
    }
}

/// The sets of one port and family.
#[derive(Clone, Copy, Debug, Default)]
struct Sets {
    cluster: Option<SetHash>,
    local: Option<SetHash>,
    has_any: bool,
}

/// Compiles a Service that has been given these of what it wants.
pub(super) fn service<'a>(
    name: &ServiceName,
    service: &ParsedService,
    owned: &[&Wanted<'_>],
    slices: impl Iterator<Item = &'a ParsedSlice> + Clone,
    zone: Option<&str>,
) -> Compiled {
    let mut compiled = Compiled::default();
    if let Some(prefixes) = &service.ranges {
        compiled.ranges = Some(Ranges::new(prefixes.clone()));
    }
    let mut sets: BTreeMap<(usize, bool), Sets> = BTreeMap::new();
    for port in &service.ports {
        for v4 in [true, false]
            .into_iter()
            .filter(|v4| service.has_family(*v4))
        {
            let uses = uses(service, owned, port, v4);
            if !uses.cluster && !uses.local {
                continue;
            }
            let found = endpoints(name, (&port.port, v4), uses, slices.clone(), zone);
            let of_port = add_endpoints(&mut compiled, &found);
            sets.insert((port.at, v4), of_port);
        }
    }
    for Wanted { claim, port } in owned {
        let addr = claim.place.addr;
        let of = |port: &ServicePort| {
            let sets = sets.get(&(port.at, addr.is_v4()));
            sets.copied().unwrap_or_default()
        };
        match port {
            None => {
                compiled.add_marker(addr, marker::REFUSE_UNSERVED);
                for port in &service.ports {
                    let sets = of(port);
                    let frontend = Frontend {
                        set: match service.internal {
                            TrafficPolicy::Cluster => sets.cluster,
                            TrafficPolicy::Local => sets.local,
                        },
                        affinity_secs: service.affinity_secs,
                        ..Frontend::default()
                    };
                    let place = place(addr, port.port.number, port);
                    compiled
                        .frontends
                        .push((key(place, scope::EVERYONE), frontend));
                }
            }
            Some(port) => {
                compiled.add_marker(addr, 0);
                let frontends = external(service, claim, of(port), compiled.ranges.as_ref());
                compiled.frontends.extend(frontends);
            }
        }
    }
    compiled.shrink()
}

/// Which sets the frontends of a port and family lead to: those that come from outside are in the
/// cluster for pods and the node itself.
fn uses(service: &ParsedService, owned: &[&Wanted<'_>], port: &ServicePort, v4: bool) -> Uses {
    let of_family = owned.iter().filter(|w| w.claim.place.addr.is_v4() == v4);
    let internal = of_family.clone().any(|w| w.port.is_none());
    let external = of_family
        .clone()
        .any(|w| w.port.is_some_and(|p| p.at == port.at));
    let is_local = |policy| policy == TrafficPolicy::Local;
    Uses {
        cluster: external || (internal && !is_local(service.internal)),
        local: (internal && is_local(service.internal)) || (external && is_local(service.external)),
    }
}

fn add_endpoints(compiled: &mut Compiled, found: &Endpoints<'_>) -> Sets {
    let sets = Sets {
        cluster: compiled.add_set(found.cluster()),
        local: compiled.add_set(found.local()),
        has_any: found.has_any(),
    };
    let backends = found.backends.iter().map(|b| (b.content, b.state()));
    compiled.backends.extend(backends);
    sets
}

/// Pods and the node itself are led to every backend also where those outside are led to local ones.
fn external(
    service: &ParsedService,
    claim: &Claim,
    sets: Sets,
    ranges: Option<&Ranges>,
) -> impl Iterator<Item = (ServiceKey, Frontend)> + use<> {
    let everyone = Frontend {
        set: sets.cluster,
        flags: 0,
        affinity_secs: service.affinity_secs,
        ranges: ranges
            .filter(|_| claim.kind == FrontendKind::LoadBalancer)
            .map(Ranges::hash),
    };
    let is_local = service.external == TrafficPolicy::Local;
    let outside = is_local.then_some(Frontend {
        set: sets.local,
        flags: if sets.has_any { frontend::SILENT } else { 0 },
        ..everyone
    });
    let everyone = Frontend {
        flags: if is_local { frontend::OUTSIDE_OWN } else { 0 },
        ..everyone
    };
    let place = claim.place;
    let outside = outside.map(|outside| (key(place, scope::OUTSIDE), outside));
    [(key(place, scope::EVERYONE), everyone)]
        .into_iter()
        .chain(outside)
}

/// A HostPort that a Pod wants in one family.
pub(super) struct WantedHostPort<'a> {
    pub claim: Claim,
    pub name: &'a str,
    /// The Pod's.
    pub backend: Content,
}

/// All that a Pod wants, each place once.
pub(super) fn host_ports<'a>(name: &ServiceName, pod: &'a ParsedPod) -> Vec<WantedHostPort<'a>> {
    let mut all: Vec<WantedHostPort<'a>> = Vec::new();
    for port in &pod.ports {
        for addr in &pod.addresses {
            let v4 = addr.is_v4();
            if port.family.is_some_and(|family| family != v4) {
                continue;
            }
            let place = Place {
                addr: port.address.unwrap_or(ServiceKey::node_wide(v4)),
                port: port.number,
                proto: port.proto,
            };
            if all.iter().any(|other| other.claim.place == place) {
                continue;
            }
            let fields: [&[u8]; 6] = [
                b"hostport",
                name.namespace.as_bytes(),
                name.name.as_bytes(),
                &port.number.to_be_bytes(),
                &place.addr.octets(),
                &pod.uid,
            ];
            all.push(WantedHostPort {
                claim: Claim {
                    place,
                    kind: FrontendKind::HostPort,
                    field: port.field.to_string(),
                },
                name: &port.name,
                backend: Content::new(*addr, port.target, port.proto, &fields),
            });
        }
    }
    all
}

/// Compiles a Pod that has been given these of its HostPorts.
pub(super) fn pod(owned: &[&WantedHostPort<'_>]) -> Compiled {
    let mut compiled = Compiled::default();
    for host_port in owned {
        let backend = host_port.backend;
        let frontend = Frontend {
            set: compiled.add_set([backend].into_iter()),
            ..Frontend::default()
        };
        let place = host_port.claim.place;
        compiled.add_marker(place.addr, 0);
        compiled
            .frontends
            .push((key(place, scope::EVERYONE), frontend));
        compiled.backends.push((backend, BackendState::Active));
    }
    compiled.shrink()
}
