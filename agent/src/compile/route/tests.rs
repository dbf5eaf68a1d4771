mod overlay;
mod wireguard;

use super::*;

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn node(name: &str, cidrs: &[&str], ips: &[&str]) -> NodeView {
    NodeView {
        name: name.into(),
        pod_cidrs: cidrs.iter().map(|c| net(c)).collect(),
        internal_ips: ips.iter().map(|i| i.parse().unwrap()).collect(),
        wireguard_key: None,
    }
}

fn uplink() -> Uplink {
    Uplink {
        index: 2,
        name: "eth0".into(),
        mtu: 1450,
        addresses: vec![net("192.0.2.1/24"), net("2001:db8::1/64")],
        sources: vec![ip("192.0.2.1"), ip("2001:db8::1")],
        mac: None,
        kind: None,
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
            addresses: &["172.17.0.1".parse().unwrap()],
            mtu: None,
            node_ports: &NodePortAddresses::All,
            pools: &Pools::default(),
            overlay: Overlay::default(),
            non_masquerade: &[],
        },
    )
}

#[test]
fn excluded_prefixes_stand_beside_those_of_nodes_and_never_in_their_place() {
    let excluded = [
        "10.0.0.0/8",
        "10.0.2.0/24",
        "10.0.2.128/25",
        "192.0.2.2/32",
        "2001:db8:5::/48",
    ]
    .map(net);
    let facts = Facts {
        name: "n1",
        uplinks: &[uplink()],
        addresses: &[],
        mtu: None,
        node_ports: &NodePortAddresses::All,
        pools: &Pools::default(),
        overlay: Overlay::default(),
        non_masquerade: &excluded,
    };
    let desired = compile(&two(), facts);
    let external = |cidr: &NodeCidr| cidr.flags & node_cidr::EXTERNAL != 0;
    let marked = desired.node_cidrs.iter().filter(|(_, cidr)| external(cidr));
    let marked: Vec<LpmKey> = marked.map(|(key, _)| *key).collect();
    assert_eq!(marked, [key(excluded[0]), key(excluded[4])]);
    assert!(
        desired
            .node_cidrs
            .values()
            .filter(|c| external(c))
            .all(|c| c.node == 0)
    );
    let without = compiled(&two()).node_cidrs;
    assert_eq!(desired.node_cidrs.len(), without.len() + 2);
    for (key, cidr) in without {
        assert_eq!(desired.node_cidrs[&key], cidr);
    }
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
    assert_eq!(cidr("10.0.1.0/24"), NodeCidr::default());
    assert_eq!(cidr("fd00:2::/64").ifindex, 2);
    assert_ne!(cidr("fd00:2::/64").node, 0);
    assert!(desired.problems.is_empty(), "{:?}", desired.problems);
}

#[test]
fn own_addresses_are_those_of_the_object_of_the_uplinks_and_of_all_other_devices() {
    let mut nodes = two();
    nodes[0].internal_ips.push("198.51.100.7".parse().unwrap());
    let addresses: Vec<String> = compiled(&nodes)
        .node_addrs
        .keys()
        .map(|a| a.to_ip().to_string())
        .collect();
    for own in ["192.0.2.1", "2001:db8::1", "198.51.100.7", "172.17.0.1"] {
        assert!(addresses.contains(&own.to_owned()), "{addresses:?}");
    }
    assert_eq!(addresses.len(), 4);
}

/// Which of the node's addresses serve NodePorts.
fn serving(node_ports: &NodePortAddresses) -> Vec<String> {
    let facts = Facts {
        name: "n1",
        uplinks: &[uplink()],
        addresses: &[ip("172.17.0.1"), ip("fd00:9::1")],
        mtu: None,
        node_ports,
        pools: &Pools::default(),
        overlay: Overlay::default(),
        non_masquerade: &[],
    };
    let addrs = compile(&two(), facts).node_addrs;
    let serving = addrs
        .iter()
        .filter(|(_, value)| value.flags == node_addr::NODE_PORTS);
    serving.map(|(addr, _)| addr.to_ip().to_string()).collect()
}

