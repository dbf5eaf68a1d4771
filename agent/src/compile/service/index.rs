//! The Services and EndpointSlices that are there, and what follows from them. One change compiles
//! the Services it touches, no others.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use weir_abi::Addr;

use super::compile::{Compiled, compile};
use super::desired::{Changed, Desired};
use super::parse::{self, ParsedService, ParsedSlice, Problem, ServiceName};
use crate::state::{Change, Kind, Object};

/// All Services and EndpointSlices, compiled.
#[derive(Debug, Default)]
pub struct ServiceIndex {
    services: BTreeMap<ServiceName, ParsedService>,
    slices: BTreeMap<ServiceName, ParsedSlice>,
    /// Service → names of its slices.
    slices_of: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    /// Address → the Services that claim it; the first (the oldest) has it.
    claims: BTreeMap<Addr, BTreeSet<(i64, ServiceName)>>,
    compiled: BTreeMap<ServiceName, Compiled>,
    desired: Desired,
    changed: Changed,
}

impl ServiceIndex {
    /// Takes a change of any object in; whether it changes what the kernel should hold.
    pub fn apply(&mut self, change: &Change) -> bool {
        match change {
            Change::Apply(Object::Service(service)) => self.apply_service(service),
            Change::Apply(Object::EndpointSlice(slice)) => self.apply_slice(slice),
            Change::Delete(key) => {
                let name = ServiceName::new(&key.namespace, &key.name);
                match key.kind {
                    Kind::Service => self.set_service(name, None),
                    Kind::EndpointSlice => self.set_slice(name, None),
                    _ => false,
                }
            }
            Change::Apply(_) => false,
        }
    }

    /// Takes a new or changed Service in; whether it changes what the kernel should hold.
    pub fn apply_service(&mut self, service: &Service) -> bool {
        self.set_service(ServiceName::of(&service.metadata), parse::service(service))
    }

    /// Takes a new or changed EndpointSlice in; whether it changes what the kernel should hold.
    pub fn apply_slice(&mut self, slice: &EndpointSlice) -> bool {
        self.set_slice(ServiceName::of(&slice.metadata), parse::slice(slice))
    }

    /// What the kernel should hold.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What has changed in [`ServiceIndex::desired`] since [`ServiceIndex::settled`].
    pub fn changed(&self) -> &Changed {
        &self.changed
    }

    /// The kernel agrees with what it should hold.
    pub fn settled(&mut self) {
        self.changed = Changed::default();
    }

    /// How many Services have frontends here.
    pub fn count(&self) -> usize {
        self.services.len()
    }

    /// Everything that is wrong with the objects, sorted by object.
    pub fn problems(&self) -> Vec<Problem> {
        let services = self
            .services
            .values()
            .flat_map(|s| s.problems.iter().cloned());
        let slices = self
            .slices
            .values()
            .flat_map(|s| s.problems.iter().cloned());
        let mut problems: Vec<Problem> = services.chain(slices).collect();
        for (addr, claims) in &self.claims {
            let mut claims = claims.iter();
            let Some((_, owner)) = claims.next() else {
                continue;
            };
            problems.extend(claims.map(|(_, loser)| Problem {
                object: format!("Service {loser}"),
                field: "spec.clusterIPs".into(),
                message: format!(
                    "{} is the address of Service {owner}, which is older",
                    addr.to_ip()
                ),
            }));
        }
        problems.sort();
        problems
    }

    /// The keys of all Services and EndpointSlices that are in use.
    #[cfg(test)]
    pub(super) fn object_keys(&self) -> Vec<crate::state::ObjectKey> {
        let key = |kind, name: &ServiceName| crate::state::ObjectKey {
            kind,
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
        };
        let services = self.services.keys().map(|name| key(Kind::Service, name));
        let slices = self.slices.keys();
        services
            .chain(slices.map(|name| key(Kind::EndpointSlice, name)))
            .collect()
    }

