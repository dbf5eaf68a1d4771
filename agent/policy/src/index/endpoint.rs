//! The endpoints of this node, and the policies that select their pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_abi::Addr;

use super::Index;
use crate::actual::Direction;
use crate::census::{PodEntry, PodInfo};
use crate::event::{LocalEndpoint, ObjectName};
use crate::group::Selecting;

#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub local: LocalEndpoint,
    /// The pod as it was last seen: when the object is gone, its policy stays until the endpoint
    /// is removed.
    pub pod: Option<Arc<PodInfo>>,
}

impl Endpoint {
    /// Its pod's name, if there is a pod.
    pub fn pod_name(&self) -> Option<&ObjectName> {
        self.local.pod.as_ref().map(|pod| &pod.name)
    }

    pub fn is_of(&self, name: &ObjectName, pod: &PodInfo) -> bool {
        let mine = self.local.pod.as_ref();
        mine.is_some_and(|mine| mine.name == *name && pod.has_uid(mine.uid.as_ref()))
    }

    /// Notes the pod's present state; whether groups may change by it.
    pub fn learn(&mut self, pod: &Arc<PodInfo>) -> bool {
        let same = self.pod.as_ref().is_some_and(|old| {
            old.labels == pod.labels
                && old.ports == pod.ports
                && old.host_network == pod.host_network
        });
        self.pod = Some(Arc::clone(pod));
        !same
    }

    pub fn addresses(&self) -> impl Iterator<Item = Addr> {
        self.local.addresses.iter().map(|addr| Addr::from(*addr))
    }
}

impl Index {
    pub(super) fn apply_endpoint(&mut self, local: LocalEndpoint) -> bool {
        let slot = local.slot;
        let old = self.endpoints.get(&slot);
        if old.is_some_and(|old| old.local == local) {
            return false;
        }
        let same_pod = old.filter(|old| old.local.pod == local.pod);
        let mut endpoint = Endpoint {
            pod: same_pod.and_then(|old| old.pod.clone()),
            local,
        };
        if let Some(entry) = self.pod_of(&endpoint) {
            endpoint.pod = Some(Arc::clone(&entry.info));
        }
        self.forget_endpoint(slot);
        for addr in endpoint.addresses() {
            self.census.add_endpoint(addr, slot);
            self.dirty.addresses.insert(addr);
        }
        if let Some(name) = endpoint.pod_name() {
            self.endpoints_of
                .entry(name.clone())
                .or_default()
                .insert(slot);
        }
        self.endpoints.insert(slot, endpoint);
        self.dirty.endpoints.insert(slot);
        true
    }

    pub(super) fn delete_endpoint(&mut self, slot: u32) -> bool {
        let removed = self.forget_endpoint(slot);
        if removed {
            self.dirty.endpoints.insert(slot);
        }
        removed
    }

    fn forget_endpoint(&mut self, slot: u32) -> bool {
        let Some(old) = self.endpoints.remove(&slot) else {
            return false;
        };
        for addr in old.addresses() {
            self.census.remove_endpoint(addr, slot);
            self.dirty.addresses.insert(addr);
        }
        if let Some(name) = old.pod_name()
            && let Some(slots) = self.endpoints_of.get_mut(name)
        {
            slots.remove(&slot);
            if slots.is_empty() {
                self.endpoints_of.remove(name);
            }
        }
        true
    }

    /// The pod of an endpoint, while its object is there.
    pub(super) fn pod_of(&self, endpoint: &Endpoint) -> Option<&PodEntry> {
        let name = endpoint.pod_name()?;
        let entry = self.census.pod(name)?;
        endpoint.is_of(name, &entry.info).then_some(entry)
    }

    /// A pod has changed: so may have who owns its endpoints' addresses, and how they are judged.
    pub(super) fn pod_changed(&mut self, name: &ObjectName, info: Option<&Arc<PodInfo>>) {
        for slot in self.endpoints_of.get(name).into_iter().flatten() {
            let Some(endpoint) = self.endpoints.get_mut(slot) else {
                continue;
            };
            self.dirty.addresses.extend(endpoint.addresses());
            if let Some(info) = info
                && endpoint.is_of(name, info)
                && endpoint.learn(info)
            {
                self.dirty.endpoints.insert(*slot);
            }
        }
    }

    /// The endpoints whose pods `selects` are judged by other policies now.
    pub(super) fn judge_again(&mut self, selects: impl Fn(&PodInfo) -> bool) {
        for (slot, endpoint) in &self.endpoints {
            if endpoint.pod.as_ref().is_some_and(|pod| selects(pod)) {
                self.dirty.endpoints.insert(*slot);
            }
        }
    }

    /// The policies that select a pod.
    pub(super) fn selecting(&self, pod: &PodInfo) -> Selecting<'_> {
        if pod.host_network {
            return Selecting::default();
        }
        let of_namespace = self.policies.get(&pod.namespace).into_iter();
        let policies = of_namespace.flat_map(BTreeMap::values);
        let cluster = self.cluster_policies.values();
        let labels = self.census.profiles.namespace(&pod.namespace);
        let mut cluster: Vec<_> = cluster
            .filter(|p| p.selects(&labels, &pod.labels))
            .collect();
        cluster.sort_by_key(|policy| policy.order());
        Selecting {
            cluster,
            policies: policies
                .filter(|p| p.selector.matches(&pod.labels))
                .collect(),
        }
    }

    /// The policies that isolate a local endpoint, for (ingress, egress), in the order of their
    /// names, as they were when [`Index::settled`] was last called; empty where none does, and for a
    /// slot that is not in use.
    pub fn isolated_by(&self, slot: u32) -> [&[ObjectName]; 2] {
        let names = self.isolated_by.get(&slot);
        Direction::ALL.map(|direction| names.map_or(&[][..], |names| &names[direction.index()]))
    }

    /// Notes by which policies the endpoints are isolated that were judged again.
    pub(super) fn note_isolation(&mut self) {
        for slot in std::mem::take(&mut self.judged) {
            let names = self.isolating(slot);
            if names.iter().all(Vec::is_empty) {
                self.isolated_by.remove(&slot);
            } else {
                self.isolated_by.insert(slot, names);
            }
        }
    }

    fn isolating(&self, slot: u32) -> [Vec<ObjectName>; 2] {
        let pod = self.endpoints.get(&slot).and_then(|e| e.pod.as_ref());
        let selecting = pod.map(|pod| self.selecting(pod)).unwrap_or_default();
        Direction::ALL.map(|direction| {
            let policies = selecting.policies.iter();
            let isolating = policies.filter(|p| p.rules[direction.index()].is_some());
            isolating.map(|policy| policy.name.clone()).collect()
        })
    }
}
