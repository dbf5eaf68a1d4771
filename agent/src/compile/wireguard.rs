//! Encryption between nodes (`--encryption=wireguard`): from Node objects to peers, and what goes
//! nowhere for want of a key.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use k8s_openapi::api::core::v1::Node;
use weir_abi::node::{NodeCidr, node_cidr};
use weir_net::{
    IpNetwork, PublicKey,
    netlink::{PeerChange, Route, RouteKind, WireguardPeer},
};

use super::{
    overlay,
    route::{Desired, Facts, NodeView, PROTOCOL, key, number},
};

/// The annotation by which a Node says its public key.
pub const KEY_ANNOTATION: &str = "weir.dev/wireguard-public-key";

/// Metric of the routes that keep what is to be encrypted from leaving in the clear where the device is
/// gone: larger than that of every other route.
const SEAL: u32 = 87_000_000;

/// How packets between nodes are kept from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// They are not.
    #[default]
    None,
    /// Each node's pods are reached through WireGuard, whose peers listen at that UDP port.
    Wireguard(u16),
}

/// A Node's key as it stands in its annotation; what does not parse is a problem that names both.
pub(super) fn key_of(node: &Node, name: &str, problems: &mut Vec<String>) -> Option<PublicKey> {
    let annotations = node.metadata.annotations.as_ref()?;
    let text = annotations.get(KEY_ANNOTATION)?;
    let key = text.parse();
    if let Err(e) = &key {
        problems.push(format!("Node {name}: annotation {KEY_ANNOTATION}: {e}"));
    }
    key.ok()
}

/// Adds to what must be in force, where all other nodes are behind the tunnel already: peers, and what keeps
/// packets to nodes without a key from going out at all.
pub(super) fn encrypt(nodes: &[NodeView], facts: Facts<'_>, desired: &mut Desired) {
    let Encryption::Wireguard(port) = facts.overlay.encryption else {
        return;
    };
    let own = nodes.iter().find(|node| node.name == facts.name);
    let internal = own.map_or(&[][..], |node| &node.internal_ips);
    for node in nodes.iter().filter(|node| node.name != facts.name) {
        seal(node, desired);
        let end = overlay::end(internal, &node.internal_ips);
        let peer = end.zip(usable_key(node, nodes, desired));
        match peer {
            Some((end, key)) => {
                let peer = WireguardPeer {
                    endpoint: Some(SocketAddr::new(end, port)),
                    allowed: allowed(node),
                };
                desired.peers.insert(key, peer);
            }
            None => mark(node, facts.overlay.device.unwrap_or(0), desired),
        }
        if facts.overlay.device.is_none() {
            // That it cannot be made is said elsewhere.
            mark(node, 0, desired);
        }
    }
}

/// What a node may send from, and what is sent to it: its pods' addresses, and its own for what it
/// translates and its processes send.
fn allowed(node: &NodeView) -> BTreeSet<IpNetwork> {
    let own = node.internal_ips.iter().copied().map(IpNetwork::from);
    node.pod_cidrs.iter().copied().chain(own).collect()
}

/// A node's key, if it has one of its own; else why nothing is sent to it is a problem.
fn usable_key(node: &NodeView, nodes: &[NodeView], desired: &mut Desired) -> Option<PublicKey> {
    let name = &node.name;
    let Some(key) = node.wireguard_key else {
        desired.problems.push(format!(
            "Node {name}: has no WireGuard key (annotation {KEY_ANNOTATION}): nothing is sent to its pods until its agent, with --encryption=wireguard, has published one"
        ));
        return None;
    };
    let other = |other: &&NodeView| other.name != *name && other.wireguard_key == Some(key);
    if let Some(other) = nodes.iter().find(other) {
        desired.problems.push(format!(
            "Node {name}: has the WireGuard key of Node {}: nothing is sent to its pods; remove wireguard.key from the state directory of the one that was copied, and restart its agent",
            other.name
        ));
        return None;
    }
    Some(key)
}

/// Behind every route to a node's pods stands one that refuses: without the device there is no other
/// way.
fn seal(node: &NodeView, desired: &mut Desired) {
    for cidr in &node.pod_cidrs {
        let mut refuse = Route::to(*cidr);
        refuse.kind = RouteKind::Unreachable;
        refuse.priority = Some(SEAL);
        refuse.protocol = PROTOCOL;
        desired.routes.push(refuse);
    }
}

