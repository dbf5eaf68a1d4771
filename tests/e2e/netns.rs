//! Whose sockets are in which network namespace: what the agent tells the socket hooks.

use std::collections::HashMap;

use weir_abi::map;
use weir_abi::node::{NetnsOwner, netns};
use weir_agent::dataplane::pins::Pins;
use weir_agent::dataplane::table::{Table, Writes};
use weir_lab::node::Node;
use weir_lab::spawn::run_in;
use weir_lab::{Lab, PodSpec};
use weir_net::NetNs;

use crate::wait::await_that;

fn table(node: &Node) -> Table<u64, NetnsOwner> {
    let pins = Pins::new(&node.path("/sys/fs/bpf/weir"));
    Table::open(&pins, map::NETNS, &Writes::default()).unwrap()
}

fn owners(node: &Node) -> HashMap<u64, NetnsOwner> {
    table(node).entries().unwrap()
}

#[test]
fn a_pods_namespace_is_its_own_from_add_to_del_and_the_nodes_is_the_nodes() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    let own = run_in(&node.place(), || Ok(NetNs::current_cookie()?)).unwrap();
    let expected = NetnsOwner {
        addr4: node
            .addresses
            .iter()
            .find(|a| a.is_ipv4())
            .copied()
            .map(Into::into)
            .unwrap(),
        addr6: node
            .addresses
            .iter()
            .find(|a| a.is_ipv6())
            .copied()
            .map(Into::into)
            .unwrap(),
        flags: netns::NODE,
        zero: 0,
    };
    assert_eq!(owners(node), HashMap::from([(own, expected)]));

    let pod = lab.add_pod(&PodSpec::new("default", "a", 0)).unwrap();
    let endpoints = node.client().endpoints().unwrap();
    let attachment = endpoints[0].attachment.clone();
    let cookie = attachment.netns_cookie.expect("the plugin says it");
    let owner = owners(node)[&cookie];
    for (address, of) in [(owner.addr4, true), (owner.addr6, false)] {
        let has = attachment.addresses.iter().find(|a| a.is_ipv4() == of);
        assert_eq!(Some(&address.to_ip()), has);
    }
    assert_eq!(owner.flags, 0);

    // What an older plugin would ask for.
    let mut older = attachment;
    older.netns_cookie = None;
    node.client().adopt(&older).unwrap();
    await_that("without a cookie there is no entry", || {
        owners(node).len() == 1
    });
    lab.remove_pod(&pod).unwrap();
}

#[test]
fn a_pods_namespace_is_nobodys_after_del() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let node = &lab.nodes[0];
    let pod = lab.add_pod(&PodSpec::new("default", "a", 0)).unwrap();
    assert_eq!(owners(node).len(), 2);
    lab.remove_pod(&pod).unwrap();
    await_that("only the node's is left", || owners(node).len() == 1);
}

#[test]
fn namespaces_of_endpoints_that_are_gone_and_of_former_nodes_are_swept() {
    let lab = Lab::builder().nodes(1).start().unwrap();
    let before = owners(&lab.nodes[0]);
    lab.nodes[0].kill_agent();
    let mut table = table(&lab.nodes[0]);
    for (cookie, flags) in [(u64::MAX, 0), (u64::MAX - 1, netns::NODE)] {
        let owner = NetnsOwner {
            flags,
            ..NetnsOwner::default()
        };
        table.insert(&cookie, &owner).unwrap();
    }
    lab.nodes[0].start_agent().unwrap();
    await_that("both are removed", || owners(&lab.nodes[0]) == before);
}
