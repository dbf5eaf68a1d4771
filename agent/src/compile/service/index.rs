//! The Services, EndpointSlices and Pods that are there, and what follows from them. One change
//! compiles the objects it touches, no others.

mod problems;
mod recompile;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use weir_abi::Proto;

use self::problems::Problems;
use super::claims::{Claim, Claims, FrontendKind, Owner};
use super::compile;
use super::desired::{Changed, Desired};
use super::parse::{self, Compact, ParsedPod, ParsedService, ParsedSlice, Problem, ServiceName};
use crate::refill::Refill as _;
use crate::state::{Change, Kind, Object};

/// A Node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// What the agent was told of Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceOptions {
    /// This node's name: whose endpoints are local, and whose HostPorts are served.
    pub node_name: String,
    /// Services to be left alone (`--skip-services`).
    pub skip_services: BTreeSet<ServiceName>,
}

/// What a load balancer asks a node about a Service (`spec.healthCheckNodePort`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The Service.
    pub service: ServiceName,
    /// Where it is asked.
    pub port: u16,
    /// Ready endpoints on this node.
    pub local_endpoints: u32,
}

/// All Services, compiled.
#[derive(Debug, Default)]
pub struct ServiceIndex {
    options: ServiceOptions,
    /// This node's.
    zone: Option<String>,
    services: BTreeMap<ServiceName, Compact<ParsedService>>,
    slices: BTreeMap<ServiceName, Compact<ParsedSlice>>,
    /// (Service, name of a slice).
    slices_of: BTreeSet<(ServiceName, Arc<str>)>,
    /// This node's Pods with HostPorts.
    pods: BTreeMap<ServiceName, ParsedPod>,
    claims: Claims,
    /// (healthCheckNodePort, Service) → ready endpoints on this node.
    health: BTreeMap<(u16, ServiceName), u32>,
    problems: Problems,
    desired: Desired,
    /// `None`: everything, as the kernel has never agreed.
    changed: Option<Changed>,
}

impl ServiceIndex {
    /// Without any object.
    pub fn new(options: ServiceOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// Takes a change of any object in; whether it changes what the kernel should hold, what a load
    /// balancer is told, or what is wrong.
    pub fn apply(&mut self, change: &Change) -> bool {
        match change {
            Change::Apply(Object::Service(service)) => self.apply_service(service),
            Change::Apply(Object::EndpointSlice(slice)) => self.apply_slice(slice),
            Change::Apply(Object::Pod(pod)) => self.apply_pod(pod),
            Change::Apply(Object::Node(node)) => self.apply_node(node),
            Change::Apply(_) => false,
            Change::Delete(key) => {
                let name = ServiceName::new(&key.namespace, &key.name);
                match key.kind {
                    Kind::Service => self.set_service(name, None),
                    Kind::EndpointSlice => self.set_slice(name, None),
                    Kind::Pod => self.set_pod(name, None),
                    Kind::Node if key.name == self.options.node_name => self.set_zone(None),
                    _ => false,
                }
            }
        }
    }

    /// Takes a new or changed Service in; returns as [`ServiceIndex::apply`].
    pub fn apply_service(&mut self, service: &Service) -> bool {
        let parsed = parse::service(service, &self.options);
        self.set_service(ServiceName::of(&service.metadata), parsed)
    }

    /// Takes a new or changed EndpointSlice in; returns as [`ServiceIndex::apply`].
    pub fn apply_slice(&mut self, slice: &EndpointSlice) -> bool {
        let parsed = parse::slice(slice, &self.options.node_name);
        self.set_slice(ServiceName::of(&slice.metadata), parsed)
    }

    /// Takes a new or changed Pod in; returns as [`ServiceIndex::apply`].
    pub fn apply_pod(&mut self, pod: &Pod) -> bool {
        let parsed = parse::pod(pod, &self.options.node_name);
        self.set_pod(ServiceName::of(&pod.metadata), parsed)
    }

    /// Takes a new or changed Node in; returns as [`ServiceIndex::apply`].
    pub fn apply_node(&mut self, node: &Node) -> bool {
        if node.metadata.name.as_ref() != Some(&self.options.node_name) {
            return false;
        }
        let labels = node.metadata.labels.as_ref();
        self.set_zone(labels.and_then(|l| l.get(ZONE)).cloned())
    }

    /// What the kernel should hold.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What has changed in [`ServiceIndex::desired`] since [`ServiceIndex::settled`]; `None` before the
    /// first time.
    pub fn changed(&self) -> Option<&Changed> {
        self.changed.as_ref()
    }

    /// The kernel agrees with what it should hold.
    pub fn settled(&mut self) {
        self.changed = Some(Changed::default());
    }

    /// Takes less memory from now on, after many objects were taken in.
    pub fn refill(&mut self) {
        self.services.refill();
        self.slices.refill();
        self.slices_of.refill();
        self.claims.refill();
        self.desired.refill();
    }

    /// How many Services have frontends here.
    pub fn count(&self) -> usize {
        self.services.len()
    }

    /// Everything that is wrong with the objects, sorted by object.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.all()
    }

