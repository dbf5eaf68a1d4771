//! Section 5 of the table: DEL.

use serde_json::{Value, json};
use weir_net::{NetNs, Netlink};

use crate::support::{Call, Node, VERSIONS, agent::Mood, pod};

#[test]
fn d1_d6_del_succeeds_again_and_again_and_for_what_never_was() {
    let (node, pod) = (Node::new(), pod());
    node.del("never", &pod).silent();
    node.assert_clean(&pod, "after DEL of nothing");
    node.add("c1", &pod).ok();
    for _ in 0..3 {
        node.del("c1", &pod).silent();
        node.assert_clean(&pod, "after DEL");
    }
}

#[test]
fn d6_del_succeeds_after_an_add_that_failed() {
    let (node, pod) = (Node::new(), pod());
    node.agent.mood(Mood::Refuses("try-again"));
    assert_eq!(node.add("c1", &pod).code(), 11);
    node.del("c1", &pod).silent();
    node.assert_clean(&pod, "after DEL");
}

#[test]
fn d2_del_succeeds_when_the_interface_is_missing() {
    let (node, pod) = (Node::new(), pod());
    node.add("c1", &pod).ok();
    assert!(Netlink::open_in(&pod).unwrap().delete_link("eth0").unwrap());
    node.del("c1", &pod).silent();
    node.assert_clean(&pod, "after DEL");
}

#[test]
fn d3_del_releases_with_the_namespace_unset_empty_gone_or_no_namespace_any_more() {
    let node = Node::new();
    let file = node.path("dead");
    std::fs::write(&file, "").unwrap();
    for netns in [
        None,
        Some(""),
        Some("/run/netns/weir-gone"),
        file.to_str(),
        Some("/proc/self/ns/net"),
    ] {
        let pod = pod();
        let add = Call::about("ADD", &node.config(), "c1", pod.path());
        node.run(&add).ok();
        let del = add.env("CNI_COMMAND", "DEL");
        node.run(&match netns {
            None => del.without("CNI_NETNS"),
            Some(netns) => del.env("CNI_NETNS", netns),
        })
        .silent();
        node.assert_clean(&pod, &format!("after DEL with {netns:?}"));
    }
}

#[test]
fn d3_del_releases_after_the_namespace_has_died() {
    let (node, pod) = (Node::new(), pod());
    let del = Call::about("DEL", &node.config(), "c1", pod.path());
    node.add("c1", &pod).ok();
    drop(pod);
    node.run(&del).silent();
    assert_eq!(node.used(), Vec::<String>::new());
    // The kernel takes the links of a dead namespace down on its own time; DEL has removed the
    // host side itself.
    assert_eq!(node.netlink().links().unwrap().len(), 1);
}

#[test]
fn d4_del_needs_no_prev_result_and_takes_one_of_any_version_or_none_it_can_read() {
    for prev in VERSIONS
        .map(|v| json!({"cniVersion": v, "interfaces": [], "ips": []}))
        .into_iter()
        .chain([
            Value::Null,
            json!({"cniVersion": "9.9.9"}),
            json!("garbage"),
            json!({"ips": [{"address": "nonsense"}]}),
        ])
    {
        let (node, pod) = (Node::new(), pod());
        node.add("c1", &pod).ok();
        let config = node.config_with(json!({"prevResult": prev}));
        node.run(&Call::about("DEL", &config, "c1", pod.path()))
            .silent();
        node.assert_clean(&pod, &prev.to_string());
    }
}

#[test]
fn d5_del_needs_no_agent_and_the_address_is_free_at_once() {
    let node_file = ["10.66.0.8/32"];
    for absent in ["down", "gone", "hangs", "refuses"] {
        let (mut node, pod) = (Node::new(), pod());
        node.write_node_file(&node_file);
        node.add("c1", &pod).ok();
        match absent {
            "down" => node.agent.down(),
            "gone" => node.agent.gone(),
            "hangs" => node.agent.mood(Mood::Hangs),
            _ => node.agent.forget(),
        }
        let del = node.del("c1", &pod);
        del.silent();
        assert!(del.took.as_secs() < 5, "{:?}", del.took);
        assert_eq!(node.used(), Vec::<String>::new(), "{absent}");
        assert_eq!(node.netlink().links().unwrap().len(), 1, "{absent}");
        node.agent.mood(Mood::InForce);
        node.agent.forget();
        node.agent.up_if_down();
        assert_eq!(
            node.add("c2", &pod).ok()["ips"][0]["address"],
            "10.66.0.8/32",
            "{absent}"
        );
    }
}

