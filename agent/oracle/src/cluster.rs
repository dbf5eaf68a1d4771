//! The objects, indexed for questions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::party::{End, Family, Party, PartyKind, Protocol, QueryError};
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
    pod_index: HashMap<Key, usize>,
    ended: HashMap<Key, String>,
    pod_by_address: HashMap<IpAddr, usize>,
    nodes: BTreeMap<String, Vec<IpAddr>>,
    node_by_address: HashMap<IpAddr, String>,
    pub(crate) namespaces: HashMap<String, Labels>,
    /// By namespace, sorted by name.
    pub(crate) policies: HashMap<String, Vec<Policy>>,
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
            namespaces: namespaces(cluster),
            policies: policies(cluster),
        };
        this.read_pods();
        this.read_nodes();
        this
    }

    /// What the API server would refuse of the policies, in the order of their names.
    pub fn messages(&self) -> Vec<Message> {
        let mut all: Vec<Message> = self
            .policies
            .values()
            .flatten()
            .flat_map(|policy| policy.messages.iter().cloned())
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

/// An end with all its addresses, before the family is settled.
pub(crate) struct Candidate {
    pub kind: PartyKind,
    pub node: Option<String>,
    pub addresses: Vec<IpAddr>,
}

impl Candidate {
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|a| Family::of(*a) == family)
    }

    pub fn party(self, family: Option<Family>) -> Party {
        Party {
            address: family.and_then(|f| self.address(f)),
            kind: self.kind,
            node: self.node,
        }
    }
}

impl Evaluator<'_> {
    /// The live pod behind a party, unless it is on the host's network.
    pub(crate) fn pod_of(&self, party: &Party) -> Option<&PodInfo> {
        match &party.kind {
            PartyKind::Pod { namespace, name } => {
                let index = self.pod_index.get(&(namespace.clone(), name.clone()))?;
                Some(&self.pods[*index])
            }
            PartyKind::HostPod { .. } | PartyKind::Node | PartyKind::Outside => None,
        }
    }

    /// What an end is.
    pub(crate) fn resolve(&self, end: &End) -> Result<Candidate, QueryError> {
        match end {
            End::Pod { namespace, name } => self.resolve_pod(namespace, name),
            End::Node(name) => match self.nodes.get(name) {
                Some(addresses) => Ok(Candidate {
                    kind: PartyKind::Node,
                    node: Some(name.clone()),
                    addresses: addresses.clone(),
                }),
                None => Err(QueryError::UnknownNode(name.clone())),
            },
            End::Address(addr) => {
                let addr = addr.to_canonical();
                let mut candidate = if let Some(index) = self.pod_by_address.get(&addr) {
                    self.candidate(&self.pods[*index])
                } else if let Some(node) = self.node_by_address.get(&addr) {
                    self.resolve(&End::Node(node.clone()))?
                } else {
                    Candidate {
                        kind: PartyKind::Outside,
                        node: None,
                        addresses: Vec::new(),
                    }
                };
                // The flow uses this very address.
                candidate.addresses = vec![addr];
                Ok(candidate)
            }
        }
    }

    fn resolve_pod(&self, namespace: &str, name: &str) -> Result<Candidate, QueryError> {
        let key = (namespace.to_owned(), name.to_owned());
        let Some(index) = self.pod_index.get(&key) else {
            let (namespace, name) = key.clone();
            return Err(match self.ended.get(&key) {
                Some(phase) => QueryError::EndedPod {
                    namespace,
                    name,
                    phase: phase.clone(),
                },
                None => QueryError::UnknownPod { namespace, name },
            });
        };
        let pod = &self.pods[*index];
        if let Some((address, owner)) = &pod.lost
            && pod.addresses.is_empty()
        {
            return Err(QueryError::LostAddress {
                namespace: key.0,
                name: key.1,
                address: *address,
                owner: owner.clone(),
            });
        }
        Ok(self.candidate(pod))
    }

    fn candidate(&self, pod: &PodInfo) -> Candidate {
        let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
        let node = pod.node.clone();
        if !pod.host_network {
            return Candidate {
                kind: PartyKind::Pod { namespace, name },
                node,
                addresses: pod.addresses.clone(),
            };
        }
        let of_node = node.as_ref().and_then(|n| self.nodes.get(n));
        let addresses = match of_node {
            Some(addresses) if !addresses.is_empty() => addresses.clone(),
            _ => pod.addresses.clone(),
        };
        Candidate {
            kind: PartyKind::HostPod { namespace, name },
            node,
            addresses,
        }
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
}