/// Packets to a node's pods are dropped, and counted.
fn mark(node: &NodeView, device: u32, desired: &mut Desired) {
    for cidr in &node.pod_cidrs {
        let pods = desired.node_cidrs.entry(key(*cidr)).or_insert(NodeCidr {
            node: number(&node.name),
            ifindex: device,
            flags: node_cidr::OVERLAY,
            ..NodeCidr::default()
        });
        pods.flags |= node_cidr::SEALED;
    }
}

/// What makes a device's peers the desired ones: only what differs, so that the sessions of the others
/// go on. Removals stand first, as an address is one peer's; before the source has synced there are none.
pub fn diff_peers(
    actual: &BTreeMap<PublicKey, WireguardPeer>,
    desired: &BTreeMap<PublicKey, WireguardPeer>,
    synced: bool,
) -> Vec<PeerChange> {
    let gone = actual
        .keys()
        .filter(|key| synced && !desired.contains_key(key));
    let mut changes: Vec<PeerChange> = gone.map(|key| PeerChange::Remove(*key)).collect();
    for (key, want) in desired {
        let have = actual.get(key);
        let moved = have.is_none_or(|have| have.endpoint != want.endpoint);
        let others = have.is_none_or(|have| have.allowed != want.allowed);
        if moved || others {
            changes.push(PeerChange::Set {
                key: *key,
                endpoint: want.endpoint.filter(|_| moved),
                allowed: others.then(|| want.allowed.clone()),
            });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> PublicKey {
        PublicKey::from_bytes([number; 32])
    }

    fn peer(endpoint: &str, allowed: &[&str]) -> WireguardPeer {
        WireguardPeer {
            endpoint: Some(endpoint.parse().unwrap()),
            allowed: allowed.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn peers_that_are_right_are_left_alone() {
        let peers = BTreeMap::from([(key(1), peer("192.0.2.1:7", &["10.0.1.0/24"]))]);
        assert!(diff_peers(&peers, &peers, true).is_empty());
        // An agent that has just started knows no node yet.
        assert!(diff_peers(&peers, &BTreeMap::new(), false).is_empty());
    }

    #[test]
    fn only_what_differs_of_a_peer_is_written_and_removals_come_first() {
        let actual = BTreeMap::from([
            (key(1), peer("192.0.2.1:7", &["10.0.1.0/24"])),
            (key(2), peer("192.0.2.2:7", &["10.0.2.0/24"])),
            (key(9), peer("192.0.2.9:7", &["10.0.3.0/24"])),
        ]);
        let desired = BTreeMap::from([
            (key(1), peer("192.0.2.11:7", &["10.0.1.0/24"])),
            (
                key(2),
                peer("192.0.2.2:7", &["10.0.2.0/24", "192.0.2.2/32"]),
            ),
            (key(3), peer("192.0.2.3:7", &["10.0.3.0/24"])),
        ]);
        let set = |number, endpoint: bool, allowed: bool| PeerChange::Set {
            key: key(number),
            endpoint: desired[&key(number)].endpoint.filter(|_| endpoint),
            allowed: allowed.then(|| desired[&key(number)].allowed.clone()),
        };
        assert_eq!(
            diff_peers(&actual, &desired, true),
            [
                PeerChange::Remove(key(9)),
                set(1, true, false),
                set(2, false, true),
                set(3, true, true),
            ]
        );
    }

    #[test]
    fn a_key_that_is_none_is_a_problem_that_names_node_and_annotation() {
        let node = |text: &str| Node {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                annotations: Some(BTreeMap::from([(KEY_ANNOTATION.into(), text.into())])),
                ..Default::default()
            },
            ..Node::default()
        };
        let mut problems = Vec::new();
        assert_eq!(
            key_of(&node(&key(5).to_string()), "n2", &mut problems),
            Some(key(5))
        );
        assert_eq!(key_of(&Node::default(), "n2", &mut problems), None);
        assert!(problems.is_empty());
        assert_eq!(key_of(&node("nonsense"), "n2", &mut problems), None);
        assert!(problems[0].contains("Node n2") && problems[0].contains(KEY_ANNOTATION));
    }
}
