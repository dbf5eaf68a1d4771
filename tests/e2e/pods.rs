//! Pods reach pods: on one node, across nodes, and their node; both families.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use weir_lab::{Exchange, Lab, Listen, Outcome, Pod, PodSpec, Probe, Proto};

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

#[test]
fn the_very_first_packet_between_two_pods_is_not_lost() {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let pod = |name: &str, node| {
        lab.add_pod(&PodSpec::new("default", name, node).port(UDP, "dns"))
            .unwrap()
    };
    let (a, b, c) = (pod("a", 0), pod("b", 0), pod("c", 1));
    for (from, to) in [(&a, &c), (&c, &b), (&b, &a)] {
        for address in [to.v4(), to.v6()] {
            // An exchange never sends a datagram again: a lost one ends it.
            let target = SocketAddr::new(address, UDP.port);
            let proto = Proto::Udp;
            let running = from.exchange(Exchange {
                target,
                proto,
                every_ms: 1,
            });
            let running = running.unwrap();
            let deadline = Instant::now() + Duration::from_secs(5);
            let source = like(from, address);
            let arrived = || {
                to.seen()
                    .unwrap()
                    .iter()
                    .any(|seen| seen.from.ip() == source)
            };
            while !arrived() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
            let report = running.stop().unwrap();
            assert_eq!(
                report.error,
                None,
                "{} to {address}: {report:?}",
                from.key()
            );
            assert!(
                report.received > 0 && report.received == report.sent,
                "{report:?}"
            );
        }
    }
}

/// A pod's address of the same family as another address.
fn like(pod: &Pod, address: IpAddr) -> IpAddr {
    if address.is_ipv4() {
        pod.v4()
    } else {
        pod.v6()
    }
}
