//! Section 4 of the table: ADD.

use serde_json::{Value, json};
use weir_net::{Netlink, netlink::Scope};

use crate::support::{Call, Node, VERSIONS, agent::Mood, files, pod, source_towards, sysctl};

/// The interface index of a container's side must be right, so that podman keeps the address.
#[track_caller]
fn assert_ips_name_the_container_side(result: &Value, netns: &str) {
    for ip in result["ips"].as_array().unwrap() {
        let index = usize::try_from(ip["interface"].as_u64().unwrap()).unwrap();
        assert_eq!(result["interfaces"][index]["name"], "eth0");
        assert_eq!(result["interfaces"][index]["sandbox"], netns);
    }
}

#[test]
fn a1_a20_the_pod_gets_its_interface_addresses_routes_and_neighbours() {
    let (node, pod) = (Node::new(), pod());
    let result = node.add("c1", &pod).ok();
    let netlink = Netlink::open_in(&pod).unwrap();
    let link = netlink.link("eth0").unwrap();
    assert!(link.up && link.carrier && link.mtu == 1450, "{link:?}");
    assert!(netlink.link("lo").unwrap().up);
    let addresses = netlink.addresses(link.index).unwrap();
    let has = |address: &str| {
        let found = addresses.iter().find(|a| a.network.to_string() == address);
        assert!(
            found.is_some_and(|a| !a.tentative),
            "{address} in {addresses:?}"
        );
    };
    has("10.66.0.1/32");
    has("fd66::1/128");
    // The default routes, and the way to the IPv4 gateway.
    let routes = netlink.routes().unwrap();
    let route = |to: &str| {
        routes
            .iter()
            .find(|r| r.destination.to_string() == to)
            .unwrap()
    };
    let gateways: Vec<_> = ["0.0.0.0/0", "::/0"]
        .map(|to| route(to).gateway.unwrap().to_string())
        .into();
    assert_eq!(gateways, ["169.254.1.1", "fe80::1"]);
    assert_eq!(route("169.254.1.1/32").scope, Scope::Link);
    // Both sides know each other without asking.
    let host = node.netlink();
    let name = result["interfaces"][0]["name"].as_str().unwrap();
    let own = host.link(name).unwrap();
    assert!(name.starts_with("weir") && name.len() == 15, "{name}");
    assert!(own.up && own.carrier && own.mtu == 1450, "{own:?}");
    let known = |netlink: &Netlink, index, mac| {
        let mut all: Vec<_> = netlink.neighbours(index).unwrap();
        all.retain(|n| n.permanent && n.mac == mac);
        let mut all: Vec<_> = all.iter().map(|n| n.address.to_string()).collect();
        all.sort();
        all
    };
    assert_eq!(
        known(&netlink, link.index, own.mac),
        ["169.254.1.1", "fe80::1"]
    );
    assert_eq!(known(&host, own.index, link.mac), ["10.66.0.1", "fd66::1"]);
    let routes = host.routes().unwrap();
    for to in ["10.66.0.1/32", "fd66::1/128"] {
        let route = routes
            .iter()
            .find(|r| r.destination.to_string() == to)
            .unwrap();
        assert_eq!(
            (route.index, route.gateway),
            (Some(own.index), None),
            "{to}"
        );
    }
    // Packets have a way and a source.
    assert_eq!(source_towards(&pod, "192.0.2.1", None), "10.66.0.1");
    assert_eq!(source_towards(&pod, "2001:db8::1", None), "fd66::1");
}

#[test]
fn a1_sysctls_of_both_sides_are_set() {
    let (node, pod) = (Node::new(), pod());
    let result = node.add("c1", &pod).ok();
    let host = result["interfaces"][0]["name"].as_str().unwrap();
    for (key, value) in [
        ("ipv4", "rp_filter", "2"),
        ("ipv4", "forwarding", "1"),
        ("ipv6", "forwarding", "1"),
        ("ipv6", "accept_ra", "0"),
        ("ipv6", "autoconf", "0"),
        ("ipv6", "addr_gen_mode", "1"),
    ]
    .map(|(family, key, value)| (format!("{family}/conf/{host}/{key}"), value))
    {
        assert_eq!(sysctl(&node.ns, &key), value, "{key}");
    }
    // The host side takes no address of its own.
    let netlink = node.netlink();
    let index = netlink.link(host).unwrap().index;
    assert_eq!(netlink.addresses(index).unwrap(), []);
    assert_eq!(sysctl(&pod, "ipv6/conf/eth0/accept_ra"), "0");
}

