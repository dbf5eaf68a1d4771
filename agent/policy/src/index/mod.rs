//! The objects, indexed, and what is remembered of the last compilation.

mod compile;
mod pod;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use weir_abi::Addr;
use weir_abi::policy::LpmKey;

use crate::cidr;
use crate::cluster_policy::ClusterPolicy;
use crate::event::{Dirty, Event, LocalEndpoint, ObjectName};
use crate::group::Group;
use crate::policy::{Policy, object_name};
use crate::problem::Problem;
use crate::scope::Scope;
use crate::selector::Labels;
use pod::{PodInfo, namespace_labels};

/// All objects that policy depends on. What an event changes is marked; [`Index::compile`] does
/// again only what the marks ask for: a pod's new address matches no selector again, a policy
/// touches the groups of its own namespace.
#[derive(Clone, Debug)]
pub struct Index {
    node: String,
    namespaces: HashMap<String, Labels>,
    pods: BTreeMap<ObjectName, PodEntry>,
    /// By namespace, then by name.
    policies: BTreeMap<String, BTreeMap<String, Policy>>,
    cluster_policies: BTreeMap<String, ClusterPolicy>,
    nodes: BTreeMap<String, NodeInfo>,
    endpoints: BTreeMap<u32, Endpoint>,
    scope: Arc<Scope>,
    /// Some endpoint's groups have changed since `scope` was made.
    groups_changed: bool,
}

