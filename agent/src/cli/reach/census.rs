//! Everyone who can be an end of a flow, in one or more worlds: pods, nodes, and addresses outside
//! of which policies can tell.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::cli::world::World;
use crate::space::Block;
use crate::verify::objects::{blocks, is_live, pod_cidrs};

/// Who an end is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(in super::super) enum Kind {
    /// A pod; the slot it is compiled in.
    Pod(u32),
    /// A node at one address of each family.
    Node,
    /// Addresses of no pod and no node.
    Outside,
}

/// One end.
#[derive(Clone, Debug)]
pub(in super::super) struct Party<'a> {
    pub kind: Kind,
    /// Empty, if it has none.
    pub namespace: String,
    /// Of a pod the object's name, of a node the same; else what it stands for.
    pub name: String,
    /// What it is in each world.
    pub faces: Vec<Face<'a>>,
}

/// What a party is in one world.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Face<'a> {
    /// Its IPv4 and its IPv6 address.
    pub addresses: [Option<IpAddr>; 2],
    /// Whether they are made up, as the objects have none.
    pub made_up: bool,
    /// Of a pod: where it runs.
    pub node: Option<String>,
    /// The Pod.
    pub pod: Option<&'a Pod>,
}

impl Party<'_> {
    /// `shop/web-0`, `node:n1`, `203.0.113.0/24`.
    pub fn label(&self) -> String {
        match self.kind {
            Kind::Pod(_) => format!("{}/{}", self.namespace, self.name),
            Kind::Node => format!("node:{}", self.name),
            Kind::Outside => self.name.clone(),
        }
    }
}

/// All parties of some worlds: pods by name, nodes, and who is outside.
#[derive(Debug, Default)]
pub(in super::super) struct Census<'a> {
    pub parties: Vec<Party<'a>>,
    /// Pods that are in some of the worlds only, by world.
    pub only_in: Vec<Vec<String>>,
    /// How many pods have no address in the objects, and got one that no policy names.
    pub without_address: usize,
}

/// (namespace, name).
type Name = (String, String);

