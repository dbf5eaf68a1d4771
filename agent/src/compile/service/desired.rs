//! What the kernel should hold, by content instead of by number.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::service::{Backend, BackendState, ServiceKey, marker};
use weir_abi::{PortBe, Proto};

use super::compile::Compiled;
use super::hash::Hash;

/// What a key of `SERVICES` leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The key is an address's marker with these flags.
    Marker(u32),
    /// The key is a frontend of this set; `None` refuses.
    Set(Option<Hash>),
}

/// What the kernel should hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// `SERVICES`.
    pub frontends: BTreeMap<ServiceKey, Target>,
    /// Members of the sets, by the hash of each: `SLOTS`.
    pub sets: BTreeMap<Hash, Vec<Hash>>,
    /// `BACKENDS`. A [`BackendState::Draining`] one is kept if it is there, never added.
    pub backends: BTreeMap<Hash, Backend>,
}

impl Desired {
    /// Takes a Service out. What a Service adds is its own: addresses have one owner, and the
    /// hashes of sets and backends contain the Service's name.
    pub(super) fn remove(&mut self, service: &Compiled) {
        for key in keys(service) {
            self.frontends.remove(&key);
        }
        for port in service.ports.values() {
            if let Some(set) = port.set {
                self.sets.remove(&set);
            }
            for backend in &port.backends {
                self.backends.remove(&backend.hash);
            }
        }
    }

    /// Puts a Service in.
    pub(super) fn add(&mut self, service: &Compiled) {
        for addr in &service.addresses {
            let target = Target::Marker(marker::REFUSE_UNSERVED);
            self.frontends.insert(ServiceKey::marker(*addr), target);
            for ((number, proto, v4), port) in &service.ports {
                if addr.is_v4() == *v4 {
                    let key = frontend(*addr, *number, *proto);
                    self.frontends.insert(key, Target::Set(port.set));
                }
            }
        }
        for port in service.ports.values() {
            if let Some(set) = port.set {
                self.sets
                    .insert(set, port.members().map(|b| b.hash).collect());
            }
            for backend in &port.backends {
                if backend.value.state != BackendState::Removed as u8 {
                    self.backends.insert(backend.hash, backend.value);
                }
            }
        }
    }
}

/// What has changed in [`Desired`] since the kernel last agreed with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changed {
    pub(super) frontends: BTreeSet<ServiceKey>,
    pub(super) sets: BTreeSet<Hash>,
    pub(super) backends: BTreeSet<Hash>,
}

impl Changed {
    /// Everything of a Service that comes or goes.
    pub(super) fn note(&mut self, service: &Compiled) {
        self.frontends.extend(keys(service));
        for port in service.ports.values() {
            self.sets.extend(port.set);
            self.backends.extend(port.backends.iter().map(|b| b.hash));
        }
    }
}

/// The key of a frontend; `port` in host order.
pub(super) fn frontend(addr: weir_abi::Addr, port: u16, proto: Proto) -> ServiceKey {
    ServiceKey {
        addr,
        port: PortBe::new(port),
        proto,
        scope: 0,
    }
}

fn keys(service: &Compiled) -> impl Iterator<Item = ServiceKey> {
    service.addresses.iter().flat_map(|addr| {
        let ports = service
            .ports
            .keys()
            .filter(|(_, _, v4)| addr.is_v4() == *v4);
        let frontends = ports.map(|(number, proto, _)| frontend(*addr, *number, *proto));
        frontends.chain([ServiceKey::marker(*addr)])
    })
}
