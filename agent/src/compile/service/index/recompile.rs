//! What follows from a change, of the objects that it touches.

use std::collections::BTreeSet;

use weir_abi::Proto;

use super::super::claims::{Claim, FrontendKind, Owner};
use super::super::compile::{self, Compiled, Wanted, WantedHostPort};
use super::super::parse::{Compact, Problem, Readiness, ServiceName};
use super::ServiceIndex;
use crate::state::Kind;

/// Objects, and what they came to before a change.
pub(super) type Before = Vec<(Owner, Option<Compiled>)>;

impl ServiceIndex {
    /// What these come to. That is not kept, but compiled again before it changes: it is several times
    /// as large as what it follows from.
    pub(super) fn compile_all(&self, owners: BTreeSet<Owner>) -> Before {
        let owners = owners.into_iter();
        owners
            .map(|owner| {
                let compiled = self.compile(&owner).0;
                (owner, compiled)
            })
            .collect()
    }

    /// Compiles these again after a change; whether anything is another than before.
    pub(super) fn recompile(&mut self, before: Before) -> bool {
        let mut any = false;
        let mut changed = Vec::new();
        for (owner, old) in before {
            let (new, problems) = self.compile(&owner);
            let (kind, name) = match &owner {
                Owner::Service(name) => (Kind::Service, name),
                Owner::Pod(name) => (Kind::Pod, name),
            };
            any |= self.problems.set(kind, name, problems);
            any |= self.count_health(&owner);
            if old != new {
                changed.push((old, new));
            }
        }
        any |= !changed.is_empty();
        // All go before any comes: a frontend may pass from one object to another.
        for old in changed.iter().filter_map(|(old, _)| old.as_ref()) {
            self.desired.remove(old);
        }
        for new in changed.iter().filter_map(|(_, new)| new.as_ref()) {
            self.desired.add(new);
        }
        if let Some(noted) = &mut self.changed {
            let both = changed.iter().flat_map(|(old, new)| [old, new]);
            both.flatten().for_each(|compiled| noted.note(compiled));
        }
        any
    }

    /// What an object comes to, and what is wrong with it.
    fn compile(&self, owner: &Owner) -> (Option<Compiled>, Vec<Problem>) {
        match owner {
            Owner::Service(name) => self.compile_service(owner, name),
            Owner::Pod(name) => self.compile_pod(owner, name),
        }
    }

    fn compile_service(
        &self,
        owner: &Owner,
        name: &ServiceName,
    ) -> (Option<Compiled>, Vec<Problem>) {
        let Some(mut service) = self.services.get(name).map(Compact::get) else {
            return (None, Vec::new());
        };
        let mut problems = std::mem::take(&mut service.problems);
        let wanted = compile::wanted(&service);
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
        let compiled = compile::service(name, &service, &owned, slices.iter(), self.zone());
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
        if self.health.is_empty() {
            return false;
        }
        let Some(service) = self.services.get(name).map(Compact::get) else {
            return false;
        };
        let Some(port) = service.health_port else {
            return false;
        };
        let v4 = service.cluster_ips.first().is_none_or(|addr| addr.is_v4());
        let slices = self.slices_of(name);
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let ready = endpoints.filter(|e| e.is_local && e.readiness == Readiness::Ready);
        let ready: BTreeSet<_> = ready.map(|e| e.addr).filter(|a| a.is_v4() == v4).collect();
        let count = u32::try_from(ready.len()).unwrap_or(u32::MAX);
        self.health.insert((port, name.clone()), count) != Some(count)
    }
}