impl<'a> Census<'a> {
    pub fn of(worlds: &[&'a World]) -> Self {
        let mut census = Self::default();
        let pods: Vec<BTreeMap<Name, Face<'_>>> =
            worlds.iter().map(|world| live_pods(world)).collect();
        let names: BTreeSet<&Name> = pods.iter().flat_map(BTreeMap::keys).collect();
        census.only_in = vec![Vec::new(); worlds.len()];
        let mut slot = 0;
        for name in names {
            let faces: Vec<Option<&Face<'_>>> = pods.iter().map(|pods| pods.get(name)).collect();
            if faces.iter().any(Option::is_none) {
                let label = format!("{}/{}", name.0, name.1);
                let here = faces.iter().enumerate().filter(|(_, face)| face.is_some());
                here.for_each(|(world, _)| census.only_in[world].push(label.clone()));
                continue;
            }
            let mut faces: Vec<Face<'_>> = faces.into_iter().flatten().cloned().collect();
            let mut made_up = false;
            for face in &mut faces {
                if face.addresses == [None, None] {
                    face.addresses = reserved(slot);
                    face.made_up = true;
                    made_up = true;
                }
            }
            census.without_address += usize::from(made_up);
            census.parties.push(Party {
                kind: Kind::Pod(slot),
                namespace: name.0.clone(),
                name: name.1.clone(),
                faces,
            });
            slot += 1;
        }
        census.add_nodes(worlds);
        census.add_outside(worlds);
        census
    }

    /// What is to be said of pods without an address.
    pub fn made_up_note(&self) -> Option<String> {
        let (noun, verb) = match self.without_address {
            0 => return None,
            1 => ("pod has", "it is"),
            _ => ("pods have", "they are"),
        };
        Some(format!(
            "note: {} {noun} no status.podIPs: {verb} judged as if no ipBlock but a whole family \
             held {}",
            self.without_address,
            if self.without_address == 1 {
                "it"
            } else {
                "them"
            }
        ))
    }

    fn add_nodes(&mut self, worlds: &[&World]) {
        let nodes: Vec<BTreeMap<String, Vec<IpAddr>>> =
            worlds.iter().map(|world| node_addresses(world)).collect();
        let Some(first) = nodes.first() else { return };
        for name in first.keys() {
            let Some(lists) = nodes
                .iter()
                .map(|n| n.get(name))
                .collect::<Option<Vec<_>>>()
            else {
                continue;
            };
            // A node with two addresses of one family is two parties: blocks may tell them apart.
            let of = |list: &[IpAddr], v4: bool| {
                let found = list.iter().filter(|a| a.is_ipv4() == v4).copied();
                found.collect::<Vec<_>>()
            };
            let most = |list: &&Vec<IpAddr>| of(list, true).len().max(of(list, false).len());
            for nth in 0..lists.iter().map(most).max().unwrap_or(0) {
                let face = |list: &&Vec<IpAddr>| Face {
                    addresses: [true, false].map(|v4| of(list, v4).get(nth).copied()),
                    ..Face::default()
                };
                self.parties.push(Party {
                    kind: Kind::Node,
                    namespace: String::new(),
                    name: name.clone(),
                    faces: lists.iter().map(face).collect(),
                });
            }
        }
    }

    /// An address of each block that policies name, and of what is in none of them.
    fn add_outside(&mut self, worlds: &[&World]) {
        let named: BTreeSet<Block> = worlds.iter().flat_map(|w| blocks(&w.cluster)).collect();
        // What is someone's, or a pod's that is not known, is not outside.
        let mut taken = named.clone();
        for world in worlds {
            taken.extend(pod_cidrs(&world.cluster));
        }
        let addresses = self.parties.iter().flat_map(|p| &p.faces);
        let addresses = addresses.flat_map(|face| face.addresses.into_iter().flatten());
        taken.extend(addresses.map(Block::host));
        let party = |name: String, addresses| Party {
            kind: Kind::Outside,
            namespace: String::new(),
            name,
            faces: vec![
                Face {
                    addresses,
                    ..Face::default()
                };
                worlds.len()
            ],
        };
        let family = |block: &Block, addr| {
            if block.is_v6() {
                [None, Some(addr)]
            } else {
                [Some(addr), None]
            }
        };
        // Only ClusterNetworkPolicies tell a pod that is not known from an address outside.
        if worlds
            .iter()
            .any(|world| !world.cluster.cluster_policies.is_empty())
        {
            let cidrs = worlds.iter().flat_map(|world| pod_cidrs(&world.cluster));
            for cidr in cidrs.collect::<BTreeSet<Block>>() {
                if let Some(addr) = cidr.free(&taken) {
                    let name = format!("an unknown pod in {cidr}");
                    self.parties.push(party(name, family(&cidr, addr)));
                }
            }
        }
        let elsewhere = [false, true].map(|v6| Block::everything(v6).free(&taken));
        self.parties.push(party("elsewhere".to_owned(), elsewhere));
        for block in named.iter().filter(|block| !block.is_everything()) {
            if let Some(addr) = block.free(&taken) {
                self.parties
                    .push(party(block.to_string(), family(block, addr)));
            }
        }
    }
}

/// Addresses that are no one's (RFC 1112 §4, RFC 6666), for a pod that has none.
fn reserved(slot: u32) -> [Option<IpAddr>; 2] {
    let v4 = Ipv4Addr::from(0xf000_0001_u32.saturating_add(slot));
    let v6 = Ipv6Addr::from((0x0100_u128 << 112) + 1 + u128::from(slot));
    [Some(v4.into()), Some(v6.into())]
}

fn name_of(pod: &Pod) -> Name {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let name = pod.metadata.name.clone().unwrap_or_default();
    (namespace.to_owned(), name)
}

fn addresses_of(pod: &Pod) -> Vec<IpAddr> {
    let status = pod.status.as_ref();
    let listed = status.iter().flat_map(|s| s.pod_ips.iter().flatten());
    let single = status.and_then(|s| s.pod_ip.as_deref());
    let texts = listed.map(|ip| ip.ip.as_str()).chain(single);
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// The pods with a network of their own. Of two with one address the newest has it, of equally new
/// ones the one whose name comes last; who is left without any is not there.
fn live_pods(world: &World) -> BTreeMap<Name, Face<'_>> {
    let pods = world.cluster.pods.iter().filter(|pod| is_live(pod));
    let pods: BTreeMap<Name, &Pod> = pods.map(|pod| (name_of(pod), pod)).collect();
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let mut owners: HashMap<IpAddr, &Pod> = HashMap::new();
    for pod in pods.values() {
        for addr in addresses_of(pod) {
            let owner = owners.entry(addr).or_insert(pod);
            if created(owner) <= created(pod) {
                *owner = pod;
            }
        }
    }
    let mut live = BTreeMap::new();
    for (name, pod) in pods {
        let all = addresses_of(pod);
        let owns = |addr: &IpAddr| owners.get(addr).is_some_and(|o| std::ptr::eq(*o, pod));
        let own: Vec<IpAddr> = all.iter().copied().filter(owns).collect();
        if own.is_empty() && !all.is_empty() {
            continue;
        }
        let face = Face {
            addresses: [true, false].map(|v4| own.iter().copied().find(|a| a.is_ipv4() == v4)),
            node: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
            pod: Some(pod),
            made_up: false,
        };
        live.insert(name, face);
    }
    live
}

fn node_addresses(world: &World) -> BTreeMap<String, Vec<IpAddr>> {
    let of = |node: &Node| {
        let listed = node
            .status
            .iter()
            .flat_map(|s| s.addresses.iter().flatten());
        let found = listed.filter_map(|a| a.address.parse().ok());
        let mut all: Vec<IpAddr> = Vec::new();
        for addr in found {
            if !all.contains(&addr) {
                all.push(addr);
            }
        }
        (node.metadata.name.clone().unwrap_or_default(), all)
    };
    world.cluster.nodes.iter().map(of).collect()
}
