//! The objects, indexed for questions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weir_crd::ClusterNetworkPolicy;

use crate::cluster_policy::ClusterPolicy;
use crate::node::{self, NodeInfo};
use crate::party::Protocol;
use crate::pod::PodInfo;
use crate::policy::Policy;
use crate::refusal::Message;
use crate::selector::Labels;

/// Kubernetes objects as they are; an object without a namespace is in `default`. Of two objects
/// of one kind and name the last counts.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Namespaces; one that is used but not here has only its implied label.
    pub namespaces: Vec<Namespace>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// NetworkPolicies.
    pub policies: Vec<NetworkPolicy>,
    /// ClusterNetworkPolicies.
    pub cluster_policies: Vec<ClusterNetworkPolicy>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Services.
    pub services: Vec<Service>,
    /// EndpointSlices; a Service that has none follows its selector.
    pub endpoint_slices: Vec<EndpointSlice>,
}

/// (namespace, name).
type Key = (String, String);

/// Answers questions about one [`Cluster`]; build it once for many questions.
#[derive(Debug)]
pub struct Evaluator<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) pods: Vec<PodInfo>,
    pub(crate) pod_index: HashMap<Key, usize>,
    pub(crate) ended: HashMap<Key, String>,
    pub(crate) pod_by_address: HashMap<IpAddr, usize>,
    pub(crate) nodes: BTreeMap<String, Vec<IpAddr>>,
    pub(crate) node_by_address: HashMap<IpAddr, String>,
    pub(crate) node_objects: BTreeMap<String, NodeInfo>,
    pub(crate) namespaces: HashMap<String, Labels>,
    /// By namespace, sorted by name.
    pub(crate) policies: HashMap<String, Vec<Policy>>,
    /// In the order in which they are asked.
    pub(crate) cluster_policies: Vec<ClusterPolicy>,
}

/// (namespace, name) of an object; no namespace is `default`.
pub(crate) fn key(metadata: &ObjectMeta) -> Key {
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let name = metadata.name.as_deref().unwrap_or_default();
    (namespace.to_owned(), name.to_owned())
}

impl<'a> Evaluator<'a> {
    /// Reads the objects. Nothing is ever refused as a whole: see [`Evaluator::messages`].
    pub fn new(cluster: &'a Cluster) -> Self {
        let mut this = Self {
            cluster,
            pods: Vec::new(),
            pod_index: HashMap::new(),
            ended: HashMap::new(),
            pod_by_address: HashMap::new(),
            nodes: BTreeMap::new(),
            node_by_address: HashMap::new(),
            node_objects: node::read_all(&cluster.nodes),
            namespaces: namespaces(cluster),
            policies: policies(cluster),
            cluster_policies: cluster_policies(cluster),
        };
        this.read_pods();
        this.read_nodes();
        this
    }

    /// What the API server would refuse of the policies, in the order of their names.
    pub fn messages(&self) -> Vec<Message> {
        let policies = self.policies.values().flatten().map(|p| &p.messages);
        let cluster_policies = self.cluster_policies.iter().map(|p| &p.messages);
        let mut all: Vec<Message> = policies
            .chain(cluster_policies)
            .flatten()
            .cloned()
            .collect();
        all.sort();
        all
    }

    /// The number of a pod's named port, if the pod is there and has it.
    pub fn named_port(
        &self,
        namespace: &str,
        pod: &str,
        name: &str,
        protocol: Protocol,
    ) -> Option<u16> {
        let index = self
            .pod_index
            .get(&(namespace.to_owned(), pod.to_owned()))?;
        self.pods[*index].named_port(name, protocol)
    }

    /// The labels of a namespace; [`None`] if no object lives in it.
    pub(crate) fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// All the addresses that pods and nodes own: useful for generators of questions.
    pub fn known_addresses(&self) -> Vec<IpAddr> {
        let all: HashSet<IpAddr> = self
            .pod_by_address
            .keys()
            .chain(self.node_by_address.keys())
            .copied()
            .collect();
        let mut all: Vec<IpAddr> = all.into_iter().collect();
        all.sort();
        all
    }

