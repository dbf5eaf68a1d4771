//! One Service with its EndpointSlices → its frontends, sets and backends.

use std::collections::BTreeMap;

use weir_abi::service::{Backend, BackendState};
use weir_abi::{Addr, PortBe, Proto};

use super::hash::Hash;
use super::parse::{ParsedEndpoint, ParsedService, ParsedSlice, Readiness, ServiceName};

/// A compiled Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Compiled {
    /// Its own addresses, as far as no other Service has them.
    pub addresses: Vec<Addr>,
    /// (port in host order, protocol, whether IPv4) → the backends of these frontends.
    pub ports: BTreeMap<(u16, Proto, bool), CompiledPort>,
}

/// What the frontends of one port and family lead to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CompiledPort {
    /// Name of the port.
    pub name: String,
    /// The set, unless it is empty.
    pub set: Option<Hash>,
    /// The set's members, those that only keep their flows, and those that take nothing; sorted
    /// by hash.
    pub backends: Vec<CompiledBackend>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CompiledBackend {
    /// Of its content.
    pub hash: Hash,
    /// As it should stand in the kernel; [`BackendState::Active`] for the set's members.
    pub value: Backend,
    /// What the slices say.
    pub endpoint: ParsedEndpoint,
}

impl CompiledPort {
    /// The set's members.
    pub fn members(&self) -> impl Iterator<Item = &CompiledBackend> {
        self.backends
            .iter()
            .filter(|b| b.value.state == BackendState::Active as u8)
    }
}

/// Compiles a Service that has been given `addresses`.
pub(super) fn compile<'a>(
    name: &ServiceName,
    service: &ParsedService,
    addresses: Vec<Addr>,
    slices: impl Iterator<Item = &'a ParsedSlice> + Clone,
) -> Compiled {
    let mut compiled = Compiled {
        addresses,
        ports: BTreeMap::new(),
    };
    for port in &service.ports {
        for v4 in [true, false] {
            if !compiled.addresses.iter().any(|a| a.is_v4() == v4) {
                continue;
            }
            let endpoints = endpoints(&port.name, port.proto, v4, slices.clone());
            let backends = backends(name, port.number, port.proto, endpoints);
            let set = set(name, port.number, port.proto, &backends);
            let value = CompiledPort {
                name: port.name.clone(),
                set,
                backends,
            };
            compiled.ports.insert((port.number, port.proto, v4), value);
        }
    }
    compiled
}

/// (address, port) → the best that any slice says of it.
fn endpoints<'a>(
    port_name: &str,
    proto: Proto,
    v4: bool,
    slices: impl Iterator<Item = &'a ParsedSlice>,
) -> BTreeMap<(Addr, u16), &'a ParsedEndpoint> {
    let mut found: BTreeMap<(Addr, u16), &ParsedEndpoint> = BTreeMap::new();
    for slice in slices {
        // A slice has each name once per protocol; a second one adds its port's endpoints.
        for port in slice
            .ports
            .iter()
            .filter(|p| p.name == port_name && p.proto == proto)
        {
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

/// Ready endpoints are the set's members; without any, those that serve while they terminate.
fn backends(
    service: &ServiceName,
    service_port: u16,
    proto: Proto,
    endpoints: BTreeMap<(Addr, u16), &ParsedEndpoint>,
) -> Vec<CompiledBackend> {
    let ready = endpoints.values().any(|e| e.readiness == Readiness::Ready);
    let mut backends = Vec::new();
    for ((addr, port), endpoint) in endpoints {
        let state = match endpoint.readiness {
            Readiness::Ready => BackendState::Active,
            Readiness::Terminating if !ready => BackendState::Active,
            Readiness::Terminating => BackendState::Draining,
            Readiness::NotReady => BackendState::Removed,
        };
        let hash = Hash::of(&[
            b"backend",
            service.namespace.as_bytes(),
            service.name.as_bytes(),
            &service_port.to_be_bytes(),
            &[proto.0],
            &addr.octets(),
            &port.to_be_bytes(),
            endpoint.uid.as_bytes(),
        ]);
        let value = Backend {
            addr,
            port: PortBe::new(port),
            proto,
            state: state as u8,
            // Of the whole content, so that not even a reused number passes for the same backend.
            incarnation: hash.word(),
        };
        backends.push(CompiledBackend {
            hash,
            value,
            endpoint: endpoint.clone(),
        });
    }
    backends.sort_by_key(|b| b.hash);
    backends
}

fn set(
    service: &ServiceName,
    port: u16,
    proto: Proto,
    backends: &[CompiledBackend],
) -> Option<Hash> {
    let port = port.to_be_bytes();
    let proto = [proto.0];
    let mut fields: Vec<&[u8]> = vec![
        b"set",
        service.namespace.as_bytes(),
        service.name.as_bytes(),
        &port,
        &proto,
    ];
    let fixed = fields.len();
    let active = |b: &&CompiledBackend| b.value.state == BackendState::Active as u8;
    fields.extend(backends.iter().filter(active).map(|b| b.hash.0.as_slice()));
    (fields.len() > fixed).then(|| Hash::of(&fields))
}