#[test]
fn a1_an_ipv6_address_works_where_the_runtime_switched_ipv6_off() {
    let (node, pod) = (Node::new(), pod());
    pod.run(|| weir_net::sysctl::write("ipv6/conf/all/disable_ipv6", "1"))
        .unwrap()
        .unwrap();
    pod.run(|| weir_net::sysctl::write("ipv6/conf/default/disable_ipv6", "1"))
        .unwrap()
        .unwrap();
    node.add("c1", &pod).ok();
    let netlink = Netlink::open_in(&pod).unwrap();
    let found = netlink.addresses(0).unwrap();
    assert!(
        found.iter().any(|a| a.network.to_string() == "fd66::1/128"),
        "{found:?}"
    );
    // Without an IPv6 address it stays as the runtime wanted it.
    let (four, other) = (Node::new(), crate::support::pod());
    four.write_node_file(&["10.66.0.0/24"]);
    other
        .run(|| weir_net::sysctl::write("ipv6/conf/default/disable_ipv6", "1"))
        .unwrap()
        .unwrap();
    assert_eq!(
        four.add("c1", &other).ok()["ips"].as_array().unwrap().len(),
        1
    );
    assert_eq!(sysctl(&other, "ipv6/conf/eth0/disable_ipv6"), "1");
}

#[test]
fn a1_ipv6_alone_works() {
    let (node, pod) = (Node::new(), pod());
    node.write_node_file(&["fd66::/64"]);
    let result = node.add("c1", &pod).ok();
    assert_eq!(result["routes"], json!([{"dst": "::/0", "gw": "fe80::1"}]));
    let result = node.check("c1", &pod, &result);
    result.silent();
    node.del("c1", &pod).silent();
    node.assert_clean(&pod, "after DEL");
}

#[test]
fn a2_an_interface_that_is_there_already_is_an_error_and_stays_as_it_was() {
    let (node, pod) = (Node::new(), pod());
    Netlink::open_in(&pod)
        .unwrap()
        .create_link("eth0", "bridge")
        .unwrap();
    let before = Netlink::open_in(&pod).unwrap().link("eth0").unwrap();
    let outcome = node.add("c1", &pod);
    assert_eq!(outcome.code(), 4);
    assert!(
        outcome.text().contains("eth0 exists already"),
        "{outcome:?}"
    );
    assert_eq!(
        Netlink::open_in(&pod).unwrap().link("eth0").unwrap(),
        before
    );
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[test]
fn a17_a_second_interface_leaves_the_first_default_route_the_preferred_one() {
    let (node, pod) = (Node::new(), pod());
    node.add("c1", &pod).ok();
    let second = Call::about("ADD", &node.config(), "c1", pod.path()).env("CNI_IFNAME", "eth1");
    let result = node.run(&second).ok();
    assert_eq!(
        node.used(),
        ["10.66.0.1", "10.66.0.2", "fd66::1", "fd66::2"]
    );
    for (to, first, second) in [
        ("192.0.2.1", "10.66.0.1", "10.66.0.2"),
        ("2001:db8::1", "fd66::1", "fd66::2"),
    ] {
        assert_eq!(source_towards(&pod, to, None), first);
        assert_eq!(source_towards(&pod, to, Some("eth1")), second);
    }
    let config = node.config_with(json!({"prevResult": result}));
    let check = Call::about("CHECK", &config, "c1", pod.path()).env("CNI_IFNAME", "eth1");
    node.run(&check).silent();
    node.run(&second.env("CNI_COMMAND", "DEL")).silent();
    assert_eq!(node.used(), ["10.66.0.1", "fd66::1"]);
}

#[test]
fn a3_a4_a_plugin_before_it_in_the_list_is_code_7() {
    let (node, pod) = (Node::new(), pod());
    let config = node.config_with(json!({"prevResult": {"cniVersion": "1.1.0", "interfaces": []}}));
    let outcome = node.run(&Call::about("ADD", &config, "c1", pod.path()));
    assert_eq!(outcome.code(), 7);
    assert!(outcome.text().contains("prevResult"), "{outcome:?}");
    node.assert_clean(&pod, "after a refused chain");
}

#[test]
fn a5_a6_a7_a8_a10_the_result_has_the_shape_of_each_version() {
    for version in VERSIONS {
        let (node, pod) = (Node::new(), pod());
        let config = node.config_with(json!({"cniVersion": version}));
        let result = node
            .run(&Call::about("ADD", &config, "c1", pod.path()))
            .ok();
        assert_eq!(result["cniVersion"], version);
        let interfaces = result["interfaces"].as_array().unwrap();
        assert_eq!(interfaces.len(), 2);
        for (interface, ns) in interfaces.iter().zip([&node.ns, &pod]) {
            let name = interface["name"].as_str().unwrap();
            let link = Netlink::open_in(ns).unwrap().link(name).unwrap();
            assert_eq!(interface["mac"], link.mac.unwrap().to_string());
            let mtu = (version == "1.1.0").then(|| json!(1450));
            assert_eq!(interface.get("mtu"), mtu.as_ref(), "{version}");
        }
        assert_eq!(interfaces[0].get("sandbox"), None);
        assert_ips_name_the_container_side(&result, pod.path());
        let family = |index: usize| result["ips"][index].get("version").cloned();
        let expected = version < "1.0.0";
        assert_eq!(family(0), expected.then(|| json!("4")), "{version}");
        assert_eq!(family(1), expected.then(|| json!("6")), "{version}");
        assert_eq!(result["ips"][0]["gateway"], "169.254.1.1");
        for route in result["routes"].as_array().unwrap() {
            let keys: Vec<&String> = route.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["dst", "gw"], "{version}");
        }
    }
}

