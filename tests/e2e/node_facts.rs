//! What the agent tells the programs of the node and of its own configuration.

use weir_abi::node::{NodeAddr, UplinkInfo, config, node_addr};
use weir_abi::{Addr, map};
use weir_agent::dataplane::pins::Pins;
use weir_agent::dataplane::table::{Elements, Table, Writes};
use weir_lab::Lab;
use weir_lab::node::Node;
use weir_lab::spawn::run_in;
use weir_net::{IpNetwork, Netlink};

use crate::wait::await_that;

fn pins(node: &Node) -> Pins {
    Pins::new(&node.path("/sys/fs/bpf/weir"))
}

/// The flags of one of the node's addresses; `None` if the programs do not know it as one.
fn flags(node: &Node, address: &str) -> Option<u32> {
    let address: std::net::IpAddr = address.parse().unwrap();
    let table: Table<Addr, NodeAddr> =
        Table::open(&pins(node), map::NODE_ADDRS, &Writes::default()).unwrap();
    let found = table.get(&address.into()).unwrap();
    found.map(|value| value.flags)
}

fn uplinks(node: &Node) -> Vec<UplinkInfo> {
    let table: Table<u32, UplinkInfo> =
        Table::open(&pins(node), map::UPLINKS, &Writes::default()).unwrap();
    table.entries().unwrap().into_values().collect()
}

fn word(node: &Node, word: u32) -> u64 {
    let words: Elements<u64> =
        Elements::open(&pins(node), map::CONFIG, &Writes::default()).unwrap();
    words.get(word).unwrap()
}

/// Adds a device with these addresses, or removes it.
fn device(node: &Node, addresses: Option<[IpNetwork; 2]>) {
    run_in(&node.place(), || {
        let netlink = Netlink::open()?;
        if let Some(addresses) = addresses {
            netlink.create_link("extra", "bridge")?;
            let index = netlink.link("extra")?.index;
            for address in addresses {
                netlink.add_address(index, address)?;
            }
        } else {
            netlink.delete_link("extra")?;
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn addresses_that_serve_node_ports_follow_the_nodes_devices_and_the_key() {
    let lab = Lab::builder()
        .nodes(1)
        .agent_arg("--nodeport-addresses=198.51.100.0/24,2001:db8:5::/64")
        .start()
        .unwrap();
    let node = &lab.nodes[0];
    let internal = node.addresses.map(|address| address.to_string());
    for address in &internal {
        await_that("the node's address is known", || {
            flags(node, address) == Some(0)
        });
    }
    let added = ["198.51.100.7/24", "2001:db8:5::7/64"].map(|text| text.parse().unwrap());
    device(node, Some(added));
    for address in ["198.51.100.7", "2001:db8:5::7"] {
        await_that("a new address serves", || {
            flags(node, address) == Some(node_addr::NODE_PORTS)
        });
    }
    device(node, None);
    await_that("an address that is gone is forgotten", || {
        flags(node, "198.51.100.7").is_none() && flags(node, "2001:db8:5::7").is_none()
    });
    node.stop_agent().unwrap();
    node.set_agent_args(&["--nodeport-addresses=primary"]);
    node.start_agent().unwrap();
    for address in &internal {
        await_that("the primary address serves", || {
            flags(node, address) == Some(node_addr::NODE_PORTS)
        });
    }
}

#[test]
fn programs_are_told_each_uplinks_own_addresses() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    let [addr4, addr6] = node.addresses.map(Addr::from);
    await_that("the uplink with its addresses", || {
        let [info] = uplinks(node)[..] else {
            return false;
        };
        (info.addr4, info.addr6) == (addr4, addr6) && info.mac != [0; 6]
    });
}

#[test]
fn programs_are_told_the_configuration_and_a_restart_changes_it() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    assert_eq!(word(node, config::FLAGS), config::flags::MASQUERADE);
    assert_eq!(word(node, config::NAT_PORTS), 0xffff_ee48);
    node.stop_agent().unwrap();
    node.set_agent_args(&[
        "--nat-ports=62000-62999",
        "--socket-lb=host-only",
        "--node-port-mode=dsr",
        "--masquerade=false",
    ]);
    node.start_agent().unwrap();
    assert_eq!(
        word(node, config::FLAGS),
        config::flags::SOCKET_LB_HOST_ONLY | config::flags::DSR
    );
    assert_eq!(word(node, config::NAT_PORTS), 62000 | 62999 << 16);
}

#[test]
fn a_node_port_among_the_nat_ports_is_a_problem_that_names_the_service() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    let service = serde_json::json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.0.9",
                 "ports": [{"port": 80, "nodePort": 61500}]},
    });
    lab.cluster.apply(&service).unwrap();
    let named = || {
        let degraded = node.client().status().unwrap().degraded;
        degraded
            .iter()
            .any(|problem| problem.contains("default/web") && problem.contains("--nat-ports"))
    };
    await_that("the problem", named);
    lab.cluster
        .delete("Service", Some("default"), "web")
        .unwrap();
    await_that("the problem is gone", || !named());
}

/// Status code of a page of the node's own.
fn status_of(node: &Node, url: &str) -> String {
    let mut curl = std::process::Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", url]);
    String::from_utf8(node.run(curl, b"").unwrap().stdout).unwrap()
}

#[test]
fn load_balancers_are_told_that_the_node_serves_until_it_is_being_deleted() {
    let lab = Lab::builder()
        .nodes(1)
        .agent_arg("--healthz-address=0.0.0.0:10256")
        .start()
        .unwrap();
    let node = &lab.nodes[0];
    let url = "http://127.0.0.1:10256/healthz";
    await_that("the node is healthy", || status_of(node, url) == "200");
    let mut object = lab.cluster.get("Node", None, &node.name).unwrap();
    object["spec"]["taints"] = serde_json::json!([
        {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
    ]);
    lab.cluster.apply(&object).unwrap();
    await_that("the node is leaving", || status_of(node, url) == "503");
    assert_eq!(status_of(node, "http://127.0.0.1:9965/healthz"), "200");
}

#[test]
fn a_health_check_port_is_answered_for_the_endpoints_that_are_on_the_node() {
    let lab = Lab::builder()
        .nodes(1)
        .agent_arg("--nodeport-addresses=primary")
        .start()
        .unwrap();
    let node = &lab.nodes[0];
    let metadata = |labels: serde_json::Value| serde_json::json!({"namespace": "default", "name": "web", "labels": labels});
    let service = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(serde_json::json!({})),
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9", "externalTrafficPolicy": "Local",
                 "healthCheckNodePort": 31999, "ports": [{"port": 80, "nodePort": 30080}]},
    });
    let slice = |on: &str| {
        let labels = serde_json::json!({"kubernetes.io/service-name": "web"});
        serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": metadata(labels), "addressType": "IPv4",
            "ports": [{"port": 80, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.77.0.1"], "nodeName": on}],
        })
    };
    let urls = node
        .addresses
        .map(|address| format!("http://{}/", std::net::SocketAddr::new(address, 31999)));
    let says = |status: &str| urls.iter().all(|url| status_of(node, url) == status);
    lab.cluster.apply(&slice("elsewhere")).unwrap();
    lab.cluster.apply(&service).unwrap();
    await_that("no endpoint is here", || says("503"));
    lab.cluster.apply(&slice(&node.name)).unwrap();
    await_that("an endpoint is here", || says("200"));
    assert_eq!(status_of(node, "http://127.0.0.1:31999/"), "000");
    lab.cluster
        .delete("Service", Some("default"), "web")
        .unwrap();
    await_that("nobody listens", || says("000"));
}
