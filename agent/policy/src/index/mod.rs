//! The objects, indexed, and what is compiled of them.

mod compile;
mod endpoint;
mod groups;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use weir_abi::Addr;
use weir_abi::policy::LpmKey;
use weir_crd::ClusterNetworkPolicy;

use crate::census::{Census, PodInfo, namespace_labels};
use crate::cidr;
use crate::class::{Classes, Prefix};
use crate::cluster_policy::ClusterPolicy;
use crate::desired::Desired;
use crate::event::{Dirty, Event, ObjectName};
use crate::lpm::Lpm;
use crate::policy::{Policy, object_name};
use crate::problem::Problem;
use crate::scope::Scope;
use crate::selector::Labels;
use endpoint::Endpoint;
use groups::Groups;

/// All objects that policy depends on, and what they add up to. What an event changes is marked;
/// [`Index::compile`] makes again only what the marks ask for.
#[derive(Clone, Debug)]
pub struct Index {
    node: String,
    /// By namespace, then by name.
    policies: BTreeMap<String, BTreeMap<String, Policy>>,
    cluster_policies: BTreeMap<String, ClusterPolicy>,
    nodes: BTreeMap<String, NodeInfo>,
    endpoints: BTreeMap<u32, Endpoint>,
    /// Slots by the pod's name.
    endpoints_of: HashMap<ObjectName, BTreeSet<u32>>,
    census: Census,
    scope: Scope,
    groups: Groups,
    classes: Classes,
    prefixes: Lpm<Prefix>,
    desired: Desired,
    dirty: Marks,
    /// The slots that were judged since the last call of [`Index::settled`].
    judged: BTreeSet<u32>,
    isolated_by: BTreeMap<u32, [Vec<ObjectName>; 2]>,
}

