//! Routes, prefixes and peers with encryption.

use super::{
    overlay::{by, routes},
    *,
};
use crate::compile::{
    overlay::Mode,
    wireguard::{Encryption, KEY_ANNOTATION},
};

const DEVICE: u32 = 9;
const PORT: u16 = 51820;

fn with(device: Option<u32>, nodes: &[NodeView]) -> Desired {
    let overlay = Overlay {
        mode: Mode::Native,
        encryption: Encryption::Wireguard(PORT),
        device,
    };
    by(overlay, nodes)
}

fn public(number: u8) -> PublicKey {
    PublicKey::from_bytes([number; 32])
}

fn keyed() -> Vec<NodeView> {
    let mut nodes = two();
    for (node, number) in nodes.iter_mut().zip(1..) {
        node.wireguard_key = Some(public(number));
    }
    nodes
}

#[test]
fn another_nodes_pods_are_reached_by_the_device_and_by_nothing_else_where_that_is_gone() {
    let desired = with(Some(DEVICE), &keyed());
    for (cidr, source) in [("10.0.2.0/24", "192.0.2.1"), ("fd00:2::/64", "2001:db8::1")] {
        assert_eq!(
            routes(&desired, cidr),
            [
                format!("route {cidr} dev #9 src Some({source}) Unicast"),
                format!("route {cidr} src None Unreachable"),
            ]
        );
        let last = desired.routes.iter().filter(|r| r.destination == net(cidr));
        let metrics: Vec<_> = last.map(|route| route.priority).collect();
        // Every other route stands before it, also the kernel's and a router's for IPv6 (1024).
        assert!(
            metrics[0].is_none() && metrics[1] > Some(1 << 20),
            "{metrics:?}"
        );
        let pods = desired.node_cidrs[&key(net(cidr))];
        assert_eq!((pods.ifindex, pods.flags), (DEVICE, node_cidr::OVERLAY));
        assert_eq!(pods.tunnel, ip("192.0.2.2").into());
    }
    assert_eq!(desired.file.unwrap().mtu, 1450 - 60);
    assert!(desired.problems.is_empty(), "{:?}", desired.problems);
}

#[test]
fn each_other_node_is_a_peer_for_its_pods_and_its_own_addresses() {
    let desired = with(Some(DEVICE), &keyed());
    let allowed = [
        "10.0.2.0/24",
        "fd00:2::/64",
        "192.0.2.2/32",
        "2001:db8::2/128",
    ];
    let peer = WireguardPeer {
        endpoint: Some("192.0.2.2:51820".parse().unwrap()),
        allowed: allowed.map(net).into(),
    };
    assert_eq!(desired.peers, BTreeMap::from([(public(2), peer)]));
}

#[test]
fn nothing_goes_to_a_node_without_a_key_of_its_own_and_a_problem_names_it() {
    let (mut without, mut copied) = (keyed(), keyed());
    without[1].wireguard_key = None;
    copied[1].wireguard_key = Some(public(1));
    for (nodes, why) in [
        (without, KEY_ANNOTATION),
        (copied, "the WireGuard key of Node n1"),
    ] {
        let desired = with(Some(DEVICE), &nodes);
        assert!(desired.peers.is_empty());
        for cidr in ["10.0.2.0/24", "fd00:2::/64"] {
            let pods = desired.node_cidrs[&key(net(cidr))];
            assert_eq!(pods.flags, node_cidr::OVERLAY | node_cidr::SEALED);
            assert_eq!(pods.ifindex, DEVICE);
        }
        let [problem] = &desired.problems[..] else {
            panic!("{:?}", desired.problems)
        };
        assert!(
            problem.contains("Node n2") && problem.contains(why),
            "{problem}"
        );
    }
}

#[test]
fn nothing_goes_in_the_clear_while_there_is_no_device_or_no_way_to_a_node() {
    let mut foreign = keyed();
    foreign[0].internal_ips.remove(1);
    foreign[1].internal_ips.remove(0);
    for (device, nodes) in [(None, keyed()), (Some(DEVICE), foreign)] {
        let desired = with(device, &nodes);
        for cidr in ["10.0.2.0/24", "fd00:2::/64"] {
            assert_eq!(
                routes(&desired, cidr),
                [format!("route {cidr} src None Unreachable")]
            );
        }
    }
}

#[test]
fn without_encryption_a_key_changes_nothing() {
    assert_eq!(compiled(&keyed()), compiled(&two()));
}
