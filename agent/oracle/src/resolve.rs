//! What the ends of a flow are.

use std::net::IpAddr;

use crate::cluster::Evaluator;
use crate::party::{End, Family, Party, PartyKind, QueryError};
use crate::pod::PodInfo;

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
            PartyKind::HostPod { .. }
            | PartyKind::Node
            | PartyKind::UnknownPod
            | PartyKind::Outside => None,
        }
    }

    /// The node whose pod CIDR holds the address.
    fn pod_cidr_of(&self, addr: IpAddr) -> Option<&str> {
        let mut nodes = self.node_objects.iter();
        let node = nodes.find(|(_, node)| node.pod_cidrs.iter().any(|c| c.contains(addr)));
        node.map(|(name, _)| name.as_str())
    }

    /// The node in whose pod CIDR the address lies, if no known pod and no Node has it.
    fn unknown_pod_of(&self, addr: IpAddr) -> Option<&str> {
        let mut nodes = self.node_objects.values();
        let is_known = self.pod_by_address.contains_key(&addr)
            || nodes.any(|node| node.addresses.contains(&addr));
        self.pod_cidr_of(addr).filter(|_| !is_known)
    }

    /// Whether the party is an address in a node's pod CIDR that no known pod and no Node has.
    pub(crate) fn is_unknown_pod(&self, party: &Party) -> bool {
        let address = party.address;
        address.is_some_and(|addr| self.unknown_pod_of(addr).is_some())
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
                } else if let Some(node) = self.unknown_pod_of(addr) {
                    Candidate {
                        kind: PartyKind::UnknownPod,
                        node: Some(node.to_owned()),
                        addresses: Vec::new(),
                    }
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
}