/// What has to be looked at again.
#[derive(Clone, Debug, Default)]
struct Marks {
    /// Endpoints, by slot.
    endpoints: BTreeSet<u32>,
    addresses: BTreeSet<Addr>,
    /// The pod CIDRs of nodes.
    prefixes: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct NodeInfo {
    pod_cidrs: Vec<LpmKey>,
    labels: Labels,
    addresses: Vec<Addr>,
    problems: Vec<Problem>,
}

impl NodeInfo {
    fn read(name: &str, node: &Node) -> Self {
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
        let status = node.status.iter();
        let listed = status.flat_map(|s| s.addresses.iter().flatten());
        let parsed = listed.filter_map(|a| a.address.parse::<IpAddr>().ok());
        Self {
            pod_cidrs,
            labels: node.metadata.labels.clone().unwrap_or_default(),
            addresses: parsed.map(Addr::from).collect(),
            problems: refused.into_iter().map(problem).collect(),
        }
    }
}

impl Index {
    /// An empty index of the node of that name.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            policies: BTreeMap::new(),
            cluster_policies: BTreeMap::new(),
            nodes: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            endpoints_of: HashMap::new(),
            census: Census::default(),
            scope: Scope::default(),
            groups: Groups::default(),
            classes: Classes::default(),
            prefixes: Lpm::default(),
            desired: Desired::default(),
            dirty: Marks::default(),
            judged: BTreeSet::new(),
            isolated_by: BTreeMap::new(),
        }
    }

    /// The node whose policy this is.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What [`Index::compile`] last made.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// To be called when a plan for what was last compiled has been performed to its end: the next
    /// one may be made by [`crate::plan_changes`].
    pub fn settled(&mut self) {
        self.desired.settled();
        self.note_isolation();
    }

    /// Takes in one change.
    pub fn apply(&mut self, event: Event) -> Dirty {
        Dirty(match event {
            Event::ApplyNamespace(namespace) => {
                let name = namespace.metadata.name.unwrap_or_default();
                let labels = namespace_labels(&name, namespace.metadata.labels.as_ref());
                self.set_namespace(&name, Some(labels))
            }
            Event::DeleteNamespace(name) => self.set_namespace(&name, None),
            Event::ApplyPod(pod) => self.apply_pod(&pod),
            Event::DeletePod(name) => self.delete_pod(&name),
            Event::ApplyPolicy(policy) => self.apply_policy(&policy),
            Event::DeletePolicy(name) => self.delete_policy(&name),
            Event::ApplyClusterPolicy(policy) => self.apply_cluster_policy(&policy),
            Event::DeleteClusterPolicy(name) => self.delete_cluster_policy(&name),
            Event::ApplyNode(node) => {
                let name = node.metadata.name.clone().unwrap_or_default();
                let info = NodeInfo::read(&name, &node);
                self.set_node(name, Some(info))
            }
            Event::DeleteNode(name) => self.set_node(name, None),
            Event::ApplyEndpoint(endpoint) => self.apply_endpoint(endpoint),
            Event::DeleteEndpoint(slot) => self.delete_endpoint(slot),
        })
    }

    /// What could not be used of the objects, sorted.
    pub fn problems(&self) -> Vec<Problem> {
        let policies = self.policies.values().flat_map(BTreeMap::values);
        let of_policies = policies.flat_map(|policy| &policy.problems);
        let of_cluster = self.cluster_policies.values();
        let of_cluster = of_cluster.flat_map(|policy| &policy.problems);
        let of_nodes = self.nodes.values().flat_map(|node| &node.problems);
        let all = of_policies.chain(of_cluster).chain(of_nodes);
        let mut problems: Vec<_> = all.cloned().collect();
        problems.sort();
        problems
    }

    fn set_namespace(&mut self, name: &str, labels: Option<Labels>) -> bool {
        let before = self.census.profiles.namespace(name).into_owned();
        let used = self.census.profiles.set_namespace(name, labels);
        let changed = *self.census.profiles.namespace(name) != before;
        if changed && !self.cluster_policies.is_empty() {
            // They may select other pods of it now, also those that are nobody's peers.
            self.judge_again(|pod| pod.namespace == name);
            return true;
        }
        used
    }

    fn apply_pod(&mut self, pod: &Pod) -> bool {
        let name = object_name(&pod.metadata);
        let mut info = PodInfo::read(name.namespace.clone(), pod);
        let old = self.census.pod(&name).map(|old| Arc::clone(&old.info));
        if let Some(old) = old {
            if *old == info {
                return false;
            }
            self.dirty.addresses.extend(&old.addresses);
        }
        self.dirty.addresses.extend(&info.addresses);
        self.census.profiles.share_labels(&mut info);
        let info = Arc::new(info);
        self.census.set_pod(&name, Arc::clone(&info));
        self.pod_changed(&name, Some(&info));
        true
    }

    fn delete_pod(&mut self, name: &ObjectName) -> bool {
        let Some(old) = self.census.remove_pod(name) else {
            return false;
        };
        self.dirty.addresses.extend(&old.addresses);
        self.pod_changed(name, None);
        true
    }

    fn apply_policy(&mut self, object: &NetworkPolicy) -> bool {
        let policy = Policy::parse(object);
        let ObjectName { namespace, name } = policy.name.clone();
        let selector = policy.selector.clone();
        let of_namespace = self.policies.entry(namespace.clone()).or_default();
        let old = of_namespace.insert(name, policy);
        self.judge_again(|pod| {
            let selects = |selector: &crate::selector::Selector| selector.matches(&pod.labels);
            pod.namespace == namespace
                && (selects(&selector) || old.as_ref().is_some_and(|old| selects(&old.selector)))
        });
        true
    }

    fn delete_policy(&mut self, ObjectName { namespace, name }: &ObjectName) -> bool {
        let of_namespace = self.policies.get_mut(namespace);
        let Some(old) = of_namespace.and_then(|policies| policies.remove(name)) else {
            return false;
        };
        self.judge_again(|pod| pod.namespace == *namespace && old.selector.matches(&pod.labels));
        true
    }

    fn apply_cluster_policy(&mut self, object: &ClusterNetworkPolicy) -> bool {
        let policy = ClusterPolicy::parse(object);
        let name = policy.name.clone();
        let old = self.cluster_policies.insert(name.clone(), policy.clone());
        self.judge_by(&policy);
        if let Some(old) = old {
            self.judge_by(&old);
        }
        true
    }

    fn delete_cluster_policy(&mut self, name: &str) -> bool {
        let removed = self.cluster_policies.remove(name);
        if let Some(old) = &removed {
            self.judge_by(old);
        }
        removed.is_some()
    }

    /// The subjects of a policy are judged by other policies now.
    fn judge_by(&mut self, policy: &ClusterPolicy) {
        let all = self
            .endpoints
            .values()
            .filter_map(|endpoint| endpoint.pod.as_ref());
        let namespaces: BTreeSet<&str> = all.map(|pod| pod.namespace.as_str()).collect();
        let labels = |name: &str| self.census.profiles.namespace(name).into_owned();
        let labels: HashMap<String, Labels> = namespaces
            .into_iter()
            .map(|name| (name.to_owned(), labels(name)))
            .collect();
        self.judge_again(|pod| {
            let of_namespace = labels.get(&pod.namespace);
            of_namespace.is_some_and(|labels| policy.selects(labels, &pod.labels))
        });
    }

    fn set_node(&mut self, name: String, info: Option<NodeInfo>) -> bool {
        let old = match &info {
            Some(info) => self.nodes.insert(name.clone(), info.clone()),
            None => self.nodes.remove(&name),
        };
        if old == info {
            return false;
        }
        let cidrs = |info: &Option<NodeInfo>| info.as_ref().map(|info| info.pod_cidrs.clone());
        self.dirty.prefixes |= cidrs(&old) != cidrs(&info);
        for addr in old.iter().flat_map(|old| &old.addresses) {
            self.census.remove_node(*addr, &name);
            self.dirty.addresses.insert(*addr);
        }
        for addr in info.iter().flat_map(|info| &info.addresses) {
            self.census.add_node(*addr, &name);
            self.dirty.addresses.insert(*addr);
        }
        true
    }
}