#[derive(Clone, Debug)]
struct PodEntry {
    info: Arc<PodInfo>,
    /// The numbers of the selectors of `scope` that match it; none: not yet looked for.
    matched: Option<Arc<[u32]>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct NodeInfo {
    pod_cidrs: Vec<LpmKey>,
    labels: Labels,
    addresses: Vec<Addr>,
    problems: Vec<Problem>,
}

#[derive(Clone, Debug)]
struct Endpoint {
    local: LocalEndpoint,
    /// The pod as it was last seen: when the object is gone, its policy stays until the endpoint
    /// is removed.
    pod: Option<Arc<PodInfo>>,
    /// (ingress, egress); none: to be made.
    groups: Option<[Judged; 2]>,
}

#[derive(Clone, Debug)]
enum Judged {
    Closed,
    Open,
    By(Arc<Group>),
}

impl Index {
    /// An empty index of the node of that name.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            namespaces: HashMap::new(),
            pods: BTreeMap::new(),
            policies: BTreeMap::new(),
            cluster_policies: BTreeMap::new(),
            nodes: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            scope: Arc::default(),
            groups_changed: false,
        }
    }

    /// The node whose policy this is.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Takes in one change.
    pub fn apply(&mut self, event: Event) -> Dirty {
        Dirty(match event {
            Event::ApplyNamespace(namespace) => {
                let name = namespace.metadata.name.unwrap_or_default();
                let labels = namespace_labels(&name, namespace.metadata.labels.as_ref());
                self.set_namespace(name, Some(labels))
            }
            Event::DeleteNamespace(name) => self.set_namespace(name, None),
            Event::ApplyPod(pod) => self.apply_pod(&pod),
            Event::DeletePod(name) => self.pods.remove(&name).is_some(),
            Event::ApplyPolicy(policy) => {
                let policy = Policy::parse(&policy);
                let of_namespace = self
                    .policies
                    .entry(policy.name.namespace.clone())
                    .or_default();
                let namespace = policy.name.namespace.clone();
                of_namespace.insert(policy.name.name.clone(), policy);
                self.forget_groups(&namespace)
            }
            Event::DeletePolicy(ObjectName { namespace, name }) => {
                let of_namespace = self.policies.get_mut(&namespace);
                let removed = of_namespace
                    .and_then(|policies| policies.remove(&name))
                    .is_some();
                removed && self.forget_groups(&namespace)
            }
            Event::ApplyClusterPolicy(policy) => {
                let policy = ClusterPolicy::parse(&policy);
                self.cluster_policies.insert(policy.name.clone(), policy);
                self.forget_all_groups()
            }
            Event::DeleteClusterPolicy(name) => {
                self.cluster_policies.remove(&name).is_some() && self.forget_all_groups()
            }
            Event::ApplyNode(node) => self.apply_node(&node),
            Event::DeleteNode(name) => self.nodes.remove(&name).is_some(),
            Event::ApplyEndpoint(endpoint) => self.apply_endpoint(endpoint),
            Event::DeleteEndpoint(slot) => {
                let removed = self.endpoints.remove(&slot).is_some();
                self.groups_changed |= removed;
                removed
            }
        })
    }

    /// What could not be used of the objects, sorted.
    pub fn problems(&self) -> Vec<Problem> {
        let policies = self.policies.values().flat_map(BTreeMap::values);
        let of_policies = policies.flat_map(|policy| &policy.problems);
        let of_cluster = self.cluster_policies.values();
        let of_policies = of_policies.chain(of_cluster.flat_map(|policy| &policy.problems));
        let of_nodes = self.nodes.values().flat_map(|node| &node.problems);
        let mut problems: Vec<_> = of_policies.chain(of_nodes).cloned().collect();
        problems.sort();
        problems
    }

    fn set_namespace(&mut self, name: String, labels: Option<Labels>) -> bool {
        let old = match labels {
            Some(labels) if self.namespaces.get(&name) == Some(&labels) => return false,
            Some(labels) => self.namespaces.insert(name.clone(), labels),
            None => self.namespaces.remove(&name),
        };
        let pods = self
            .pods
            .values_mut()
            .filter(|pod| pod.info.namespace == name);
        let mut used = old.is_some();
        for pod in pods {
            pod.matched = None;
            used = true;
        }
        if !self.cluster_policies.is_empty() {
            // Whether they select its pods may have changed.
            self.forget_groups(&name);
        }
        used
    }

    fn apply_pod(&mut self, pod: &Pod) -> bool {
        let name = object_name(&pod.metadata);
        let info = PodInfo::read(name.namespace.clone(), pod);
        let mut matched = None;
        if let Some(old) = self.pods.get(&name) {
            if *old.info == info {
                return false;
            }
            if old.info.labels == info.labels {
                matched.clone_from(&old.matched);
            }
        }
        let info = Arc::new(info);
        for endpoint in self.endpoints.values_mut() {
            if endpoint.is_of(&name, &info) {
                self.groups_changed |= endpoint.learn(&info);
            }
        }
        self.pods.insert(name, PodEntry { info, matched });
        true
    }

    fn apply_node(&mut self, node: &Node) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let spec = node.spec.as_ref();
        let listed = spec
            .and_then(|s| s.pod_cidrs.as_ref())
            .filter(|list| !list.is_empty());
        let single = spec.and_then(|s| s.pod_cidr.as_ref());
        let all = listed.map_or_else(
            || single.into_iter().collect(),
            |l| l.iter().collect::<Vec<_>>(),
        );
        let (pod_cidrs, refused) = cidr::parse_list(all.into_iter());
        let problem = |(i, reason): (usize, String)| Problem {
            object: format!("Node {name}"),
            path: format!("spec.podCIDRs[{i}]"),
            reason: format!("{reason}; passed over"),
        };
        let listed = node
            .status
            .iter()
            .flat_map(|s| s.addresses.iter().flatten());
        let parsed = listed.filter_map(|a| a.address.parse::<std::net::IpAddr>().ok());
        let info = NodeInfo {
            pod_cidrs,
            labels: node.metadata.labels.clone().unwrap_or_default(),
            addresses: parsed.map(Addr::from).collect(),
            problems: refused.into_iter().map(problem).collect(),
        };
        let old = self.nodes.insert(name, info.clone());
        old != Some(info)
    }

    fn apply_endpoint(&mut self, local: LocalEndpoint) -> bool {
        let old = self.endpoints.get(&local.slot);
        if old.is_some_and(|old| old.local == local) {
            return false;
        }
        let same_pod = old.filter(|old| old.local.pod == local.pod);
        let mut endpoint = Endpoint {
            pod: same_pod.and_then(|old| old.pod.clone()),
            groups: None,
            local,
        };
        if let Some(name) = endpoint.local.pod.as_ref().map(|pod| pod.name.clone())
            && let Some(entry) = self.pods.get(&name)
            && endpoint.is_of(&name, &entry.info)
        {
            endpoint.pod = Some(Arc::clone(&entry.info));
        }
        self.groups_changed = true;
        self.endpoints.insert(endpoint.local.slot, endpoint);
        true
    }

    /// The groups of the namespace's endpoints have to be made again.
    fn forget_groups(&mut self, namespace: &str) -> bool {
        for endpoint in self.endpoints.values_mut() {
            if endpoint
                .pod
                .as_ref()
                .is_some_and(|pod| pod.namespace == namespace)
            {
                endpoint.groups = None;
                self.groups_changed = true;
            }
        }
        true
    }

    /// The groups of all endpoints have to be made again.
    fn forget_all_groups(&mut self) -> bool {
        for endpoint in self.endpoints.values_mut() {
            endpoint.groups = None;
        }
        self.groups_changed = true;
        true
    }

    /// The pod of an endpoint, while its object is there.
    fn pod_of(&self, endpoint: &Endpoint) -> Option<&PodEntry> {
        let name = &endpoint.local.pod.as_ref()?.name;
        self.pods
            .get(name)
            .filter(|entry| endpoint.is_of(name, &entry.info))
    }

    /// Who has which address: this node's own record says it of its endpoints; of other pods the
    /// newest, and of equally new ones the one whose name comes last.
    fn owners(&self) -> HashMap<Addr, &PodEntry> {
        let mut owners: HashMap<Addr, &PodEntry> = HashMap::new();
        for entry in self.pods.values().filter(|entry| entry.info.is_peer()) {
            for addr in &entry.info.addresses {
                let owner = owners.entry(*addr).or_insert(entry);
                if owner.info.created <= entry.info.created {
                    *owner = entry;
                }
            }
        }
        for endpoint in self.endpoints.values() {
            let pod = self.pod_of(endpoint).filter(|entry| entry.info.is_peer());
            for addr in endpoint
                .local
                .addresses
                .iter()
                .map(|addr| Addr::from(*addr))
            {
                match pod {
                    Some(pod) => owners.insert(addr, pod),
                    None => owners.remove(&addr),
                };
            }
        }
        owners
    }
}

impl Endpoint {
    fn is_of(&self, name: &ObjectName, pod: &PodInfo) -> bool {
        let mine = self.local.pod.as_ref();
        mine.is_some_and(|mine| mine.name == *name && pod.has_uid(mine.uid.as_ref()))
    }

    /// Notes the pod's present state; whether groups may change by it.
    fn learn(&mut self, pod: &Arc<PodInfo>) -> bool {
        let same = self.pod.as_ref().is_some_and(|old| {
            old.labels == pod.labels
                && old.ports == pod.ports
                && old.host_network == pod.host_network
        });
        self.pod = Some(Arc::clone(pod));
        if !same {
            self.groups = None;
        }
        !same
    }
}
