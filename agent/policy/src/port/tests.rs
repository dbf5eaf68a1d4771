use super::*;

use serde_json::{Value, json};

const LAST: u32 = 1 << 24;

fn set(ranges: &[(u32, u32)]) -> PortSet {
    PortSet::new(ranges.to_vec())
}

fn rule(ports: Value) -> Result<RulePorts, (String, String)> {
    let ports: Vec<NetworkPolicyPort> = serde_json::from_value(ports).unwrap();
    RulePorts::parse(&ports)
}

fn tcp(port: u32) -> u32 {
    (6 << 16) | port
}

#[test]
fn ranges_are_sorted_and_merged_where_they_touch() {
    assert_eq!(
        set(&[(5, 7), (1, 3), (3, 4), (6, 9), (6, 7)]).ranges(),
        [(1, 4), (5, 9)]
    );
    assert!(set(&[]).is_empty() && !set(&[(1, 2)]).is_empty());
    assert_eq!(
        set(&[(1, 3)]).union(&set(&[(2, 5), (9, 10)])).ranges(),
        [(1, 5), (9, 10)]
    );
}

#[test]
fn splitting_gives_what_both_hold_and_the_rest() {
    for (a, b, both, rest) in [
        (&[(0, 10)][..], &[][..], &[][..], &[(0, 10)][..]),
        (&[], &[(0, 10)], &[], &[]),
        (&[(0, 10)], &[(0, 10)], &[(0, 10)], &[]),
        (&[(0, 10)], &[(3, 5)], &[(3, 5)], &[(0, 3), (5, 10)]),
        (&[(3, 5)], &[(0, 10)], &[(3, 5)], &[]),
        (
            &[(0, 4), (6, 10)],
            &[(2, 8)],
            &[(2, 4), (6, 8)],
            &[(0, 2), (8, 10)],
        ),
        (
            &[(2, 8)],
            &[(0, 3), (4, 5), (7, 20)],
            &[(2, 3), (4, 5), (7, 8)],
            &[(3, 4), (5, 7)],
        ),
        (&[(0, 5)], &[(5, 10)], &[], &[(0, 5)]),
        (&[(5, 10)], &[(0, 5)], &[], &[(5, 10)]),
        (&[(0, 5), (5 + 1, 9)], &[(0, 20)], &[(0, 5), (6, 9)], &[]),
    ] {
        let (found_both, found_rest) = set(a).split(&set(b));
        assert_eq!(found_both.ranges(), both, "{a:?} {b:?}");
        assert_eq!(found_rest.ranges(), rest, "{a:?} {b:?}");
    }
}

#[test]
fn no_ports_are_everything_and_a_protocol_alone_is_all_its_ports() {
    assert_eq!(rule(json!([])).unwrap(), RulePorts::everything());
    assert_eq!(PortSet::everything().ranges(), [(0, LAST)]);
    for (name, proto) in [("TCP", 6), ("UDP", 17), ("SCTP", 132)] {
        let found = rule(json!([{"protocol": name}])).unwrap();
        assert_eq!(
            found.numeric.ranges(),
            [(proto << 16, (proto + 1) << 16)],
            "{name}"
        );
    }
}

#[test]
fn numbers_and_ranges_hold_both_their_ends() {
    let found = rule(json!([
        {"port": 80}, {"port": 443, "endPort": 443}, {"port": 8000, "endPort": 65535},
        {"port": 53, "protocol": "UDP"},
    ]));
    let udp = (17 << 16) | 53;
    let expect = [
        (tcp(80), tcp(81)),
        (tcp(443), tcp(444)),
        (tcp(8000), 7 << 16),
        (udp, udp + 1),
    ];
    assert_eq!(found.unwrap().numeric.ranges(), expect);
}

#[test]
fn names_are_looked_up_and_a_missing_one_allows_nothing() {
    let found = rule(json!([
        {"port": "http"}, {"port": 80}, {"port": "dns", "protocol": "UDP"}, {"port": "http"},
    ]))
    .unwrap();
    assert_eq!(found.named.len(), 2);
    let ports = found.resolve(|name| (name.name == "http").then_some(8080));
    assert_eq!(ports.ranges(), [(tcp(80), tcp(81)), (tcp(8080), tcp(8081))]);
    let only_a_name = rule(json!([{"port": "http"}])).unwrap();
    assert!(only_a_name.resolve(|_| None).is_empty());
}

#[test]
fn what_the_api_server_refuses_is_named_by_field() {
    for (port, field, reason) in [
        (json!({"protocol": "ICMP"}), "protocol", "none of TCP"),
        (json!({"protocol": "tcp"}), "protocol", "none of TCP"),
        (json!({"port": 0}), "port", "0 is not in 1-65535"),
        (json!({"port": -1}), "port", "-1 is not in"),
        (json!({"port": 65536}), "port", "65536 is not in"),
        (
            json!({"port": 443, "endPort": 80}),
            "endPort",
            "80 is below port 443",
        ),
        (
            json!({"port": 443, "endPort": 65536}),
            "endPort",
            "65536 is not in",
        ),
        (json!({"endPort": 80}), "endPort", "without port"),
        (
            json!({"port": "http", "endPort": 80}),
            "endPort",
            "named port",
        ),
        (json!({"port": ""}), "port", "port name"),
        (json!({"port": "80"}), "port", "port name"),
        (json!({"port": "Http"}), "port", "port name"),
        (json!({"port": "a--b"}), "port", "port name"),
        (json!({"port": "-a"}), "port", "port name"),
        (json!({"port": "a-"}), "port", "port name"),
        (json!({"port": "abcdefghijklmnop"}), "port", "port name"),
    ] {
        let (path, why) = rule(json!([{"port": 1}, port.clone()])).unwrap_err();
        assert_eq!(path, format!("ports[1].{field}"), "{port}");
        assert!(why.contains(reason), "{port}: {why}");
    }
    for name in ["a", "abcdefghijklmno", "p-1", "1p"] {
        rule(json!([{"port": name}])).unwrap();
    }
}

#[test]
fn a_pods_first_port_of_a_name_and_protocol_counts_and_sidecars_come_last() {
    let pod: Pod = serde_json::from_value(json!({"spec": {
        "containers": [
            {"name": "a", "ports": [{"name": "http", "containerPort": 80},
                {"containerPort": 81}, {"name": "bad", "containerPort": 0}]},
            {"name": "b", "ports": [{"name": "http", "containerPort": 8080},
                {"name": "http", "containerPort": 53, "protocol": "UDP"}]},
        ],
        "initContainers": [
            {"name": "c", "ports": [{"name": "setup", "containerPort": 1}]},
            {"name": "d", "restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 2},
                {"name": "http", "containerPort": 3}]},
        ],
    }}))
    .unwrap();
    let found: Vec<_> = named_ports(&pod)
        .into_iter()
        .map(|(name, number)| (name.name, name.proto.0, number))
        .collect();
    let expect = [("http", 6, 80), ("http", 17, 53), ("proxy", 6, 2)];
    assert_eq!(
        found,
        expect.map(|(name, proto, number)| (name.to_owned(), proto, number))
    );
    assert_eq!(named_ports(&Pod::default()), []);
}
