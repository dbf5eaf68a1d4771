//! The lab itself: what the other tests stand on.

use std::time::Duration;

use weir_lab::leftovers::Census;
use weir_lab::{Lab, Listen, Load, Outcome, Probe, Proto, Requests};

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
fn a_client_outside_has_addresses_of_its_own_and_chooses_its_port() {
    let lab = Lab::builder().nodes(1).without_agents().start().unwrap();
    let ports = [Proto::Tcp, Proto::Udp].map(|proto| Listen { proto, port: 7000 });
    let server = lab.add_host_server(0, &ports).unwrap();
    let client = lab.add_client(0).unwrap();
    for address in lab.nodes[0].addresses {
        for proto in [Proto::Tcp, Proto::Udp] {
            let probe = Probe::new(address, 7000, proto)
                .from_port(40123)
                .timeout_ms(4000);
            let outcome = client.probe(probe).unwrap();
            assert!(
                matches!(&outcome, Outcome::Answer { from, .. } if from == "node/n1"),
                "{address} {proto:?}: {outcome:?}"
            );
            let own = client.address(address.is_ipv4());
            let seen = server.seen().unwrap();
            let found = seen.iter().any(|seen| {
                seen.proto == proto && seen.from.ip() == own && seen.from.port() == 40123
            });
            assert!(found, "{own} {proto:?}: {seen:?}");
        }
    }
}

#[test]
fn a_load_counts_each_answer_and_fails_on_a_server_that_is_gone() {
    let lab = Lab::builder().nodes(1).without_agents().start().unwrap();
    let tcp = Listen {
        proto: Proto::Tcp,
        port: 7000,
    };
    let server = lab.add_host_server(0, &[tcp]).unwrap();
    let client = lab.add_client(0).unwrap();
    let load = |port, requests| {
        let load = Load {
            target: (lab.nodes[0].addresses[0], port).into(),
            requests,
            every_ms: 1,
            count: 20,
            limit_ms: 10_000,
        };
        client.control.load(load).unwrap()
    };
    // The pace is no reason to wait: the count ends it.
    let done = |running: weir_lab::control::RunningLoad| running.join().unwrap();
    let kept = done(load(7000, Requests::KeepAlive));
    assert_eq!(
        (kept.sent, kept.answered, kept.connections),
        (20, 20, 1),
        "{kept:?}"
    );
    assert_eq!(kept.by["node/n1"], 20);
    let short = done(load(7000, Requests::Short));
    assert_eq!((short.answered, short.connections), (20, 20), "{short:?}");
    server.drain().unwrap();
    let drained = done(load(7000, Requests::KeepAlive));
    assert_eq!(
        (drained.answered, drained.connections),
        (20, 20),
        "{drained:?}"
    );
    let refused = done(load(7001, Requests::Short));
    assert_eq!((refused.sent, refused.answered), (20, 0), "{refused:?}");
    assert_eq!(refused.errors.len(), 10);
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
