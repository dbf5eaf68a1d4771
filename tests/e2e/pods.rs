//! Pods reach pods: on one node, across nodes, and their node; both families.

use weir_lab::{Lab, Listen, Outcome, PodSpec, Probe, Proto};

const TCP: Listen = Listen {
    proto: Proto::Tcp,
    port: 8080,
};
const UDP: Listen = Listen {
    proto: Proto::Udp,
    port: 8080,
};

#[test]
fn pods_reach_pods_on_one_node_and_across_nodes_in_both_families() {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let pod = |name: &str, node| {
        lab.add_pod(
            &PodSpec::new("default", name, node)
                .port(TCP, "web")
                .port(UDP, "dns"),
        )
        .unwrap()
    };
    let (a, b, c) = (pod("a", 0), pod("b", 0), pod("c", 1));
    for (from, to) in [(&a, &b), (&b, &a), (&a, &c), (&c, &b), (&c, &c)] {
        for address in [to.v4(), to.v6()] {
            for proto in [Proto::Tcp, Proto::Udp] {
                let outcome = from
                    .probe(Probe::new(address, 8080, proto).bytes(900).timeout_ms(4000))
                    .unwrap();
                assert!(
                    matches!(&outcome, Outcome::Answer { from, .. } if *from == to.key()),
                    "{} to {} {address} {proto:?}: {outcome:?}",
                    from.key(),
                    to.key(),
                );
            }
            let refused = from.probe(Probe::tcp(address, 8081)).unwrap();
            assert_eq!(refused, Outcome::Refused, "{} to {address}", from.key());
        }
    }
}
