//! Routing between nodes: from Node objects and the node's uplinks to routes, `NODE_CIDRS`, `NODE_ADDRS`,
//! `UPLINKS` and the node file.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::Node;
use weir_abi::{
    Addr,
    node::{NodeAddr, NodeCidr, UplinkInfo, node_addr, node_cidr},
    policy::LpmKey,
};
use weir_api::node_file::NodeFile;
use weir_net::{
    IpNetwork, PublicKey,
    netlink::{Route, RouteKind, WireguardPeer},
};

use super::{
    node_cidr::Pools,
    node_port::NodePortAddresses,
    overlay::{self, Overlay},
    wireguard,
};
use crate::node::Uplink;

/// Marks the routes that are ours (`rtm_protocol`; 87 is `W`, and nobody's in linux/rtnetlink.h).
pub const PROTOCOL: u8 = 87;

/// What a Node object says that matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// `spec.podCIDRs`, or `spec.podCIDR`.
    pub pod_cidrs: Vec<IpNetwork>,
    /// `status.addresses` of type `InternalIP`.
    pub internal_ips: Vec<IpAddr>,
    /// What its annotation says ([`wireguard::KEY_ANNOTATION`]).
    pub wireguard_key: Option<PublicKey>,
}

impl NodeView {
    /// Reads a Node; what does not parse is a problem that names node and field.
    pub fn of(node: &Node, problems: &mut Vec<String>) -> Self {
        let name = node.metadata.name.clone().unwrap_or_default();
        let mut pod_cidrs = Vec::new();
        for cidr in pod_cidrs_of(node) {
            match cidr {
                Ok(cidr) => pod_cidrs.push(cidr),
                Err(text) => {
                    problems.push(format!("Node {name}: spec.podCIDRs: {text:?} is no CIDR"))
                }
            }
        }
        let addresses = node
            .status
            .as_ref()
            .and_then(|s| s.addresses.clone())
            .unwrap_or_default();
        let mut internal_ips = Vec::new();
        for address in addresses.iter().filter(|a| a.type_ == "InternalIP") {
            match address.address.parse() {
                Ok(ip) => internal_ips.push(ip),
                Err(_) => problems.push(format!(
                    "Node {name}: status.addresses: {:?} is no IP address",
                    address.address
                )),
            }
        }
        Self {
            wireguard_key: wireguard::key_of(node, &name, problems),
            name,
            pod_cidrs,
            internal_ips,
        }
    }
}

/// A Node's `spec.podCIDRs`, or its `spec.podCIDR`, with host bits masked; what is none is given as
/// written.
pub(super) fn pod_cidrs_of(node: &Node) -> Vec<Result<IpNetwork, String>> {
    let spec = node.spec.as_ref();
    let mut texts: Vec<String> = spec.and_then(|s| s.pod_cidrs.clone()).unwrap_or_default();
    if texts.is_empty() {
        texts.extend(spec.and_then(|s| s.pod_cidr.clone()));
    }
    let parsed = texts.into_iter().filter(|text| !text.is_empty());
    parsed
        .map(|text| text.parse().map(masked).map_err(|_| text))
        .collect()
}

/// What must be in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Of the main table, with [`PROTOCOL`].
    pub routes: Vec<Route>,
    /// Where the pods of each node are.
    pub node_cidrs: BTreeMap<LpmKey, NodeCidr>,
    /// This node's own addresses, and which of them serve NodePorts.
    pub node_addrs: BTreeMap<Addr, NodeAddr>,
    /// By interface index, the source of what the node translates.
    pub uplinks: BTreeMap<u32, UplinkInfo>,
    /// With whom traffic is encrypted.
    pub peers: BTreeMap<PublicKey, WireguardPeer>,
    /// For the plugin; `None` while the node is not known, or has no pod CIDR.
    pub file: Option<NodeFile>,
    /// What is wrong, by object.
    pub problems: Vec<String>,
}

