//! The lab itself: what the other tests stand on.

use std::time::Duration;

use weir_lab::leftovers::Census;
use weir_lab::{Lab, Listen, Outcome, Probe, Proto};

#[test]
fn nodes_reach_each_other_over_the_fabric_in_both_families() {
    let lab = Lab::builder().nodes(2).without_agents().start().unwrap();
    let ports = [
        Listen {
            proto: Proto::Tcp,
            port: 7000,
        },
        Listen {
            proto: Proto::Udp,
            port: 7000,
        },
    ];
    let server = lab.add_host_server(0, &ports).unwrap();
    let client = lab.add_host_server(1, &[]).unwrap();
    for address in lab.nodes[0].addresses {
        for proto in [Proto::Tcp, Proto::Udp] {
            let probe = Probe::new(address, 7000, proto).bytes(1200);
            let outcome = client.probe(probe).unwrap();
            assert!(
                matches!(&outcome, Outcome::Answer { from, .. } if from == "node/n1"),
                "{address} {proto:?}: {outcome:?}"
            );
        }
        assert_eq!(
            client.probe(Probe::tcp(address, 7001)).unwrap(),
            Outcome::Refused
        );
    }
    let seen = server.seen().unwrap();
    assert!(
        seen.iter().any(|seen| seen.port == 7001),
        "a refused SYN is recorded: {seen:?}"
    );
}

#[test]
fn a_dropped_lab_leaves_no_process_namespace_mount_or_cgroup() {
    let lab = Lab::builder().nodes(2).without_agents().start().unwrap();
    let server = lab.add_host_server(0, &[]).unwrap();
    let census = Census::of(&lab);
    let [processes, namespaces, _] = census.counts();
    // The fabric, two nodes and a server; each but the server has a network and a mount namespace.
    assert_eq!((processes, namespaces), (4, 6), "{census:?}");
    assert!(!census.remaining().is_empty());
    drop(server);
    drop(lab);
    assert_eq!(
        census.await_gone(Duration::from_secs(5)),
        Vec::<String>::new()
    );
}
