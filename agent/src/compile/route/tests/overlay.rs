//! Routes, prefixes and the MTU with an overlay.

use weir_abi::node::{self, OVERLAY_MAC};

use super::*;
use crate::compile::overlay::Mode;

const DEVICE: u32 = 9;

fn with(mode: Mode, device: Option<u32>, nodes: &[NodeView]) -> Desired {
    by(
        Overlay {
            mode,
            device,
            ..Overlay::default()
        },
        nodes,
    )
}

pub(super) fn by(overlay: Overlay, nodes: &[NodeView]) -> Desired {
    let facts = Facts {
        name: "n1",
        uplinks: &[uplink()],
        addresses: &[ip("192.0.2.1"), ip("2001:db8::1")],
        mtu: None,
        node_ports: &NodePortAddresses::All,
        pools: &Pools::default(),
        overlay,
        non_masquerade: &[],
    };
    compile(nodes, facts)
}

/// Another node, behind a router.
fn far() -> NodeView {
    node(
        "n3",
        &["10.0.3.0/24", "fd00:3::/64"],
        &["198.51.100.3", "2001:db8:3::3"],
    )
}

pub(super) fn routes(desired: &Desired, cidr: &str) -> Vec<String> {
    let to = net(cidr);
    let routes = desired.routes.iter().filter(|r| r.destination == to);
    routes
        .map(|r| format!("{r} src {:?} {:?}", r.source, r.kind))
        .collect()
}

#[test]
fn the_overlay_has_a_route_to_each_other_nodes_pods_from_this_nodes_address() {
    for mode in [Mode::Vxlan, Mode::Geneve] {
        let desired = with(mode, Some(DEVICE), &two());
        assert_eq!(
            routes(&desired, "10.0.2.0/24"),
            ["route 10.0.2.0/24 dev #9 src Some(192.0.2.1) Unicast"]
        );
        assert_eq!(
            routes(&desired, "fd00:2::/64"),
            ["route fd00:2::/64 dev #9 src Some(2001:db8::1) Unicast"]
        );
        assert!(desired.routes.iter().all(|r| r.protocol == PROTOCOL));
        assert!(desired.problems.is_empty(), "{:?}", desired.problems);
    }
}

#[test]
fn the_overlays_prefixes_say_where_tunnels_end_and_so_do_the_nodes_own_addresses() {
    let desired = with(Mode::Vxlan, Some(DEVICE), &two());
    let end: Addr = ip("192.0.2.2").into();
    for cidr in ["10.0.2.0/24", "fd00:2::/64"] {
        let pods = desired.node_cidrs[&key(net(cidr))];
        assert_eq!(
            (pods.ifindex, pods.flags, pods.tunnel),
            (DEVICE, node_cidr::OVERLAY, end)
        );
        assert_ne!(pods.node, 0);
    }
    for address in ["192.0.2.2", "2001:db8::2"] {
        let own = desired.node_cidrs[&LpmKey::host(ip(address).into())];
        assert_eq!((own.ifindex, own.flags, own.tunnel), (0, 0, end));
        assert_ne!(own.node, 0);
    }
    // This node's own pods come by no tunnel.
    assert!(
        desired.node_cidrs[&key(net("10.0.1.0/24"))]
            .tunnel
            .is_none()
    );
}

#[test]
fn the_overlays_device_is_an_uplink_between_the_nodes_addresses() {
    let desired = with(Mode::Vxlan, Some(DEVICE), &two());
    let info = desired.uplinks[&DEVICE];
    assert_eq!(info.addr4, ip("192.0.2.1").into());
    assert_eq!(info.addr6, ip("2001:db8::1").into());
    assert_eq!((info.mac, info.flags), (OVERLAY_MAC, node::uplink::OVERLAY));
    assert_eq!(desired.uplinks[&2].flags, 0);
}

#[test]
fn pods_have_the_mtu_that_the_overlay_leaves() {
    let mtu = |mode, nodes: &[NodeView]| with(mode, Some(DEVICE), nodes).file.unwrap().mtu;
    assert_eq!(mtu(Mode::Native, &two()), 1450);
    assert_eq!(mtu(Mode::Vxlan, &two()), 1400);
    assert_eq!(mtu(Mode::Auto, &two()), 1400);
    let v6 = [
        node("n1", &["fd00:1::/64"], &["2001:db8::1"]),
        node("n2", &["fd00:2::/64"], &["2001:db8::2"]),
    ];
    assert_eq!(mtu(Mode::Vxlan, &v6), 1380);
}

#[test]
fn auto_routes_within_the_subnet_and_packs_across() {
    let mut nodes = two();
    nodes.push(far());
    let desired = with(Mode::Auto, Some(DEVICE), &nodes);
    let near = desired.node_cidrs[&key(net("10.0.2.0/24"))];
    assert_eq!((near.ifindex, near.flags), (2, 0));
    assert!(near.tunnel.is_none());
    assert_eq!(
        routes(&desired, "10.0.2.0/24"),
        ["route 10.0.2.0/24 via 192.0.2.2 dev #2 src None Unicast"]
    );
    let far = desired.node_cidrs[&key(net("fd00:3::/64"))];
    assert_eq!((far.ifindex, far.flags), (DEVICE, node_cidr::OVERLAY));
    assert_eq!(far.tunnel, ip("198.51.100.3").into());
    assert!(desired.problems.is_empty(), "{:?}", desired.problems);
}

#[test]
fn a_route_that_changes_only_its_source_is_written_again() {
    let desired = with(Mode::Vxlan, Some(DEVICE), &two());
    let change = diff_routes(&desired.routes, &desired.routes);
    assert_eq!(change, RouteChange::default());
    let mut moved = desired.routes.clone();
    let route = moved.iter_mut().find(|r| r.source.is_some()).unwrap();
    route.source = Some(ip("192.0.2.77"));
    let change = diff_routes(&moved, &desired.routes);
    assert_eq!(change.replace.len(), 1);
}

#[test]
fn a_node_of_another_family_is_a_problem_that_names_it() {
    let nodes = [
        node("n1", &["10.0.1.0/24"], &["192.0.2.1"]),
        node("n2", &["10.0.2.0/24"], &["2001:db8::2"]),
    ];
    let desired = with(Mode::Vxlan, Some(DEVICE), &nodes);
    assert!(routes(&desired, "10.0.2.0/24").is_empty());
    let [problem] = &desired.problems[..] else {
        panic!("{:?}", desired.problems)
    };
    assert!(problem.contains("Node n2") && problem.contains("no tunnel"));
}

#[test]
fn without_its_device_nothing_is_routed_past_the_overlay() {
    let desired = with(Mode::Vxlan, None, &two());
    assert!(routes(&desired, "10.0.2.0/24").is_empty());
    assert!(!desired.uplinks.contains_key(&DEVICE));
}
