//! Endpoints and addresses, sorted by what the maps and the evaluator can tell of them: what neither
//! can tell apart has to be looked at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use weir_abi::policy::{ClassId, GroupId};
use weir_oracle::{Cluster, End, Evaluator, Party, PartyKind};
use weir_policy::Direction;

use super::objects::{blocks, named_ports, pod_cidrs};
use super::tables::Tables;
use crate::space::Block;

/// Whose an endpoint is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Whose {
    /// A Pod's: namespace and name.
    Pod(String, String),
    /// No Kubernetes pod's: no policy selects it.
    Nobody,
    /// Whoever has its address by the objects.
    ByAddress,
    /// A Pod's that is not in the objects any more, or another of the same name: the endpoint keeps
    /// the policy that it had, of which the objects tell nothing.
    Gone(String, String),
}

/// A pod's attachment on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its index in `POLICY_SLOTS`.
    pub slot: u32,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whose it is.
    pub whose: Whose,
}

/// What the evaluator can tell of a pod.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct PodFacts {
    namespace: String,
    labels: BTreeMap<String, String>,
    ports: Vec<(Option<String>, u8, u16)>,
}

/// What can be told of an endpoint: its groups, whether it has IPv4 and IPv6, its pod.
type SubjectFacts = ([GroupId; 2], [bool; 2], Option<PodFacts>);

/// What it can tell of an address.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct PeerFacts {
    v6: bool,
    class: ClassId,
    pod: Option<PodFacts>,
    /// A node's labels, and whether the endpoints run on it.
    node: Option<(BTreeMap<String, String>, bool)>,
    /// Whether it is in a node's pod CIDR.
    of_pods: bool,
    /// The blocks of policies that hold it, by number.
    blocks: Vec<u32>,
}

/// Endpoints that are alike.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// The first of them.
    pub endpoint: Endpoint,
    /// Its pod, if there is one behind it.
    pub pod: Option<(String, String)>,
    /// `shop/db`.
    pub label: String,
    /// How many there are.
    pub alike: usize,
}

impl Subject {
    /// As the evaluator is asked about it, whose address of that family is `own`. The Pod need not have
    /// addresses in the objects yet.
    pub fn end(&self, own: IpAddr) -> End {
        match &self.pod {
            None => End::Address(own),
            Some((namespace, name)) => End::Pod {
                namespace: namespace.clone(),
                name: name.clone(),
            },
        }
    }
}

/// Addresses that are alike.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The first two: one of them may be the endpoint's own.
    pub addresses: Vec<IpAddr>,
    pub alike: usize,
}

/// Reads the objects for facts.
pub(super) struct Facts<'a> {
    evaluator: &'a Evaluator<'a>,
    pods: HashMap<(&'a str, &'a str), &'a Pod>,
    nodes: HashMap<&'a str, BTreeMap<String, String>>,
    blocks: Vec<Block>,
    pod_cidrs: BTreeSet<Block>,
}