/// Facts beside the Node objects.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// This node's name.
    pub name: &'a str,
    /// Its uplinks.
    pub uplinks: &'a [Uplink],
    /// The addresses of all its devices.
    pub addresses: &'a [IpAddr],
    /// The configured MTU of pods.
    pub mtu: Option<u32>,
    /// Which addresses serve NodePorts.
    pub node_ports: &'a NodePortAddresses,
    /// What Weir gives to Nodes without pod CIDRs.
    pub pools: &'a Pools,
    /// The overlay.
    pub overlay: Overlay,
    /// What pods reach from their own addresses, although it is outside the cluster.
    pub non_masquerade: &'a [IpNetwork],
}

/// Computes what must be in force.
pub fn compile(nodes: &[NodeView], facts: Facts<'_>) -> Desired {
    let own = nodes.iter().find(|node| node.name == facts.name);
    let internal = own.map_or(&[][..], |node| &node.internal_ips);
    let mut desired = Desired {
        node_addrs: own_addresses(facts, internal),
        uplinks: facts
            .uplinks
            .iter()
            .map(|uplink| (uplink.index, uplink_info(uplink, facts, internal)))
            .collect(),
        ..Desired::default()
    };
    if let Some(device) = facts.overlay.device {
        let info = Overlay::uplink(internal);
        desired.uplinks.insert(device, info);
    }
    for node in nodes {
        if node.name == facts.name {
            own_node(node, facts, &mut desired);
        } else {
            other_node(node, facts, internal, &mut desired);
        }
    }
    wireguard::encrypt(nodes, facts, &mut desired);
    exclude(nodes, facts.non_masquerade, &mut desired);
    if own.is_none() {
        desired.problems.push(format!(
            "Node {}: not known to the source: pods cannot be added until it is (is --node-name right?)",
            facts.name
        ));
    }
    desired
}

/// Marks what is outside the cluster, and is reached from pods' own addresses. What is a node's own or in its
/// pods' prefixes is so anyway, and must be found as such.
fn exclude(nodes: &[NodeView], prefixes: &[IpNetwork], desired: &mut Desired) {
    let pods: Vec<IpNetwork> = nodes.iter().flat_map(|n| n.pod_cidrs.clone()).collect();
    let external = NodeCidr {
        flags: node_cidr::EXTERNAL,
        ..NodeCidr::default()
    };
    for prefix in prefixes {
        let within =
            |pods: &IpNetwork| pods.prefix() <= prefix.prefix() && pods.contains(prefix.network());
        if !pods.iter().any(within) {
            desired.node_cidrs.entry(key(*prefix)).or_insert(external);
        }
    }
}

/// Those of all devices and of the Node object, with their flags.
fn own_addresses(facts: Facts<'_>, internal: &[IpAddr]) -> BTreeMap<Addr, NodeAddr> {
    let uplinks = facts.uplinks.iter().flat_map(|uplink| &uplink.addresses);
    let all = uplinks.map(|network| network.ip());
    let all = all.chain(facts.addresses.iter().chain(internal).copied());
    all.map(|ip| {
        let flags = if facts.node_ports.serve(ip, internal) {
            node_addr::NODE_PORTS
        } else {
            0
        };
        (Addr::from(ip), NodeAddr { flags })
    })
    .collect()
}

/// The node's address of each family on an uplink: its InternalIP if that is there, else the first.
/// An uplink without any speaks from the InternalIP of another device (unnumbered links, where the
/// node's address is on the loopback).
fn uplink_info(uplink: &Uplink, facts: Facts<'_>, internal: &[IpAddr]) -> UplinkInfo {
    let pick = |v4: bool| {
        let of_family = |ip: &&IpAddr| ip.is_ipv4() == v4;
        let on = |ip: &&IpAddr| uplink.sources.contains(ip);
        let elsewhere = |ip: &&IpAddr| facts.addresses.contains(ip);
        let mut own = internal.iter().filter(of_family);
        let picked = own
            .clone()
            .find(on)
            .or_else(|| uplink.sources.iter().find(of_family))
            .or_else(|| own.find(elsewhere));
        picked.map_or_else(Addr::default, |ip| Addr::from(*ip))
    };
    UplinkInfo {
        addr4: pick(true),
        addr6: pick(false),
        mac: uplink.mac.map_or([0; 6], |mac| mac.0),
        flags: 0,
    }
}

