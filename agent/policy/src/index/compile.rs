//! From the objects to [`Desired`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::pod::{PodInfo, namespace_labels};
use super::rows::rows;
use super::{Endpoint, Index, Judged, PodEntry};
use crate::actual::Direction;
use crate::class::{Classes, Signature, prefixes};
use crate::desired::{Desired, Subject};
use crate::event::ObjectName;
use crate::group::{Group, Selecting};
use crate::hash::Key;
use crate::lpm::Lpm;
use crate::scope::Scope;
use crate::selector::Labels;
use weir_abi::Addr;

impl Index {
    /// The policy that the objects add up to.
    pub fn compile(&mut self) -> Desired {
        self.make_groups();
        let (groups, slots) = self.slots();
        if self.groups_changed {
            self.groups_changed = false;
            self.set_scope(Scope::new(groups.iter().map(AsRef::as_ref)));
        }
        let scope = Arc::clone(&self.scope);
        let mut classes = Classes::new(&scope);
        let mut desired = Desired {
            groups: groups.iter().map(|group| group.key).collect(),
            slots,
            ..Desired::default()
        };
        // Where nothing is isolated nothing has to be known of peers.
        if !groups.is_empty() {
            self.match_pods();
            self.classify(&scope, &mut classes, &mut desired);
        }
        desired.rows = rows(&groups, &scope, &classes);
        desired.classes = classes.keys;
        desired
    }

    /// The policies that isolate a local endpoint, for (ingress, egress), in the order of their
    /// names; empty where none does, and for a slot that is not in use.
    pub fn isolated_by(&self, slot: u32) -> [Vec<ObjectName>; 2] {
        let pod = self.endpoints.get(&slot).and_then(|e| e.pod.as_ref());
        let selecting = pod.map(|pod| self.selecting(pod)).unwrap_or_default();
        Direction::ALL.map(|direction| {
            let isolating = selecting
                .policies
                .iter()
                .filter(|p| p.rules[direction.index()].is_some());
            isolating.map(|policy| policy.name.clone()).collect()
        })
    }

    fn make_groups(&mut self) {
        let unknown = self.endpoints.iter().filter(|(_, e)| e.groups.is_none());
        let made: Vec<_> = unknown.map(|(slot, e)| (*slot, self.judge(e))).collect();
        for (slot, groups) in made {
            if let Some(endpoint) = self.endpoints.get_mut(&slot) {
                endpoint.groups = Some(groups);
            }
        }
    }

    /// The groups in use, and which slot is in which.
    fn slots(&self) -> (Vec<Arc<Group>>, BTreeMap<u32, [Subject; 2]>) {
        let mut groups: Vec<Arc<Group>> = Vec::new();
        let mut numbers: HashMap<Key, u32> = HashMap::new();
        let mut slots = BTreeMap::new();
        for (slot, endpoint) in &self.endpoints {
            let mut subjects = [Subject::Closed; 2];
            for (subject, judged) in subjects.iter_mut().zip(endpoint.groups.iter().flatten()) {
                *subject = match judged {
                    Judged::Closed => Subject::Closed,
                    Judged::Open => Subject::Open,
                    Judged::By(group) => {
                        Subject::Group(*numbers.entry(group.key).or_insert_with(|| {
                            groups.push(Arc::clone(group));
                            groups.len() as u32 - 1
                        }))
                    }
                };
            }
            slots.insert(*slot, subjects);
        }
        (groups, slots)
    }

    fn set_scope(&mut self, scope: Scope) {
        if !scope.has_peers_of(&self.scope) {
            for pod in self.pods.values_mut() {
                pod.matched = None;
            }
        }
        self.scope = Arc::new(scope);
    }

