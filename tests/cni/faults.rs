//! A11: whatever fails in ADD, what was done before is undone before the error is returned.

use std::{
    fs::{self, File},
    process::Stdio,
};

use serde_json::json;
use weir_net::{Netlink, netlink::Route};

use crate::support::{Call, Node, agent::Mood, pod};

#[test]
fn a11_a_store_that_cannot_be_written_is_code_5_and_leaves_nothing() {
    let (node, pod) = (Node::new(), pod());
    fs::write(node.path("ipam"), "in the way").unwrap();
    assert_eq!(node.add("c1", &pod).code(), 5);
    fs::remove_file(node.path("ipam")).unwrap();
    node.assert_clean(&pod, "after a store that cannot be made");
    // The temporary file's name is taken by a directory: the store stays as it was.
    node.add("c1", &pod).ok();
    let before = node.store();
    fs::create_dir(node.path("ipam/store.json.tmp")).unwrap();
    let other = crate::support::pod();
    assert_eq!(node.add("c2", &other).code(), 5);
    assert_eq!(node.store(), before);
    assert_eq!(Netlink::open_in(&other).unwrap().links().unwrap().len(), 1);
}

#[test]
fn a11_a_corrupt_store_is_code_103_and_stays_as_it_is() {
    let (node, pod) = (Node::new(), pod());
    fs::create_dir(node.path("ipam")).unwrap();
    for text in [
        "",
        "{",
        "{\"version\":2,\"serial\":0,\"records\":[],\"freed\":[]}",
    ] {
        fs::write(node.path("ipam/store.json"), text).unwrap();
        let outcome = node.add("c1", &pod);
        assert_eq!(outcome.code(), 103, "{text:?}");
        assert!(outcome.text().contains("ipam/store.json"), "{outcome:?}");
        assert_eq!(
            fs::read_to_string(node.path("ipam/store.json")).unwrap(),
            text
        );
    }
}

#[test]
fn a11_a_host_interface_in_the_way_stays_and_the_address_is_free_again() {
    let (node, pod) = (Node::new(), pod());
    let name = node.add("c1", &pod).ok()["interfaces"][0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    node.del("c1", &pod).silent();
    node.netlink().create_link(&name, "bridge").unwrap();
    let before = node.netlink().link(&name).unwrap();
    let outcome = node.add("c1", &pod);
    assert_eq!(outcome.code(), 100);
    assert!(
        outcome.text().contains(&name) && outcome.text().contains("DEL removes it"),
        "{outcome:?}"
    );
    assert_eq!(node.netlink().link(&name).unwrap(), before);
    assert_eq!(node.used(), Vec::<String>::new());
    // What the message promises.
    node.del("c1", &pod).silent();
    node.add("c1", &pod).ok();
}

#[test]
fn a11_a_failure_inside_the_pod_is_undone() {
    let (node, pod) = (Node::new(), pod());
    // Another interface's routes to the gateway, with every metric that the plugin would take, make
    // its own fail.
    let netlink = Netlink::open_in(&pod).unwrap();
    netlink.create_link("net0", "bridge").unwrap();
    let index = netlink.link("net0").unwrap().index;
    netlink.set_up(index).unwrap();
    let mut route = Route::to("169.254.1.1/32".parse().unwrap()).on_link(index);
    netlink.add_route(&route).unwrap();
    route.priority = Some(2000 + index + 1);
    netlink.add_route(&route).unwrap();
    let outcome = node.add("c1", &pod);
    assert_eq!(outcome.code(), 100);
    assert!(
        outcome.text().contains("route 169.254.1.1/32"),
        "{outcome:?}"
    );
    assert_eq!(node.traces(), Vec::<String>::new());
    assert!(netlink.find_link("eth0").unwrap().is_none());
}

#[test]
fn a11_a_failure_after_adoption_is_undone_and_the_agent_is_told() {
    let (node, pod) = (Node::new(), pod());
    node.agent.mood(Mood::RemovesTheLink);
    assert_eq!(node.add("c1", &pod).code(), 100);
    node.assert_clean(&pod, "after the link vanished during adoption");
}

#[test]
fn a11_a_result_that_cannot_be_written_is_an_add_that_failed() {
    let (node, pod) = (Node::new(), pod());
    let call = Call::about("ADD", &node.config(), "c1", pod.path());
    let stdin = node.path("stdin");
    fs::write(&stdin, &call.stdin).unwrap();
    let mut command = call.command();
    command
        .stdin(File::open(stdin).unwrap())
        .stderr(Stdio::null());
    command.stdout(File::options().write(true).open("/dev/full").unwrap());
    let status = node.ns.run(|| command.status().unwrap()).unwrap();
    assert_eq!(status.code(), Some(1));
    node.assert_clean(&pod, "after a result that nobody got");
}

#[test]
fn a11_an_agent_that_answers_nonsense_or_nothing_is_undone() {
    let (node, pod) = (Node::new(), pod());
    for mood in [Mood::Nonsense, Mood::HangsUp] {
        node.agent.mood(mood);
        let code = node.add("c1", &pod).code();
        assert!(code == 100 || code == 11, "{mood:?}: {code}");
        node.agent.mood(Mood::InForce);
        node.assert_clean(&pod, &format!("{mood:?}"));
    }
}

#[test]
fn a11_a_failed_add_frees_its_address_for_the_next_one() {
    let (node, pod) = (Node::new(), pod());
    let config = node.config_with(json!({"ipam": {"ranges": [[{"subnet": "10.9.0.1/32"}]]}}));
    let add = Call::about("ADD", &config, "c1", pod.path());
    for _ in 0..3 {
        node.agent.mood(Mood::Refuses("try-again"));
        assert_eq!(node.run(&add).code(), 11);
    }
    node.agent.mood(Mood::InForce);
    assert_eq!(node.run(&add).ok()["ips"][0]["address"], "10.9.0.1/32");
}
