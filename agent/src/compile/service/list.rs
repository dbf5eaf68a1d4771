//! What `GET /v1/services` and `weir service list` show.

use std::collections::BTreeMap;

use weir_abi::Proto;
use weir_abi::service::{BackendState, ServiceKey};
use weir_api::service::{BackendInfo, FrontendInfo, ServiceInfo};

use super::actual::ServiceActual;
use super::compile::{self, Endpoint, Endpoints};
use super::hash::SetHash;
use super::index::ServiceIndex;

impl ServiceIndex {
    /// Every Service, sorted by namespace and name, compared with what the kernel holds.
    pub fn list(&self, actual: &ServiceActual) -> Vec<ServiceInfo> {
        let mut problems: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for problem in self.problems() {
            problems
                .entry(problem.object.clone())
                .or_default()
                .push(problem.to_string());
        }
        let services = self.services().map(|(name, parsed)| {
            let mut frontends = Vec::new();
            for addr in self.addresses(name, parsed) {
                for port in &parsed.ports {
                    let slices = self.slices_of(name);
                    let found = compile::endpoints(name, port, addr.is_v4(), slices);
                    let key = compile::key(addr, port);
                    let mut backends: Vec<_> = found.backends.iter().map(backend).collect();
                    backends.sort_by_key(|(address, info)| (*address, info.port));
                    frontends.push(FrontendInfo {
                        address: addr.to_ip().to_string(),
                        port: port.number,
                        protocol: protocol(port.proto).into(),
                        port_name: port.name.clone(),
                        programmed: programmed(actual, &key, &found),
                        backends: backends.into_iter().map(|(_, info)| info).collect(),
                    });
                }
            }
            let mut own: Vec<String> = Vec::new();
            let objects = [format!("Service {name}")].into_iter();
            for object in objects.chain(self.slice_objects(name)) {
                own.extend(problems.get(&object).into_iter().flatten().cloned());
            }
            ServiceInfo {
                namespace: name.namespace.to_string(),
                name: name.name.to_string(),
                kind: parsed.kind.clone(),
                frontends,
                problems: own,
            }
        });
        services.collect()
    }
}

fn backend(backend: &Endpoint<'_>) -> (std::net::IpAddr, BackendInfo) {
    let address = backend.content.addr.to_ip();
    let state = match backend.state {
        BackendState::Active => "active",
        BackendState::Draining => "draining",
        BackendState::Removed => "notReady",
    };
    let info = BackendInfo {
        address: address.to_string(),
        port: backend.content.port.get(),
        state: state.into(),
        pod: backend.parsed.pod.to_string(),
        node: backend.parsed.node.to_string(),
    };
    (address, info)
}

fn protocol(proto: Proto) -> &'static str {
    match proto {
        Proto::TCP => "TCP",
        Proto::UDP => "UDP",
        _ => "SCTP",
    }
}

/// Whether the kernel leads the frontend to the set's members.
fn programmed(actual: &ServiceActual, key: &ServiceKey, found: &Endpoints<'_>) -> bool {
    let Some(service) = actual.services.get(key) else {
        return false;
    };
    let same = match found.members().count() {
        0 => service.count == 0,
        count => {
            let set = actual.set(&SetHash::of(found.members()));
            set == Some(service.set) && service.count as usize == count
        }
    };
    same && actual.services.contains_key(&ServiceKey::marker(key.addr))
}