    fn read_pods(&mut self) {
        // The last object of a name counts.
        let mut by_key: BTreeMap<Key, &Pod> = BTreeMap::new();
        for pod in &self.cluster.pods {
            by_key.insert(key(&pod.metadata), pod);
        }
        for (key, pod) in by_key {
            let phase = pod.status.as_ref().and_then(|s| s.phase.clone());
            match phase {
                Some(phase) if phase == "Succeeded" || phase == "Failed" => {
                    self.ended.insert(key, phase);
                }
                _ => {
                    self.pod_index.insert(key, self.pods.len());
                    self.pods.push(PodInfo::read(pod));
                }
            }
        }
        // Pods are in the order of their keys: of equally new ones the greater key wins.
        for (index, pod) in self.pods.iter().enumerate() {
            for addr in &pod.addresses {
                let newest = match self.pod_by_address.get(addr) {
                    Some(other) => self.pods[*other].created <= pod.created,
                    None => true,
                };
                if newest && !pod.host_network {
                    self.pod_by_address.insert(*addr, index);
                }
            }
        }
        for index in 0..self.pods.len() {
            for addr in self.pods[index].addresses.clone() {
                match self.pod_by_address.get(&addr) {
                    Some(owner) if *owner != index && !self.pods[index].host_network => {
                        let owner = &self.pods[*owner];
                        let owner = format!("{}/{}", owner.namespace, owner.name);
                        let pod = &mut self.pods[index];
                        pod.addresses.retain(|a| *a != addr);
                        pod.lost.get_or_insert((addr, owner));
                    }
                    _ => {}
                }
            }
        }
    }

    fn read_nodes(&mut self) {
        for pod in &self.pods {
            if let Some(node) = &pod.node {
                let addresses = self.nodes.entry(node.clone()).or_default();
                if pod.host_network && addresses.is_empty() {
                    addresses.clone_from(&pod.addresses);
                }
            }
        }
        for node in &self.cluster.nodes {
            let name = node.metadata.name.clone().unwrap_or_default();
            let addresses = node
                .status
                .iter()
                .flat_map(|s| s.addresses.iter().flatten());
            let mut list = Vec::new();
            for kind in ["InternalIP", "ExternalIP"] {
                let of_kind = addresses.clone().filter(|a| a.type_ == kind);
                list.extend(of_kind.filter_map(|a| a.address.parse::<IpAddr>().ok()));
            }
            if list.is_empty() {
                self.nodes.entry(name).or_default();
            } else {
                self.nodes.insert(name, list);
            }
        }
        for (name, addresses) in &self.nodes {
            for addr in addresses {
                self.node_by_address.insert(*addr, name.clone());
            }
        }
    }
}

/// Every namespace that is used, with its labels.
fn namespaces(cluster: &Cluster) -> HashMap<String, Labels> {
    let mut all: HashMap<String, Labels> = HashMap::new();
    for pod in &cluster.pods {
        all.entry(key(&pod.metadata).0).or_default();
    }
    for namespace in &cluster.namespaces {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        all.insert(name, namespace.metadata.labels.clone().unwrap_or_default());
    }
    for (name, labels) in &mut all {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.clone());
    }
    all
}

fn policies(cluster: &Cluster) -> HashMap<String, Vec<Policy>> {
    let mut by_key: BTreeMap<Key, &NetworkPolicy> = BTreeMap::new();
    for policy in &cluster.policies {
        by_key.insert(key(&policy.metadata), policy);
    }
    let mut by_namespace: HashMap<String, Vec<Policy>> = HashMap::new();
    for ((namespace, _), policy) in by_key {
        by_namespace
            .entry(namespace)
            .or_default()
            .push(Policy::parse(policy));
    }
    by_namespace
}

/// In the order in which those of one tier are asked: by priority, then by name.
fn cluster_policies(cluster: &Cluster) -> Vec<ClusterPolicy> {
    let mut by_name: BTreeMap<&str, &ClusterNetworkPolicy> = BTreeMap::new();
    for policy in &cluster.cluster_policies {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        by_name.insert(name, policy);
    }
    let mut all: Vec<ClusterPolicy> = by_name.into_values().map(ClusterPolicy::parse).collect();
    // Stable: equal priorities stay in the order of names.
    all.sort_by_key(|policy| policy.priority);
    all
}
