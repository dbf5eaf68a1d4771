//! What `GET /v1/services` and `weir service list` show.

use std::collections::BTreeMap;

use weir_abi::Proto;
use weir_abi::service::BackendState;
use weir_api::service::{BackendInfo, FrontendInfo, ServiceInfo};

use super::actual::ServiceActual;
use super::compile::{CompiledBackend, CompiledPort};
use super::desired::frontend;
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
        let services = self.compiled().map(|(name, parsed, compiled)| {
            let mut frontends = Vec::new();
            for addr in compiled.iter().flat_map(|c| &c.addresses) {
                for ((number, proto, v4), port) in compiled.iter().flat_map(|c| &c.ports) {
                    if addr.is_v4() != *v4 {
                        continue;
                    }
                    let key = frontend(*addr, *number, *proto);
                    let mut backends: Vec<_> = port.backends.iter().map(backend).collect();
                    backends.sort_by_key(|(address, info)| (*address, info.port));
                    frontends.push(FrontendInfo {
                        address: addr.to_ip().to_string(),
                        port: *number,
                        protocol: protocol(*proto).into(),
                        port_name: port.name.clone(),
                        programmed: programmed(actual, &key, port),
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
                namespace: name.namespace.clone(),
                name: name.name.clone(),
                kind: parsed.kind.clone(),
                frontends,
                problems: own,
            }
        });
        services.collect()
    }
}

fn backend(backend: &CompiledBackend) -> (std::net::IpAddr, BackendInfo) {
    let address = backend.value.addr.to_ip();
    let state = match backend.value.state {
        s if s == BackendState::Active as u8 => "active",
        s if s == BackendState::Draining as u8 => "draining",
        _ => "notReady",
    };
    let info = BackendInfo {
        address: address.to_string(),
        port: backend.value.port.get(),
        state: state.into(),
        pod: backend
            .endpoint
            .pod
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        node: backend.endpoint.node.clone(),
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
fn programmed(
    actual: &ServiceActual,
    key: &weir_abi::service::ServiceKey,
    port: &CompiledPort,
) -> bool {
    let marker = weir_abi::service::ServiceKey::marker(key.addr);
    let Some(service) = actual.services.get(key) else {
        return false;
    };
    let set = port.set.map(|hash| actual.set_ids.get(&hash));
    let same = match set {
        None => service.count == 0,
        Some(id) => Some(&service.set) == id && service.count as usize == port.members().count(),
    };
    same && actual.services.contains_key(&marker)
}