#[test]
fn node_ports_are_served_at_the_addresses_that_the_key_names() {
    let mut all = serving(&NodePortAddresses::All);
    all.sort();
    assert_eq!(all, ["172.17.0.1", "192.0.2.1", "2001:db8::1", "fd00:9::1"]);
    let mut primary = serving(&NodePortAddresses::Primary);
    primary.sort();
    assert_eq!(primary, ["192.0.2.1", "2001:db8::1"]);
    let within = NodePortAddresses::Within(vec![net("172.16.0.0/12"), net("fd00::/8")]);
    let mut within = serving(&within);
    within.sort();
    assert_eq!(within, ["172.17.0.1", "fd00:9::1"]);
}

/// The source of an uplink with these sources, where the node's InternalIPs and the addresses of
/// its other devices are those.
fn sources(on: &[&str], internal: &[&str], elsewhere: &[&str]) -> [String; 2] {
    let mut uplink = uplink();
    uplink.sources = on.iter().map(|text| ip(text)).collect();
    let addresses: Vec<IpAddr> = elsewhere.iter().map(|text| ip(text)).collect();
    let facts = Facts {
        name: "n1",
        uplinks: &[uplink],
        addresses: &addresses,
        mtu: None,
        node_ports: &NodePortAddresses::All,
        pools: &Pools::default(),
        overlay: Overlay::default(),
        non_masquerade: &[],
    };
    let desired = compile(&[node("n1", &[], internal)], facts);
    let UplinkInfo { addr4, addr6, .. } = desired.uplinks[&2];
    [addr4, addr6].map(|addr| addr.to_ip().to_string())
}

#[test]
fn an_uplink_speaks_from_the_nodes_internal_address_if_it_is_on_it_else_from_its_first() {
    let on = ["192.0.2.7", "192.0.2.1", "2001:db8::7", "2001:db8::1"];
    let internal = ["192.0.2.1", "2001:db8::1"];
    assert_eq!(sources(&on, &internal, &[]), internal);
    let others = ["198.51.100.1", "2001:db8:1::1"];
    assert_eq!(sources(&on, &others, &others), ["192.0.2.7", "2001:db8::7"]);
}

#[test]
fn an_uplink_without_an_address_takes_the_nodes_from_another_device_or_none() {
    let internal = ["198.51.100.1", "2001:db8:1::1"];
    assert_eq!(sources(&[], &internal, &internal), internal);
    assert_eq!(sources(&[], &internal, &[]), ["::", "::"]);
    let only_v6 = sources(&["2001:db8::1"], &["2001:db8::1"], &[]);
    assert_eq!(only_v6, ["::", "2001:db8::1"]);
}

#[test]
fn the_node_file_takes_the_uplinks_mtu_unless_one_is_configured() {
    let file = compiled(&two()).file.unwrap();
    assert_eq!(file.mtu, 1450);
    assert_eq!(file.pod_cidrs, [net("10.0.1.0/24"), net("fd00:1::/64")]);
    let facts = Facts {
        name: "n1",
        uplinks: &[uplink()],
        addresses: &[],
        mtu: Some(1400),
        node_ports: &NodePortAddresses::All,
        pools: &Pools::default(),
        overlay: Overlay::default(),
        non_masquerade: &[],
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

#[test]
fn a_node_without_pod_cidrs_is_named_with_who_gives_them() {
    let problem = |pools: &Pools| {
        let facts = Facts {
            name: "n1",
            uplinks: &[uplink()],
            addresses: &[],
            mtu: None,
            node_ports: &NodePortAddresses::All,
            pools,
            overlay: Overlay::default(),
            non_masquerade: &[],
        };
        let desired = compile(&[node("n1", &[], &["192.0.2.1"])], facts);
        assert_eq!(desired.file, None);
        desired.problems.concat()
    };
    let others = problem(&Pools::default());
    assert!(
        others.starts_with("Node n1: spec.podCIDRs is empty: give the node a pod CIDR"),
        "{others}"
    );
    let pool = crate::compile::node_cidr::Pool::new(net("10.244.0.0/16"), 24).unwrap();
    let ours = problem(&Pools::new(vec![pool]).unwrap());
    assert!(
        ours.contains("once the agent that holds the Lease"),
        "{ours}"
    );
    assert!(ours.contains("--cluster-cidr 10.244.0.0/16"), "{ours}");
}
