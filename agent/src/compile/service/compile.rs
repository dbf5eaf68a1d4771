//! One Service with its EndpointSlices → its frontends, sets and backends.

use std::collections::BTreeMap;

use weir_abi::service::{BackendState, ServiceKey, marker};
use weir_abi::{Addr, PortBe};

use super::desired::Frontend;
use super::hash::{Content, SetHash};
use super::parse::{ParsedEndpoint, ParsedService, ParsedSlice, Port, Readiness, ServiceName};

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
}

/// What the frontends of one port and family lead to.
#[derive(Debug)]
pub(super) struct Endpoints<'a> {
    /// All that the slices say, sorted.
    pub backends: Vec<Endpoint<'a>>,
}

/// One backend.
#[derive(Debug)]
pub(super) struct Endpoint<'a> {
    pub content: Content,
    /// [`BackendState::Active`] for members of a set.
    pub state: BackendState,
    /// What the slices say.
    pub parsed: &'a ParsedEndpoint,
}

impl Endpoints<'_> {
    /// The set's members.
    pub fn members(&self) -> impl Iterator<Item = Content> {
        let active = self
            .backends
            .iter()
            .filter(|b| b.state == BackendState::Active);
        active.map(|b| b.content)
    }
}

/// Compiles a Service that has been given `addresses`.
pub(super) fn compile<'a>(
    name: &ServiceName,
    service: &ParsedService,
    addresses: &[Addr],
    slices: impl Iterator<Item = &'a ParsedSlice> + Clone,
) -> Compiled {
    let mut compiled = Compiled {
        markers: addresses
            .iter()
            .map(|a| (*a, marker::REFUSE_UNSERVED))
            .collect(),
        ..Compiled::default()
    };
    for port in &service.ports {
        for v4 in [true, false] {
            let mut addresses = addresses.iter().filter(|a| a.is_v4() == v4).peekable();
            if addresses.peek().is_none() {
                continue;
            }
            let found = endpoints(name, port, v4, slices.clone());
            let members: Box<[Content]> = found.members().collect();
            let set = (!members.is_empty()).then(|| SetHash::of(members.iter().copied()));
            compiled.sets.extend(set.map(|set| (set, members)));
            let backends = found.backends.iter();
            compiled
                .backends
                .extend(backends.map(|b| (b.content, b.state)));
            for addr in addresses {
                let frontend = Frontend {
                    set,
                    ..Frontend::default()
                };
                compiled.frontends.push((key(*addr, port), frontend));
            }
        }
    }
    compiled
}

/// The key of a port's frontend.
pub(super) fn key(addr: Addr, port: &Port) -> ServiceKey {
    ServiceKey {
        addr,
        port: PortBe::new(port.number),
        proto: port.proto,
        scope: 0,
    }
}

/// What the slices say of a port's endpoints in one family. Ready endpoints are the set's members;
/// without any, those that serve while they terminate.
pub(super) fn endpoints<'a>(
    service: &ServiceName,
    port: &Port,
    v4: bool,
    slices: impl Iterator<Item = &'a ParsedSlice>,
) -> Endpoints<'a> {
    let found = best(port, v4, slices);
    let ready = found.values().any(|e| e.readiness == Readiness::Ready);
    let backends = found.into_iter().map(|((addr, number), parsed)| {
        let state = match parsed.readiness {
            Readiness::Ready => BackendState::Active,
            Readiness::Terminating if !ready => BackendState::Active,
            Readiness::Terminating => BackendState::Draining,
            Readiness::NotReady => BackendState::Removed,
        };
        let fields: [&[u8]; 5] = [
            b"backend",
            service.namespace.as_bytes(),
            service.name.as_bytes(),
            &port.number.to_be_bytes(),
            &parsed.uid,
        ];
        Endpoint {
            content: Content::new(addr, number, port.proto, &fields),
            state,
            parsed,
        }
    });
    Endpoints {
        backends: backends.collect(),
    }
}

/// (address, port) → the best that any slice says of it.
fn best<'a>(
    port: &Port,
    v4: bool,
    slices: impl Iterator<Item = &'a ParsedSlice>,
) -> BTreeMap<(Addr, u16), &'a ParsedEndpoint> {
    let mut found: BTreeMap<(Addr, u16), &ParsedEndpoint> = BTreeMap::new();
    let same = |p: &&Port| p.name == port.name && p.proto == port.proto;
    for slice in slices {
        // A slice has each name once per protocol; a second one adds its port's endpoints.
        for port in slice.ports.iter().filter(same) {
            for endpoint in slice.endpoints.iter().filter(|e| e.addr.is_v4() == v4) {
                let best = found
                    .entry((endpoint.addr, port.number))
                    .or_insert(endpoint);
                if (endpoint.readiness, endpoint) > (best.readiness, *best) {
                    *best = endpoint;
                }
            }
        }
    }
    found
}
