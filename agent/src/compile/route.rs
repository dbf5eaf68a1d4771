//! Native routing: from Node objects and the node's uplinks to routes, `NODE_CIDRS`, `NODE_ADDRS`
//! and the node file.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::core::v1::Node;
use weir_abi::{Addr, node::NodeCidr, policy::LpmKey};
use weir_api::node_file::NodeFile;
use weir_net::{
    IpNetwork,
    netlink::{Route, RouteKind},
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
}

impl NodeView {
    /// Reads a Node; what does not parse is a problem that names node and field.
    pub fn of(node: &Node, problems: &mut Vec<String>) -> Self {
        let name = node.metadata.name.clone().unwrap_or_default();
        let spec = node.spec.as_ref();
        let mut texts: Vec<String> = spec.and_then(|s| s.pod_cidrs.clone()).unwrap_or_default();
        if texts.is_empty() {
            texts.extend(spec.and_then(|s| s.pod_cidr.clone()));
        }
        let mut pod_cidrs = Vec::new();
        for text in texts {
            match text.parse::<IpNetwork>() {
                Ok(cidr) => pod_cidrs.push(masked(cidr)),
                Err(_) => problems.push(format!("Node {name}: spec.podCIDRs: {text:?} is no CIDR")),
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
            name,
            pod_cidrs,
            internal_ips,
        }
    }
}

/// What must be in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Of the main table, with [`PROTOCOL`].
    pub routes: Vec<Route>,
    /// Where the pods of each node are.
    pub node_cidrs: BTreeMap<LpmKey, NodeCidr>,
    /// This node's own addresses.
    pub node_addrs: BTreeSet<Addr>,
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
    /// The configured MTU of pods.
    pub mtu: Option<u32>,
}

/// Computes what must be in force.
pub fn compile(nodes: &[NodeView], facts: Facts<'_>) -> Desired {
    let mut desired = Desired::default();
    for uplink in facts.uplinks {
        desired
            .node_addrs
            .extend(uplink.addresses.iter().map(|a| Addr::from(a.ip())));
    }
    let mut own_known = false;
    for node in nodes {
        if node.name == facts.name {
            own_known = true;
            own_node(node, facts, &mut desired);
        } else {
            other_node(node, facts.uplinks, &mut desired);
        }
    }
    if !own_known {
        desired.problems.push(format!(
            "Node {}: not known to the source: pods cannot be added until it is (is --node-name right?)",
            facts.name
        ));
    }
    desired
}