impl<'a> Facts<'a> {
    pub fn new(cluster: &'a Cluster, evaluator: &'a Evaluator<'a>) -> Self {
        let pods = cluster.pods.iter().map(|pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            ((namespace, name), pod)
        });
        let nodes = cluster.nodes.iter().filter_map(|node| {
            let labels = node.metadata.labels.clone().unwrap_or_default();
            Some((node.metadata.name.as_deref()?, labels))
        });
        Self {
            evaluator,
            pods: pods.collect(),
            nodes: nodes.collect(),
            blocks: blocks(cluster).into_iter().collect(),
            pod_cidrs: pod_cidrs(cluster),
        }
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<PodFacts> {
        let pod = self.pods.get(&(namespace, name))?;
        let ports = named_ports(pod).into_iter();
        Some(PodFacts {
            namespace: namespace.to_owned(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            ports: ports
                .map(|(name, p, n)| (name.map(str::to_owned), p, n))
                .collect(),
        })
    }

    /// The pod of an endpoint; none if no pod stands behind it, an error if it cannot be judged.
    pub fn pod_of(&self, endpoint: &Endpoint) -> Result<Option<(String, String)>, String> {
        let first = endpoint.addresses.first().map(ToString::to_string);
        let place = first.unwrap_or_else(|| format!("slot {}", endpoint.slot));
        match &endpoint.whose {
            Whose::Nobody => Ok(None),
            Whose::Gone(namespace, name) => Err(format!(
                "{namespace}/{name} ({place}): its Pod is not in the objects any more"
            )),
            Whose::Pod(namespace, name) => {
                if !self.pods.contains_key(&(namespace.as_str(), name.as_str())) {
                    return Err(format!(
                        "{namespace}/{name} ({place}): no such Pod in the objects"
                    ));
                }
                Ok(Some((namespace.clone(), name.clone())))
            }
            Whose::ByAddress => {
                let parties = endpoint
                    .addresses
                    .iter()
                    .map(|a| self.evaluator.who(*a).kind);
                let pods = parties.filter_map(|kind| match kind {
                    PartyKind::Pod { namespace, name } => Some((namespace, name)),
                    PartyKind::HostPod { .. }
                    | PartyKind::Node
                    | PartyKind::UnknownPod
                    | PartyKind::Outside => None,
                });
                let pod = pods.into_iter().next();
                pod.map(Some)
                    .ok_or_else(|| format!("{place}: no Pod in the objects has this address"))
            }
        }
    }

    /// Endpoints that are alike together, in the order of their slots; and why some are not judged.
    pub fn subjects(&self, endpoints: &[Endpoint], tables: &Tables) -> (Vec<Subject>, Vec<String>) {
        let mut known: HashMap<SubjectFacts, usize> = HashMap::new();
        let mut subjects: Vec<Subject> = Vec::new();
        let mut unjudged = Vec::new();
        for endpoint in endpoints {
            let pod = match self.pod_of(endpoint) {
                Ok(pod) => pod,
                Err(why) => {
                    unjudged.push(why);
                    continue;
                }
            };
            let groups = Direction::ALL.map(|d| tables.group(endpoint.slot, d));
            let has = |v6| endpoint.addresses.iter().any(|a| a.is_ipv6() == v6);
            let facts = pod.as_ref().and_then(|(ns, name)| self.pod(ns, name));
            let key = (groups, [has(false), has(true)], facts);
            if let Some(known) = known.get(&key) {
                subjects[*known].alike += 1;
                continue;
            }
            known.insert(key, subjects.len());
            let label = match &pod {
                Some((namespace, name)) => format!("{namespace}/{name}"),
                None => format!("slot {}, no Kubernetes pod", endpoint.slot),
            };
            subjects.push(Subject {
                endpoint: endpoint.clone(),
                label,
                pod,
                alike: 1,
            });
        }
        (subjects, unjudged)
    }

    /// Addresses that are alike together: those in `PEERS`, one in each prefix, all that the objects
    /// know, and one elsewhere. `node` is the one that the endpoints run on.
    pub fn peers(&self, tables: &Tables, node: Option<&str>) -> Vec<Peer> {
        let mut addresses: BTreeSet<IpAddr> = tables.peers().collect();
        addresses.extend(self.evaluator.known_addresses());
        let prefixes: BTreeSet<Block> = tables.blocks().collect();
        let mut taken = prefixes.clone();
        taken.extend(self.blocks.iter().copied());
        taken.extend(addresses.iter().copied().map(Block::host));
        taken.extend(&self.pod_cidrs);
        let everything = [false, true].map(Block::everything);
        // A block of the objects is looked at whether the maps have it or not.
        let all: BTreeSet<Block> = prefixes
            .into_iter()
            .chain(self.blocks.iter().copied())
            .chain(self.pod_cidrs.iter().copied())
            .chain(everything)
            .collect();
        addresses.extend(all.iter().filter_map(|block| block.free(&taken)));
        let mut known: HashMap<PeerFacts, usize> = HashMap::new();
        let mut peers: Vec<Peer> = Vec::new();
        for addr in addresses {
            let facts = self.facts(addr, tables.class(addr), node);
            match known.get(&facts) {
                Some(number) => {
                    let peer = &mut peers[*number];
                    peer.alike += 1;
                    if peer.addresses.len() < 2 {
                        peer.addresses.push(addr);
                    }
                }
                None => {
                    known.insert(facts, peers.len());
                    peers.push(Peer {
                        addresses: vec![addr],
                        alike: 1,
                    });
                }
            }
        }
        peers
    }

    fn facts(&self, addr: IpAddr, class: ClassId, here: Option<&str>) -> PeerFacts {
        let Party { kind, node, .. } = self.evaluator.who(addr);
        let node = node.as_deref();
        let (pod, node) = match &kind {
            PartyKind::Pod { namespace, name } => (self.pod(namespace, name), None),
            PartyKind::HostPod { .. } | PartyKind::Node => {
                let labels = node.and_then(|n| self.nodes.get(n)).cloned();
                (None, Some((labels.unwrap_or_default(), node == here)))
            }
            PartyKind::UnknownPod | PartyKind::Outside => (None, None),
        };
        let blocks = (0..)
            .zip(&self.blocks)
            .filter(|(_, block)| block.holds(addr));
        PeerFacts {
            v6: addr.is_ipv6(),
            class,
            pod,
            node,
            of_pods: self.pod_cidrs.iter().any(|cidr| cidr.holds(addr)),
            blocks: blocks.map(|(number, _)| number).collect(),
        }
    }
}