fn own_node(node: &NodeView, facts: Facts<'_>, desired: &mut Desired) {
    for cidr in &node.pod_cidrs {
        desired.node_cidrs.insert(key(*cidr), NodeCidr::default());
        // What is no pod of this node goes nowhere, instead of round between us and a router.
        let mut refuse = Route::to(*cidr);
        refuse.kind = RouteKind::Unreachable;
        refuse.protocol = PROTOCOL;
        desired.routes.push(refuse);
    }
    let packed = |mtu| facts.overlay.mtu(mtu, &node.internal_ips);
    let narrowest = facts.uplinks.iter().map(|u| u.mtu).min();
    let mtu = facts.mtu.or_else(|| narrowest.map(packed));
    match (node.pod_cidrs.is_empty(), mtu) {
        (true, _) => desired.problems.push(without_cidr(&node.name, facts.pools)),
        (false, None) => desired.problems.push(format!(
            "Node {}: no uplink: give --uplinks, or --mtu where there is none",
            node.name
        )),
        (false, Some(mtu)) => {
            desired.file = Some(NodeFile {
                version: NodeFile::VERSION,
                pod_cidrs: node.pod_cidrs.clone(),
                mtu,
            });
        }
    }
}

/// What to say of a node without pod CIDRs.
fn without_cidr(name: &str, pools: &Pools) -> String {
    if pools.is_empty() {
        return format!(
            "Node {name}: spec.podCIDRs is empty: give the node a pod CIDR, or --cluster-cidr where nothing else does, or set ipam.ranges in the CNI configuration"
        );
    }
    let ranges: Vec<String> = pools.iter().map(ToString::to_string).collect();
    format!(
        "Node {name}: spec.podCIDRs is empty: pods can be added once the agent that holds the Lease has given the node its part of --cluster-cidr {}; if that takes long, ask that agent for its status",
        ranges.join(",")
    )
}

/// The uplink in whose subnet an address is.
fn uplink_of<'a>(uplinks: &'a [Uplink], ip: &IpAddr) -> Option<&'a Uplink> {
    let has = |uplink: &&Uplink| uplink.addresses.iter().any(|subnet| subnet.contains(*ip));
    uplinks.iter().find(has)
}

fn other_node(node: &NodeView, facts: Facts<'_>, internal: &[IpAddr], desired: &mut Desired) {
    let end = overlay::end(internal, &node.internal_ips);
    let on_link = end.is_some_and(|end| uplink_of(facts.uplinks, &end).is_some());
    if facts.overlay.packs(on_link) {
        match end {
            Some(end) => packed_node(node, end, facts, internal, desired),
            None => desired.problems.push(format!(
                "Node {}: no InternalIP of a family that this node has one of as well: no tunnel reaches it",
                node.name
            )),
        }
    } else {
        routed_node(node, facts.uplinks, desired);
    }
}

/// A node that is reached by the overlay, whose tunnel ends at `end`.
fn packed_node(
    node: &NodeView,
    end: IpAddr,
    facts: Facts<'_>,
    internal: &[IpAddr],
    desired: &mut Desired,
) {
    let own = NodeCidr {
        node: number(&node.name),
        tunnel: end.into(),
        ..NodeCidr::default()
    };
    for ip in &node.internal_ips {
        desired.node_cidrs.insert(LpmKey::host((*ip).into()), own);
    }
    let Some(device) = facts.overlay.device else {
        // That it cannot be made is said elsewhere.
        return;
    };
    for cidr in &node.pod_cidrs {
        let pods = NodeCidr {
            ifindex: device,
            flags: node_cidr::OVERLAY,
            ..own
        };
        desired.node_cidrs.insert(key(*cidr), pods);
        let mut route = Route::to(*cidr).on_link(device);
        // The other node knows this one's packets by it.
        route.source = internal
            .iter()
            .copied()
            .find(|ip| ip.is_ipv4() == cidr.is_ipv4() && has_address(facts, ip));
        route.protocol = PROTOCOL;
        desired.routes.push(route);
    }
}

