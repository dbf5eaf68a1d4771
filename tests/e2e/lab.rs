//! The lab itself: what the other tests stand on.

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