    /// Every Service.
    pub(super) fn services(&self) -> impl Iterator<Item = (&ServiceName, &ParsedService)> {
        self.services.iter()
    }

    /// A Service's EndpointSlices.
    pub(super) fn slices_of(
        &self,
        service: &ServiceName,
    ) -> impl Iterator<Item = &ParsedSlice> + Clone {
        let slices = self.slices_of.get(service).into_iter().flatten();
        slices.filter_map(|slice| self.slices.get(slice))
    }

    /// The addresses of a Service that no other has.
    pub(super) fn addresses(&self, name: &ServiceName, service: &ParsedService) -> Vec<Addr> {
        let claim = (service.created, name.clone());
        let owned = |addr: &&Addr| self.claims.get(addr).and_then(|c| c.first()) == Some(&claim);
        service.addresses.iter().filter(owned).copied().collect()
    }

    /// The Service's EndpointSlices, as [`Problem::object`] names them.
    pub(super) fn slice_objects(&self, service: &ServiceName) -> impl Iterator<Item = String> {
        let slices = self.slices_of.get(service).into_iter().flatten();
        slices.map(|slice| format!("EndpointSlice {slice}"))
    }

    fn set_service(&mut self, name: ServiceName, new: Option<ParsedService>) -> bool {
        let old = self.services.get(&name);
        if old == new.as_ref() {
            return false;
        }
        let mut touched = BTreeSet::from([name.clone()]);
        if let Some(old) = old {
            let claim = (old.created, name.clone());
            for addr in old.addresses.clone() {
                let claims = self.claims.entry(addr).or_default();
                claims.remove(&claim);
                touched.extend(claims.first().map(|(_, next)| next.clone()));
                if claims.is_empty() {
                    self.claims.remove(&addr);
                }
            }
        }
        if let Some(new) = &new {
            for addr in &new.addresses {
                let claims = self.claims.entry(*addr).or_default();
                touched.extend(claims.first().map(|(_, former)| former.clone()));
                claims.insert((new.created, name.clone()));
            }
        }
        match new {
            Some(new) => self.services.insert(name, new),
            None => self.services.remove(&name),
        };
        self.recompile(&touched)
    }

    fn set_slice(&mut self, name: ServiceName, new: Option<ParsedSlice>) -> bool {
        let old = self.slices.get(&name);
        if old == new.as_ref() {
            return false;
        }
        let mut touched = BTreeSet::new();
        if let Some(old) = old {
            touched.insert(old.service.clone());
            if let Some(slices) = self.slices_of.get_mut(&old.service) {
                slices.remove(&name);
                if slices.is_empty() {
                    self.slices_of.remove(&old.service);
                }
            }
        }
        if let Some(new) = &new {
            touched.insert(new.service.clone());
            self.slices_of
                .entry(new.service.clone())
                .or_default()
                .insert(name.clone());
        }
        match new {
            Some(new) => self.slices.insert(name, new),
            None => self.slices.remove(&name),
        };
        self.recompile(&touched)
    }

    fn recompile(&mut self, names: &BTreeSet<ServiceName>) -> bool {
        let mut changed = Vec::new();
        for name in names {
            let new = self
                .services
                .get(name)
                .map(|service| self.compile(name, service));
            if self.compiled.get(name) != new.as_ref() {
                changed.push((name, new));
            }
        }
        // All go before any comes: an address may pass from one Service to another.
        for (name, _) in &changed {
            if let Some(old) = self.compiled.remove(*name) {
                self.desired.remove(&old);
                self.changed.note(&old);
            }
        }
        let any = !changed.is_empty();
        for (name, new) in changed {
            if let Some(new) = new {
                self.desired.add(&new);
                self.changed.note(&new);
                self.compiled.insert(name.clone(), new);
            }
        }
        any
    }

    fn compile(&self, name: &ServiceName, service: &ParsedService) -> Compiled {
        let addresses = self.addresses(name, service);
        compile(name, service, &addresses, self.slices_of(name))
    }
}