/// Whether an address is on a device of this node: the kernel takes no other for a route's source.
fn has_address(facts: Facts<'_>, ip: &IpAddr) -> bool {
    let on = |uplink: &Uplink| uplink.addresses.iter().any(|network| network.ip() == *ip);
    facts.addresses.contains(ip) || facts.uplinks.iter().any(on)
}

fn routed_node(node: &NodeView, uplinks: &[Uplink], desired: &mut Desired) {
    let own = NodeCidr {
        node: number(&node.name),
        ..NodeCidr::default()
    };
    for ip in &node.internal_ips {
        desired.node_cidrs.insert(LpmKey::host((*ip).into()), own);
    }
    for cidr in &node.pod_cidrs {
        let hop = node
            .internal_ips
            .iter()
            .find(|ip| ip.is_ipv4() == cidr.is_ipv4());
        let uplink = hop.and_then(|hop| uplink_of(uplinks, hop));
        let ifindex = uplink.map_or(0, |u| u.index);
        desired.node_cidrs.insert(
            key(*cidr),
            NodeCidr {
                node: number(&node.name),
                ifindex,
                ..NodeCidr::default()
            },
        );
        match (hop, uplink) {
            (Some(hop), Some(uplink)) => {
                let mut route = Route::to(*cidr).via(uplink.index, *hop);
                route.protocol = PROTOCOL;
                desired.routes.push(route);
            }
            (Some(hop), None) => desired.problems.push(format!(
                "Node {}: its address {hop} is in no uplink's subnet: pods in {cidr} are reached only if the network routes them",
                node.name
            )),
            (None, _) => desired.problems.push(format!(
                "Node {}: no InternalIP of the family of its pod CIDR {cidr}: no route to it",
                node.name
            )),
        }
    }
}

/// A number for another node, never 0, the same on every start (FNV-1a of its name).
pub(super) fn number(name: &str) -> u32 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
    });
    hash.max(1)
}

fn masked(cidr: IpNetwork) -> IpNetwork {
    IpNetwork::new(cidr.network(), cidr.prefix()).unwrap_or(cidr)
}

pub(super) fn key(cidr: IpNetwork) -> LpmKey {
    LpmKey::prefix(cidr.network().into(), cidr.prefix())
}

/// Which routes to write and which to remove, by destination; ours are told by [`PROTOCOL`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteChange {
    /// To write, in the place of what is there.
    pub replace: Vec<Route>,
    /// To remove.
    pub remove: Vec<Route>,
}

/// Compares routes as they are with routes as they must be.
pub fn diff_routes(actual: &[Route], desired: &[Route]) -> RouteChange {
    let ours = || actual.iter().filter(|route| route.protocol == PROTOCOL);
    let same = |a: &Route, b: &Route| {
        a.destination == b.destination
            && a.kind == b.kind
            && a.gateway == b.gateway
            && a.source == b.source
            // IPv6 hangs unreachable routes on the loopback.
            && (a.index == b.index || a.kind != RouteKind::Unicast)
    };
    let replace = desired
        .iter()
        .filter(|want| !ours().any(|have| same(have, want)))
        .cloned()
        .collect();
    let wanted = |have: &Route| desired.iter().any(|want| same(have, want));
    let remove = ours().filter(|have| !wanted(have)).cloned().collect();
    RouteChange { replace, remove }
}