    /// Looks for the selectors of pods of which that is not known. Pods with equal labels are
    /// looked at once.
    fn match_pods(&mut self) {
        let mut implied: HashMap<&str, Labels> = HashMap::new();
        let mut known: HashMap<(&str, &Labels), Arc<[u32]>> = HashMap::new();
        let mut found = Vec::new();
        for entry in self.pods.values() {
            let pod = &entry.info;
            if entry.matched.is_some() || !pod.is_peer() {
                continue;
            }
            let matched = known
                .entry((&pod.namespace, &pod.labels))
                .or_insert_with(|| {
                    let of_namespace = self.namespaces.get(&pod.namespace).unwrap_or_else(|| {
                        let make = || namespace_labels(&pod.namespace, None);
                        implied.entry(&pod.namespace).or_insert_with(make)
                    });
                    self.scope
                        .selectors_of(&pod.namespace, of_namespace, &pod.labels)
                        .into()
                });
            found.push(Arc::clone(matched));
        }
        let mut found = found.into_iter();
        for entry in self.pods.values_mut() {
            if entry.matched.is_none() && entry.info.is_peer() {
                entry.matched = found.next();
            }
        }
    }

    /// Finds the class of every prefix and of every pod's address.
    fn classify(&self, scope: &Scope, classes: &mut Classes, desired: &mut Desired) {
        let pod_cidrs = self.nodes.values().flat_map(|node| &node.pod_cidrs);
        let prefixes = prefixes(scope, pod_cidrs);
        let mut cidrs = Lpm::default();
        for (key, prefix) in prefixes.iter() {
            let signature = Signature {
                unknown_pod: prefix.pods,
                peers: prefix.blocks.clone(),
                ports: Vec::new(),
            };
            cidrs.insert(*key, classes.number(signature, scope));
        }
        let mut of_nodes: HashMap<Addr, Vec<u32>> = HashMap::new();
        for node in self.nodes.values() {
            for addr in &node.addresses {
                of_nodes
                    .entry(*addr)
                    .or_default()
                    .extend(scope.nodes_of(&node.labels));
            }
        }
        let mut owners: BTreeMap<Addr, Option<&PodEntry>> =
            of_nodes.keys().map(|addr| (*addr, None)).collect();
        owners.extend(
            self.owners()
                .into_iter()
                .map(|(addr, entry)| (addr, Some(entry))),
        );
        for (addr, entry) in owners {
            let matched = entry.and_then(|entry| entry.matched.as_deref());
            let mut peers = matched.unwrap_or_default().to_vec();
            peers.extend(of_nodes.get(&addr).into_iter().flatten());
            peers.sort_unstable();
            peers.dedup();
            if let Some(prefix) = prefixes.lookup(addr) {
                peers.extend(&prefix.blocks);
                peers.sort_unstable();
            }
            let signature = Signature {
                unknown_pod: false,
                ports: entry
                    .map(|entry| scope.ports_of(&peers, &entry.info.ports))
                    .unwrap_or_default(),
                peers,
            };
            let class = classes.number(signature, scope);
            // What the prefixes say anyway needs no entry of its own.
            if cidrs.lookup(addr).copied().unwrap_or(0) != class {
                desired.peers.insert(addr, class);
            }
        }
        desired.cidrs = cidrs;
    }

    /// How an endpoint is judged, (ingress, egress).
    fn judge(&self, endpoint: &Endpoint) -> [Judged; 2] {
        if endpoint.local.pod.is_none() {
            return [Judged::Open, Judged::Open];
        }
        let Some(pod) = &endpoint.pod else {
            return [Judged::Closed, Judged::Closed];
        };
        let selecting = self.selecting(pod);
        Direction::ALL.map(|direction| {
            match Group::build(direction, &selecting, |name| pod.port(name)) {
                Some(group) => Judged::By(Arc::new(group)),
                None => Judged::Open,
            }
        })
    }

    /// The policies that select a pod.
    fn selecting(&self, pod: &PodInfo) -> Selecting<'_> {
        if pod.host_network {
            return Selecting::default();
        }
        let of_namespace = self.policies.get(&pod.namespace).into_iter();
        let policies = of_namespace.flat_map(BTreeMap::values);
        let implied;
        let labels = match self.namespaces.get(&pod.namespace) {
            Some(labels) => labels,
            None => {
                implied = namespace_labels(&pod.namespace, None);
                &implied
            }
        };
        let cluster = self.cluster_policies.values();
        let mut cluster: Vec<_> = cluster.filter(|p| p.selects(labels, &pod.labels)).collect();
        cluster.sort_by_key(|policy| policy.order());
        Selecting {
            cluster,
            policies: policies
                .filter(|p| p.selector.matches(&pod.labels))
                .collect(),
        }
    }
}