#[test]
fn a9_dns_is_passed_through() {
    let (node, pod) = (Node::new(), pod());
    let dns = json!({"nameservers": ["10.66.0.53"], "search": ["svc.local"]});
    let config = node.config_with(json!({"dns": dns}));
    assert_eq!(
        node.run(&Call::about("ADD", &config, "c1", pod.path()))
            .ok()["dns"],
        dns
    );
}

#[test]
fn a12_without_an_agent_or_with_one_that_says_later_it_is_code_11_and_nothing_is_left() {
    let (mut node, pod) = (Node::new(), pod());
    let refused = |node: &Node, code: u64, when: &str| {
        let outcome = node.add("c1", &pod);
        assert_eq!(outcome.code(), code, "{when}: {outcome:?}");
        node.assert_clean(&pod, when);
    };
    for (reason, code) in [
        ("try-again", 11),
        ("stale-uid", 11),
        ("bad-request", 7),
        ("internal", 100),
        ("new-kind", 100),
    ] {
        node.agent.mood(Mood::Refuses(reason));
        refused(&node, code, reason);
    }
    node.agent.mood(Mood::InForce);
    node.agent.down();
    refused(&node, 11, "nobody listens");
    node.agent.gone();
    refused(&node, 11, "no socket");
    std::fs::remove_file(node.path("node.json")).unwrap();
    refused(&node, 11, "no node file");
    node.write_node_file(&[]);
    refused(&node, 11, "no pod CIDRs");
    node.write_node_file(&["10.66.0.0/24"]);
    node.agent.up();
    node.add("c1", &pod).ok();
}

#[test]
fn a16_a_second_add_is_code_102_and_changes_nothing() {
    let (node, pod) = (Node::new(), pod());
    let result = node.add("c1", &pod).ok();
    let before = (node.traces(), files(&node.path("ipam")));
    assert_eq!(node.add("c1", &pod).code(), 102);
    // Also when the interface is gone, or the namespace is another one.
    assert_eq!(node.add("c1", &crate::support::pod()).code(), 102);
    assert_eq!((node.traces(), files(&node.path("ipam"))), before);
    node.check("c1", &pod, &result).silent();
}

#[test]
fn a17_another_interface_of_a_container_is_an_attachment_of_its_own() {
    let (node, pod) = (Node::new(), pod());
    let config = node.config_with(json!({"name": "two"}));
    node.add("c1", &pod).ok();
    node.run(&Call::about("ADD", &config, "c1", pod.path()).env("CNI_IFNAME", "eth1"))
        .ok();
    assert_eq!(
        node.used(),
        ["10.66.0.1", "10.66.0.2", "fd66::1", "fd66::2"]
    );
    node.del("c1", &pod).silent();
    assert_eq!(node.used(), ["10.66.0.2", "fd66::2"]);
    let netlink = Netlink::open_in(&pod).unwrap();
    assert!(netlink.find_link("eth0").unwrap().is_none());
    assert!(netlink.link("eth1").unwrap().carrier);
}

#[test]
fn the_gateways_are_those_the_programs_answer_for() {
    use weir_api::endpoint::{GATEWAY_V4, GATEWAY_V6};
    assert_eq!(
        weir_abi::endpoint::GATEWAY_V4,
        weir_abi::Addr::from_v4(GATEWAY_V4.octets())
    );
    assert_eq!(
        weir_abi::endpoint::GATEWAY_V6,
        weir_abi::Addr::from_v6(GATEWAY_V6.octets())
    );
}