#[test]
fn d5_del_goes_on_when_a_step_fails_and_says_which_did() {
    let (node, pod) = (Node::new(), pod());
    node.add("c1", &pod).ok();
    let store = node.path("ipam/store.json");
    let text = std::fs::read(&store).unwrap();
    std::fs::write(&store, "{").unwrap();
    let outcome = node.del("c1", &pod);
    assert_eq!(outcome.code(), 103);
    assert!(outcome.text().contains("store.json"), "{outcome:?}");
    // The link is gone and the agent was told all the same.
    assert_eq!(node.netlink().links().unwrap().len(), 1);
    assert_eq!(node.agent.endpoints(), []);
    assert_eq!(std::fs::read(&store).unwrap(), b"{");
    // Once the store is repaired, DEL completes.
    std::fs::write(&store, text).unwrap();
    node.del("c1", &pod).silent();
    node.assert_clean(&pod, "after DEL");
}

#[test]
fn d7_a_late_del_touches_no_other_attachment() {
    let node = Node::new();
    let pods: Vec<NetNs> = (0..3).map(|_| pod()).collect();
    node.add("old", &pods[0]).ok();
    let result = node.add("new", &pods[1]).ok();
    // The same container's other interface, and the same container in another network.
    let other_if =
        Call::about("DEL", &node.config(), "new", pods[1].path()).env("CNI_IFNAME", "eth1");
    node.run(&other_if).silent();
    node.del("old", &pods[0]).silent();
    node.del("old", &pods[0]).silent();
    node.check("new", &pods[1], &result).silent();
    assert_eq!(
        node.agent.endpoints(),
        [("new".to_owned(), "eth0".to_owned())]
    );
}

#[test]
fn d8_del_as_the_first_plugin_of_a_chain_gets_the_final_result_with_others_interfaces() {
    let (node, pod) = (Node::new(), pod());
    let mut result = node.add("c1", &pod).ok();
    let others = json!({"name": "ifb0", "mac": "00:11:22:33:44:55"});
    result["interfaces"]
        .as_array_mut()
        .unwrap()
        .insert(0, others);
    let config = node.config_with(json!({"prevResult": result}));
    node.run(&Call::about("DEL", &config, "c1", pod.path()))
        .silent();
    node.assert_clean(&pod, "after DEL");
}

#[test]
fn d9_no_error_of_del_says_not_found_as_go_cni_would_take_it_for_success() {
    let (node, pod) = (Node::new(), pod());
    node.add("c1", &pod).ok();
    std::fs::write(node.path("ipam/store.json"), "not json").unwrap();
    assert!(!node.del("c1", &pod).stdout.contains("not found"));
}

#[test]
fn d10_a_del_with_the_configuration_of_add_time_or_of_another_version_works() {
    let (node, pod) = (Node::new(), pod());
    let old = node.config_with(json!({
        "cniVersion": "0.4.0", "mtu": 1400, "retired": true,
        "ipam": {"ranges": [[{"subnet": "10.9.0.0/24"}]]},
    }));
    node.run(&Call::about("ADD", &old, "c1", pod.path())).ok();
    node.run(&Call::about("DEL", &node.config(), "c1", pod.path()))
        .silent();
    node.assert_clean(&pod, "after DEL with a newer configuration");
    node.add("c1", &pod).ok();
    node.run(&Call::about("DEL", &old, "c1", pod.path()))
        .silent();
    node.assert_clean(&pod, "after DEL with an older configuration");
}

#[test]
fn d11_code_3_is_never_used_to_dodge_del() {
    let (node, pod) = (Node::new(), pod());
    for netns in ["", "/nonexistent", pod.path()] {
        node.run(&Call::about("DEL", &node.config(), "unknown", netns))
            .silent();
    }
}
