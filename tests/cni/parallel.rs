//! Many calls at once.

use std::{collections::HashSet, thread};

use serde_json::Value;
use weir_net::NetNs;

use crate::support::{Call, Node, pod};

#[test]
fn a14_64_concurrent_adds_give_64_addresses() {
    let node = Node::new();
    let pods: Vec<NetNs> = (0..64).map(|_| pod()).collect();
    let results: Vec<Value> = thread::scope(|scope| {
        let adds: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(n, pod)| {
                let node = &node;
                scope.spawn(move || node.add(&format!("c{n}"), pod).ok())
            })
            .collect();
        adds.into_iter().map(|add| add.join().unwrap()).collect()
    });
    for family in 0..2 {
        let addresses: HashSet<&str> = results
            .iter()
            .map(|r| r["ips"][family]["address"].as_str().unwrap())
            .collect();
        assert_eq!(addresses.len(), 64);
    }
    assert_eq!(node.used().len(), 128);
    // And all at once away again, while new ones come.
    let more: Vec<NetNs> = (0..16).map(|_| pod()).collect();
    thread::scope(|scope| {
        for (n, pod) in pods.iter().enumerate() {
            let node = &node;
            scope.spawn(move || node.del(&format!("c{n}"), pod).silent());
        }
        for (n, pod) in more.iter().enumerate() {
            let node = &node;
            scope.spawn(move || node.add(&format!("d{n}"), pod).ok());
        }
    });
    assert_eq!(node.used().len(), 32);
    assert_eq!(node.agent.endpoints().len(), 16);
    assert_eq!(node.netlink().links().unwrap().len(), 17);
    for pod in &pods {
        assert!(
            weir_net::Netlink::open_in(pod)
                .unwrap()
                .find_link("eth0")
                .unwrap()
                .is_none()
        );
    }
}

#[test]
fn a14_concurrent_adds_into_a_range_that_is_too_small_fill_it_exactly() {
    let node = Node::new();
    node.write_node_file(&["10.66.0.0/28"]);
    let pods: Vec<NetNs> = (0..20).map(|_| pod()).collect();
    let codes: Vec<Option<u64>> = thread::scope(|scope| {
        let adds: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(n, pod)| {
                let node = &node;
                scope.spawn(move || {
                    let outcome = node.add(&format!("c{n}"), pod);
                    (!outcome.status.success()).then(|| outcome.code())
                })
            })
            .collect();
        adds.into_iter().map(|add| add.join().unwrap()).collect()
    });
    assert_eq!(codes.iter().filter(|code| code.is_none()).count(), 14);
    assert_eq!(codes.iter().filter(|code| **code == Some(101)).count(), 6);
    assert_eq!(node.used().len(), 14);
}

#[test]
fn a15_two_interfaces_of_one_sandbox_may_be_attached_at_once() {
    let (node, pod) = (Node::new(), pod());
    thread::scope(|scope| {
        for ifname in ["eth0", "eth1", "eth2"] {
            let call =
                Call::about("ADD", &node.config(), "c1", pod.path()).env("CNI_IFNAME", ifname);
            let node = &node;
            scope.spawn(move || node.run(&call).ok());
        }
    });
    assert_eq!(node.used().len(), 6);
    thread::scope(|scope| {
        for ifname in ["eth0", "eth1", "eth2"] {
            let call =
                Call::about("DEL", &node.config(), "c1", pod.path()).env("CNI_IFNAME", ifname);
            let node = &node;
            scope.spawn(move || node.run(&call).silent());
        }
    });
    node.assert_clean(&pod, "after DEL");
}
