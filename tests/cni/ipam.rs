//! Addresses: which are given out, and when they come back.

use serde_json::json;
use weir_net::NetNs;

use crate::support::{Call, Node, pod};

#[test]
fn a12_a13_a_full_range_is_code_101_names_range_size_and_use_and_leaves_nothing() {
    let (node, pod) = (Node::new(), pod());
    node.write_node_file(&["10.66.0.0/30", "fd66::/64"]);
    let others = [crate::support::pod(), crate::support::pod()];
    node.add("a", &others[0]).ok();
    node.add("b", &others[1]).ok();
    let before = node.traces();
    let outcome = node.add("c", &pod);
    assert_eq!(outcome.code(), 101);
    let text = outcome.text();
    assert!(
        text.contains("2 of 2 in use in 10.66.0.0/30 (10.66.0.1-10.66.0.2)"),
        "{text}"
    );
    assert_eq!(node.traces(), before);
    node.del("a", &others[0]).silent();
    assert_eq!(
        node.add("c", &pod).ok()["ips"][0]["address"],
        "10.66.0.1/32"
    );
}

#[test]
fn a18_after_a_reboot_addresses_of_the_dead_are_free_again() {
    let (node, old) = (Node::new(), pod());
    node.write_node_file(&["10.66.0.0/30"]);
    node.add("a", &old).ok();
    node.add("b", &pod()).ok();
    // A reboot: namespaces and links are gone, files are not, and the boot id is another one.
    let text = std::fs::read_to_string(node.path("ipam/store.json")).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let rebooted = Node::new();
    rebooted.write_node_file(&["10.66.0.0/30"]);
    std::fs::create_dir(rebooted.path("ipam")).unwrap();
    let text = text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
    std::fs::write(rebooted.path("ipam/store.json"), text).unwrap();
    rebooted.status().silent();
    let new = [pod(), pod()];
    // The same container id again (podman keeps them), and a new one.
    rebooted.add("a", &new[0]).ok();
    rebooted.add("c", &new[1]).ok();
    assert_eq!(rebooted.used(), ["10.66.0.1", "10.66.0.2"]);
}

#[test]
fn a19_allocation_is_keyed_by_container_not_by_pod_name() {
    let node = Node::new();
    let args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db-0;K8S_POD_UID=u";
    let pods: Vec<NetNs> = ["old", "new"]
        .map(|id| {
            let pod = pod();
            node.run(&Call::about("ADD", &node.config(), id, pod.path()).env("CNI_ARGS", args))
                .ok();
            pod
        })
        .into();
    assert_eq!(node.used().len(), 4);
    node.del("old", &pods[0]).silent();
    assert_eq!(node.used(), ["10.66.0.2", "fd66::2"]);
}

#[test]
fn a1_ranges_of_the_configuration_and_its_mtu_need_no_node_file() {
    let (node, pod) = (Node::new(), pod());
    std::fs::remove_file(node.path("node.json")).unwrap();
    let config = node.config_with(json!({"mtu": 9000, "ipam": {"ranges": [[
        {"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.10", "rangeEnd": "10.9.0.10"},
        {"subnet": "10.10.0.0/24"}]]}}));
    let result = node
        .run(&Call::about("ADD", &config, "c1", pod.path()))
        .ok();
    assert_eq!(result["ips"][0]["address"], "10.9.0.10/32");
    assert_eq!(result["interfaces"][1]["mtu"], 9000);
    let other = crate::support::pod();
    let result = node
        .run(&Call::about("ADD", &config, "c2", other.path()))
        .ok();
    assert_eq!(result["ips"][0]["address"], "10.10.0.1/32");
}
