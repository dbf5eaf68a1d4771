//! What follows from a change, of the objects that it touches.

use std::collections::BTreeSet;

use weir_abi::Proto;

use super::super::claims::{Claim, FrontendKind, Owner};
use super::super::compile::{self, Compiled, Wanted, WantedHostPort};
use super::super::parse::{Problem, Readiness, ServiceName};
use super::ServiceIndex;
use crate::state::Kind;

impl ServiceIndex {
    /// Compiles these again; whether anything is another than before.
    pub(super) fn recompile(&mut self, owners: &BTreeSet<Owner>) -> bool {
        let mut any = false;
        let mut changed = Vec::new();
        for owner in owners {
            let (new, problems) = match owner {
                Owner::Service(name) => self.compile_service(owner, name),
                Owner::Pod(name) => self.compile_pod(owner, name),
            };
            let (kind, name) = match owner {
                Owner::Service(name) => (Kind::Service, name),
                Owner::Pod(name) => (Kind::Pod, name),
            };
            any |= self.problems.set(kind, name, problems);
            any |= self.count_health(owner);
            let old = self.compiled.get(owner).map(|old| &**old);
            if old != new.as_ref() {
                changed.push((owner, new));
            }
        }
        // All go before any comes: a frontend may pass from one object to another.
        for (owner, _) in &changed {
            if let Some(old) = self.compiled.remove(*owner) {
                self.desired.remove(&old);
                self.changed.note(&old);
            }
        }
        any |= !changed.is_empty();
        for (owner, new) in changed {
            if let Some(new) = new {
                self.desired.add(&new);
                self.changed.note(&new);
                self.compiled.insert(owner.clone(), Box::new(new));
            }
        }
        any
    }

    fn compile_service(
        &self,
        owner: &Owner,
        name: &ServiceName,
    ) -> (Option<Compiled>, Vec<Problem>) {
        let Some(service) = self.services.get(name) else {
            return (None, Vec::new());
        };
        let wanted = compile::wanted(service);
        let mut problems = service.problems.clone();
        problems.extend(wanted.iter().filter_map(|w| self.lost(owner, &w.claim)));
        problems.extend(
            wanted
                .iter()
                .filter_map(|w| self.meets_health_check(owner, w)),
        );
        let owned: Vec<&Wanted<'_>> = wanted
            .iter()
            .filter(|w| self.has(owner, &w.claim))
            .collect();
        let slices = self.slices_of(name);
        let compiled = compile::service(name, service, &owned, slices, self.zone());
        (Some(compiled), problems)
    }

    fn compile_pod(&self, owner: &Owner, name: &ServiceName) -> (Option<Compiled>, Vec<Problem>) {
        let Some(pod) = self.pods.get(name) else {
            return (None, Vec::new());
        };
        let wanted = compile::host_ports(name, pod);
        let mut problems = pod.problems.clone();
        problems.extend(wanted.iter().filter_map(|w| self.lost(owner, &w.claim)));
        let owned: Vec<&WantedHostPort<'_>> = wanted
            .iter()
            .filter(|w| self.has(owner, &w.claim))
            .collect();
        (Some(compile::pod(&owned)), problems)
    }

    fn lost(&self, owner: &Owner, claim: &Claim) -> Option<Problem> {
        let (winner, why) = self.claims.winner(owner, claim)?;
        Some(why.problem(owner, claim, winner))
    }

    /// A NodePort where a load balancer asks about a Service.
    fn meets_health_check(&self, owner: &Owner, wanted: &Wanted<'_>) -> Option<Problem> {
        let Claim { place, kind, field } = &wanted.claim;
        if *kind != FrontendKind::NodePort || place.proto != Proto::TCP {
            return None;
        }
        let from = (place.port, ServiceName::default());
        let ((port, other), _) = self.health.range(from..).next()?;
        (*port == place.port).then(|| Problem {
            object: owner.to_string(),
            field: field.clone(),
            message: format!("{port} is the healthCheckNodePort of Service {other}, too"),
        })
    }

    /// Counts a Service's ready endpoints on this node, in its first family; whether that has changed.
    fn count_health(&mut self, owner: &Owner) -> bool {
        let Owner::Service(name) = owner else {
            return false;
        };
        let Some(service) = self.services.get(name) else {
            return false;
        };
        let Some(port) = service.health_port else {
            return false;
        };
        let v4 = service.cluster_ips.first().is_none_or(|addr| addr.is_v4());
        let endpoints = self.slices_of(name).flat_map(|slice| &slice.endpoints);
        let ready = endpoints.filter(|e| e.is_local && e.readiness == Readiness::Ready);
        let ready: BTreeSet<_> = ready.map(|e| e.addr).filter(|a| a.is_v4() == v4).collect();
        let count = u32::try_from(ready.len()).unwrap_or(u32::MAX);
        self.health.insert((port, name.clone()), count) != Some(count)
    }
}