    /// Another number than before if [`ServiceIndex::problems`] may say something else.
    pub fn problems_version(&self) -> u64 {
        self.problems.version()
    }

    /// What load balancers may ask about, sorted by port.
    pub fn health_checks(&self) -> impl Iterator<Item = HealthCheck> {
        self.health
            .iter()
            .map(|((port, service), local)| HealthCheck {
                service: service.clone(),
                port: *port,
                local_endpoints: *local,
            })
    }

    /// The keys of all Services, EndpointSlices and Pods that are in use.
    #[cfg(test)]
    pub(super) fn object_keys(&self) -> Vec<crate::state::ObjectKey> {
        let key = |kind, name: &ServiceName| crate::state::ObjectKey {
            kind,
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
        };
        let services = self.services.keys().map(|name| key(Kind::Service, name));
        let slices = self.slices.keys();
        let slices = slices.map(|name| key(Kind::EndpointSlice, name));
        let pods = self.pods.keys().map(|name| key(Kind::Pod, name));
        services.chain(slices).chain(pods).collect()
    }

    /// Every Service.
    pub(super) fn services(&self) -> impl Iterator<Item = (&ServiceName, ParsedService)> {
        let services = self.services.iter();
        services.map(|(name, service)| (name, service.get()))
    }

    /// Every Pod with HostPorts on this node.
    pub(super) fn pods(&self) -> impl Iterator<Item = (&ServiceName, &ParsedPod)> {
        self.pods.iter()
    }

    /// What is wrong with one object.
    pub(super) fn problems_of(&self, kind: Kind, name: &ServiceName) -> Vec<String> {
        self.problems
            .of(kind, name)
            .map(ToString::to_string)
            .collect()
    }

    /// This node's name.
    pub(super) fn node_name(&self) -> &str {
        &self.options.node_name
    }

    /// This node's zone.
    pub(super) fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Whether an object has what it claims.
    pub(super) fn has(&self, owner: &Owner, claim: &Claim) -> bool {
        self.claims.winner(owner, claim).is_none()
    }

    /// The names of a Service's EndpointSlices.
    pub(super) fn slice_names(&self, service: &ServiceName) -> impl Iterator<Item = ServiceName> {
        let all = self.slices_of.range((service.clone(), "".into())..);
        let own = all.take_while(move |(of, _)| of == service);
        own.map(|(of, slice)| ServiceName {
            namespace: of.namespace.clone(),
            name: slice.clone(),
        })
    }

    /// A Service's EndpointSlices.
    pub(super) fn slices_of(&self, service: &ServiceName) -> Vec<ParsedSlice> {
        let slices = self.slice_names(service);
        slices
            .filter_map(|slice| self.slices.get(&slice).map(Compact::get))
            .collect()
    }

    fn set_service(&mut self, mut name: ServiceName, new: Option<ParsedService>) -> bool {
        let kept = new.as_ref().map(Compact::new);
        let old = self.services.get(&name);
        if old == kept.as_ref() {
            return false;
        }
        let old = old.map(Compact::get);
        name.share(&self.services);
        let owner = Owner::Service(name.clone());
        let claims = |service: &ParsedService| {
            let wanted = compile::wanted(service).into_iter();
            (service.created, wanted.map(|w| w.claim).collect())
        };
        let (old_claims, new_claims) = (old.as_ref().map(claims), new.as_ref().map(claims));
        let old_port = old.as_ref().and_then(|old| old.health_port);
        let new_port = new.as_ref().and_then(|new| new.health_port);
        let mut touched = self.touched(&owner, [&old_claims, &new_claims]);
        if old_port != new_port {
            for port in [old_port, new_port].into_iter().flatten() {
                touched.extend(self.claims.rivals(&node_port_claims(port)));
            }
        }
        let before = self.compile_all(touched);
        self.claim(&owner, old_claims, new_claims);
        if old_port != new_port {
            if let Some(port) = old_port {
                self.health.remove(&(port, name.clone()));
            }
            if let Some(port) = new_port {
                self.health.insert((port, name.clone()), 0);
            }
        }
        match kept {
            Some(kept) => self.services.insert(name, kept),
            None => self.services.remove(&name),
        };
        self.recompile(before) | (old_port != new_port)
    }