fn own_node(node: &NodeView, facts: Facts<'_>, desired: &mut Desired) {
    desired
        .node_addrs
        .extend(node.internal_ips.iter().map(|ip| Addr::from(*ip)));
    for cidr in &node.pod_cidrs {
        desired.node_cidrs.insert(
            key(*cidr),
            NodeCidr {
                node: 0,
                ifindex: 0,
            },
        );
        // What is no pod of this node goes nowhere, instead of round between us and a router.
        let mut refuse = Route::to(*cidr);
        refuse.kind = RouteKind::Unreachable;
        refuse.protocol = PROTOCOL;
        desired.routes.push(refuse);
    }
    let mtu = facts
        .mtu
        .or_else(|| facts.uplinks.iter().map(|u| u.mtu).min());
    match (node.pod_cidrs.is_empty(), mtu) {
        (true, _) => desired.problems.push(format!(
            "Node {}: spec.podCIDRs is empty: give the node a pod CIDR, or set ipam.ranges in the CNI configuration",
            node.name
        )),
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

fn other_node(node: &NodeView, uplinks: &[Uplink], desired: &mut Desired) {
    for cidr in &node.pod_cidrs {
        let hop = node
            .internal_ips
            .iter()
            .find(|ip| ip.is_ipv4() == cidr.is_ipv4());
        let uplink = hop.and_then(|hop| {
            uplinks
                .iter()
                .find(|u| u.addresses.iter().any(|subnet| subnet.contains(*hop)))
        });
        let ifindex = uplink.map_or(0, |u| u.index);
        desired.node_cidrs.insert(
            key(*cidr),
            NodeCidr {
                node: number(&node.name),
                ifindex,
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
fn number(name: &str) -> u32 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
    });
    hash.max(1)
}

fn masked(cidr: IpNetwork) -> IpNetwork {
    IpNetwork::new(cidr.network(), cidr.prefix()).unwrap_or(cidr)
}

fn key(cidr: IpNetwork) -> LpmKey {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn node(name: &str, cidrs: &[&str], ips: &[&str]) -> NodeView {
        NodeView {
            name: name.into(),
            pod_cidrs: cidrs.iter().map(|c| net(c)).collect(),
            internal_ips: ips.iter().map(|i| i.parse().unwrap()).collect(),
        }
    }

    fn uplink() -> Uplink {
        Uplink {
            index: 2,
            name: "eth0".into(),
            mtu: 1450,
            addresses: vec![net("192.0.2.1/24"), net("2001:db8::1/64")],
        }
    }

    fn two() -> Vec<NodeView> {
        vec![
            node(
                "n1",
                &["10.0.1.0/24", "fd00:1::/64"],
                &["192.0.2.1", "2001:db8::1"],
            ),
            node(
                "n2",
                &["10.0.2.0/24", "fd00:2::/64"],
                &["192.0.2.2", "2001:db8::2"],
            ),
        ]
    }

    fn compiled(nodes: &[NodeView]) -> Desired {
        compile(
            nodes,
            Facts {
                name: "n1",
                uplinks: &[uplink()],
                mtu: None,
            },
        )
    }

    fn hops(desired: &Desired) -> Vec<String> {
        desired
            .routes
            .iter()
            .map(|r| format!("{r} {:?}", r.kind))
            .collect()
    }

    #[test]
    fn another_nodes_cidrs_are_routed_by_its_address_of_the_same_family() {
        let desired = compiled(&two());
        assert_eq!(
            hops(&desired),
            [
                "route 10.0.1.0/24 Unreachable",
                "route fd00:1::/64 Unreachable",
                "route 10.0.2.0/24 via 192.0.2.2 dev #2 Unicast",
                "route fd00:2::/64 via 2001:db8::2 dev #2 Unicast",
            ]
        );
        assert!(desired.routes.iter().all(|r| r.protocol == PROTOCOL));
        let cidr = |text| desired.node_cidrs[&key(net(text))];
        assert_eq!(
            cidr("10.0.1.0/24"),
            NodeCidr {
                node: 0,
                ifindex: 0
            }
        );
        assert_eq!(cidr("fd00:2::/64").ifindex, 2);
        assert_ne!(cidr("fd00:2::/64").node, 0);
        assert!(desired.problems.is_empty(), "{:?}", desired.problems);
    }

    #[test]
    fn own_addresses_are_those_of_the_object_and_of_the_uplinks() {
        let mut nodes = two();
        nodes[0].internal_ips.push("198.51.100.7".parse().unwrap());
        let addresses: Vec<String> = compiled(&nodes)
            .node_addrs
            .iter()
            .map(|a| a.to_ip().to_string())
            .collect();
        for own in ["192.0.2.1", "2001:db8::1", "198.51.100.7"] {
            assert!(addresses.contains(&own.to_owned()), "{addresses:?}");
        }
        assert_eq!(addresses.len(), 3);
    }

    #[test]
    fn the_node_file_takes_the_uplinks_mtu_unless_one_is_configured() {
        let file = compiled(&two()).file.unwrap();
        assert_eq!(file.mtu, 1450);
        assert_eq!(file.pod_cidrs, [net("10.0.1.0/24"), net("fd00:1::/64")]);
        let facts = Facts {
            name: "n1",
            uplinks: &[uplink()],
            mtu: Some(1400),
        };
        assert_eq!(compile(&two(), facts).file.unwrap().mtu, 1400);
    }

    #[test]
    fn an_unknown_own_node_gives_no_file_and_says_so() {
        let desired = compiled(&two()[1..]);
        assert_eq!(desired.file, None);
        assert!(
            desired.problems[0].contains("--node-name"),
            "{:?}",
            desired.problems
        );
    }

    #[test]
    fn a_node_that_cannot_be_routed_to_is_named_and_still_known_as_a_place_of_pods() {
        let nodes = [
            &two()[..1],
            &[node(
                "n3",
                &["10.0.3.0/24", "fd00:3::/64"],
                &["203.0.113.3"],
            )],
        ]
        .concat();
        let desired = compiled(&nodes);
        assert_eq!(desired.routes.len(), 2);
        assert_eq!(desired.node_cidrs[&key(net("10.0.3.0/24"))].ifindex, 0);
        let problems = desired.problems.join("\n");
        assert!(
            problems.contains("203.0.113.3") && problems.contains("fd00:3::/64"),
            "{problems}"
        );
    }

    #[test]
    fn only_routes_that_differ_are_written_and_only_ours_are_removed() {
        let desired = compiled(&two()).routes;
        assert_eq!(diff_routes(&desired, &desired), RouteChange::default());
        let mut foreign = Route::to(net("10.0.9.0/24")).via(2, "192.0.2.9".parse().unwrap());
        let mut actual = desired.clone();
        actual.push(foreign.clone());
        assert_eq!(diff_routes(&actual, &desired), RouteChange::default());
        foreign.protocol = PROTOCOL;
        *actual.last_mut().unwrap() = foreign.clone();
        actual[2].gateway = Some("192.0.2.99".parse().unwrap());
        let change = diff_routes(&actual, &desired);
        assert_eq!(change.replace, [desired[2].clone()]);
        assert_eq!(change.remove, [actual[2].clone(), foreign]);
    }

    #[test]
    fn a_malformed_node_is_named_with_its_field_and_the_rest_of_it_counts() {
        let node: Node = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "n9"},
            "spec": {"podCIDRs": ["10.0.9.7/24", "nonsense"]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "x"},
                {"type": "InternalIP", "address": "192.0.2.9"},
                {"type": "Hostname", "address": "n9"},
            ]},
        }))
        .unwrap();
        let mut problems = Vec::new();
        let view = NodeView::of(&node, &mut problems);
        assert_eq!(view.pod_cidrs, [net("10.0.9.0/24")]);
        assert_eq!(view.internal_ips, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(problems.len(), 2);
        assert!(
            problems[0].contains("n9") && problems[0].contains("podCIDRs"),
            "{problems:?}"
        );
        assert!(problems[1].contains("status.addresses"), "{problems:?}");
    }
}
