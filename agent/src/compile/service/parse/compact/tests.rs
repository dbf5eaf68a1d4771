use std::fmt::Debug;

use proptest::prelude::*;

use super::*;

fn comes_back<T: Field + PartialEq + Debug>(value: &T) -> Result<(), TestCaseError> {
    let mut bytes = Vec::new();
    value.put(&mut bytes);
    bytes.extend([7, 8]);
    let mut from = &*bytes;
    prop_assert_eq!(&T::take(&mut from), value);
    prop_assert_eq!(from, [7, 8]);
    Ok(())
}

fn text() -> impl Strategy<Value = Box<str>> {
    prop_oneof![Just(String::new()), ".{1,9}", "x{120,140}"].prop_map(Into::into)
}

fn addr() -> impl Strategy<Value = Addr> {
    any::<IpAddr>().prop_map(Addr::from)
}

fn addrs() -> impl Strategy<Value = Box<[Addr]>> {
    prop::collection::vec(addr(), 0..3).prop_map(Into::into)
}

fn port() -> impl Strategy<Value = Port> {
    (text(), any::<u16>(), any::<u8>()).prop_map(|(name, number, proto)| Port {
        name,
        number,
        proto: Proto(proto),
    })
}

fn problems() -> impl Strategy<Value = Vec<Problem>> {
    let problem = [text(), text(), text()].prop_map(|texts| {
        let [object, field, message] = texts.map(String::from);
        Problem {
            object,
            field,
            message,
        }
    });
    prop::collection::vec(problem, 0..3)
}

fn endpoint() -> impl Strategy<Value = ParsedEndpoint> {
    use NodeHint::{None, Others, This};
    use Readiness::{NotReady, Ready, Terminating};
    (
        addr(),
        prop::sample::select(vec![NotReady, Terminating, Ready]),
        any::<[u8; 16]>(),
        (text(), text(), any::<bool>()),
        prop::sample::select(vec![None, Others, This]),
        prop::collection::vec(text(), 0..3),
    )
        .prop_map(
            |(addr, readiness, uid, (pod, node, is_local), for_node, zones)| ParsedEndpoint {
                addr,
                readiness,
                uid,
                pod,
                node,
                is_local,
                for_node,
                for_zones: zones.into(),
            },
        )
}

fn service() -> impl Strategy<Value = ParsedService> {
    use TrafficPolicy::{Cluster, Local};
    let kinds = [
        ServiceType::ClusterIp,
        ServiceType::NodePort,
        ServiceType::LoadBalancer,
    ];
    let port = (port(), any::<usize>(), any::<Option<u16>>()).prop_map(|(port, at, node_port)| {
        ServicePort {
            port,
            at,
            node_port,
        }
    });
    let range = (addr(), 0..32u32).prop_map(|(addr, len)| RangeKey::prefix(0, addr, len));
    (
        (prop::sample::select(kinds.to_vec()), any::<i64>()),
        [addrs(), addrs(), addrs()],
        prop::collection::vec(port, 0..3),
        prop::sample::select(vec![(Cluster, Local), (Local, Cluster)]),
        (any::<u32>(), any::<Option<u16>>()),
        prop::option::of(prop::collection::vec(range, 0..3)),
        problems(),
    )
        .prop_map(
            |(
                (kind, created),
                [cluster_ips, external_ips, ingress_ips],
                ports,
                (internal, external),
                (affinity_secs, health_port),
                ranges,
                problems,
            )| ParsedService {
                kind,
                created,
                cluster_ips,
                external_ips,
                ingress_ips,
                ports: ports.into(),
                internal,
                external,
                affinity_secs,
                ranges: ranges.map(Into::into),
                health_port,
                problems,
            },
        )
}

proptest! {
    #[test]
    fn what_counts_of_a_service_comes_back_as_it_was(service in service()) {
        comes_back(&service)?;
    }

    #[test]
    fn what_counts_of_a_slice_comes_back_as_it_was(
        names in [text(), text()],
        ports in prop::collection::vec(port(), 0..3),
        endpoints in prop::collection::vec(endpoint(), 0..4),
        problems in problems(),
    ) {
        comes_back(&ParsedSlice {
            service: ServiceName::new(&names[0], &names[1]),
            ports: ports.into(),
            endpoints: endpoints.into(),
            problems,
        })?;
    }

    #[test]
    fn bytes_that_nobody_wrote_are_read_to_an_end(bytes in any::<Vec<u8>>()) {
        // Too few bytes are followed by zeros.
        let slice = ParsedSlice::take(&mut &*bytes);
        prop_assert!(slice.endpoints.len() <= bytes.len());
    }
}