    fn set_pod(&mut self, name: ServiceName, new: Option<ParsedPod>) -> bool {
        let old = self.pods.get(&name);
        if old == new.as_ref() {
            return false;
        }
        let owner = Owner::Pod(name.clone());
        let claims = |pod: &ParsedPod| {
            let wanted = compile::host_ports(&name, pod).into_iter();
            (pod.created, wanted.map(|w| w.claim).collect())
        };
        let (old_claims, new_claims) = (old.map(claims), new.as_ref().map(claims));
        let before = self.compile_all(self.touched(&owner, [&old_claims, &new_claims]));
        self.claim(&owner, old_claims, new_claims);
        match new {
            Some(new) => self.pods.insert(name, new),
            None => self.pods.remove(&name),
        };
        self.recompile(before)
    }

    /// Whom it touches that an object has these claims instead of those, the object itself included.
    fn touched(&self, owner: &Owner, [old, new]: [&Option<Claimed>; 2]) -> BTreeSet<Owner> {
        let mut touched = BTreeSet::from([owner.clone()]);
        if old != new {
            for (_, claims) in [old, new].into_iter().flatten() {
                touched.extend(self.claims.rivals(claims));
            }
        }
        touched
    }

    /// Changes an object's claims.
    fn claim(&mut self, owner: &Owner, old: Option<Claimed>, new: Option<Claimed>) {
        if old == new {
            return;
        }
        if let Some((created, claims)) = old {
            self.claims.remove(owner, created, &claims);
        }
        if let Some((created, claims)) = new {
            self.claims.add(owner, created, &claims);
        }
    }

    fn set_slice(&mut self, mut name: ServiceName, mut new: Option<ParsedSlice>) -> bool {
        let old = self.slices.get(&name);
        let kept = new.as_ref().map(Compact::new);
        if old == kept.as_ref() {
            return false;
        }
        name.share(&self.slices);
        let old = old.map(|old| old.get().service);
        if let Some(new) = &mut new {
            new.service.share(&self.services);
        }
        let services = old.iter().chain(new.as_ref().map(|new| &new.service));
        let touched = services.map(|name| Owner::Service(name.clone())).collect();
        let before = self.compile_all(touched);
        if let Some(old) = old {
            self.slices_of.remove(&(old, name.name.clone()));
        }
        let problems = new.as_mut().map(|new| std::mem::take(&mut new.problems));
        let problems = problems.unwrap_or_default();
        let other = self.problems.set(Kind::EndpointSlice, &name, problems);
        if let Some(new) = new {
            self.slices_of.insert((new.service, name.name.clone()));
        }
        match kept {
            Some(kept) => self.slices.insert(name, kept),
            None => self.slices.remove(&name),
        };
        self.recompile(before) | other
    }

    fn set_zone(&mut self, zone: Option<String>) -> bool {
        if self.zone == zone {
            return false;
        }
        let has_zones = |slice: &ParsedSlice| {
            let mut endpoints = slice.endpoints.iter();
            endpoints.any(|e| !e.for_zones.is_empty())
        };
        let slices = self.slices.values().map(Compact::get).filter(has_zones);
        let touched = slices.map(|slice| Owner::Service(slice.service)).collect();
        let before = self.compile_all(touched);
        self.zone = zone;
        self.recompile(before)
    }
}

/// When an object was created, and what it claims.
type Claimed = (i64, Vec<Claim>);

/// As whoever has a NodePort claims it.
fn node_port_claims(port: u16) -> Vec<Claim> {
    let families = [true, false].into_iter();
    let claims = families.map(|v4| Claim {
        place: super::claims::Place {
            addr: weir_abi::service::ServiceKey::node_wide(v4),
            port,
            proto: Proto::TCP,
        },
        kind: FrontendKind::NodePort,
        field: String::new(),
    });
    claims.collect()
}
