//! ClusterNetworkPolicies: what peers and protocols match, over both families.

use serde_json::{Value, json};

use crate::policies::FREE;
use crate::support::{check, cluster_policy, of, pod, tiers};

const OUT: &str = "allow not-subject";

/// A rule of that action towards these peers, of a/db's egress.
#[track_caller]
fn egress(action: &str, to: Value, target: &str, matches: bool) {
    let rule = json!([{"action": action, "to": to}]);
    let c = tiers(
        &[cluster_policy("x", "Admin", json!({"egress": rule}))],
        &[],
    );
    let wanted = match (matches, action) {
        (false, _) => FREE,
        (true, "Deny") => "deny rule x:spec.egress[0]",
        (true, "Accept") => "allow rule x:spec.egress[0]",
        (true, _) => "allow pass x:spec.egress[0]",
    };
    let other = if target.contains('/') && !target.ends_with("host") {
        FREE
    } else {
        OUT
    };
    check(&c, "a/db", target, "80/tcp", wanted, other);
}

#[test]
fn namespaces_and_pods_match_pods_that_are_not_on_the_hosts_network_and_nothing_else() {
    let app = |app: &str| json!({"matchLabels": {"app": app}});
    let blue = json!({"matchLabels": {"team": "blue"}});
    for action in ["Accept", "Deny", "Pass"] {
        for (peer, target, matches) in [
            (json!({"namespaces": {}}), "b/web", true),
            (json!({"namespaces": blue}), "b/web", true),
            (json!({"namespaces": blue}), "a/web", false),
            (
                json!({"pods": {"namespaceSelector": blue, "podSelector": {}}}),
                "b/web",
                true,
            ),
            (
                json!({"pods": {"namespaceSelector": blue, "podSelector": app("db")}}),
                "b/web",
                false,
            ),
            (json!({"pods": {"podSelector": app("web")}}), "b/web", true),
            (json!({"namespaces": {}}), "a/host", false),
            (json!({"namespaces": {}}), "node:n2", false),
            (json!({"pods": {"podSelector": {}}}), "203.0.113.1", false),
            (json!({"pods": {"podSelector": {}}}), "2001:db8::1", false),
        ] {
            egress(action, json!([peer]), target, matches);
        }
    }
}

#[test]
fn networks_match_whatever_address_lies_in_them() {
    for (networks, target, matches) in [
        (json!(["203.0.113.0/24"]), "203.0.113.9", true),
        (json!(["203.0.113.0/24"]), "203.0.114.9", false),
        (
            json!(["198.51.100.0/24", "2001:db8::/32"]),
            "2001:db8::1",
            true,
        ),
        (json!(["0.0.0.0/0"]), "2001:db8::1", false),
        (json!(["::/0"]), "203.0.113.9", false),
        // Those of pods, of nodes, and of pods that nobody knows.
        (json!(["10.2.0.0/16", "fd02::/16"]), "b/web", true),
        (json!(["192.168.0.2/32", "fd00::2/128"]), "node:n2", true),
        (json!(["192.168.0.1/32", "fd00::1/128"]), "a/host", true),
        (json!(["10.2.0.0/16"]), "10.2.7.7", true),
        // Host bits are masked.
        (json!(["203.0.113.77/24"]), "203.0.113.9", true),
    ] {
        for action in ["Accept", "Deny", "Pass"] {
            egress(action, json!([{"networks": networks}]), target, matches);
        }
    }
}

#[test]
fn nodes_match_every_address_of_the_selected_nodes_and_no_pod() {
    let role = |role: &str| json!([{"nodes": {"matchLabels": {"role": role}}}]);
    for (peer, target, matches) in [
        (role("N2"), "node:n2", true),
        (role("N2"), "node:n1", false),
        (role("N2"), "192.168.0.2", true),
        (role("N2"), "fd00::2", true),
        (json!([{"nodes": {}}]), "node:n1", true),
        (role("N1"), "a/host", true),
        (role("N2"), "a/host", false),
        (json!([{"nodes": {}}]), "b/web", false),
        (json!([{"nodes": {}}]), "203.0.113.1", false),
        (json!([{"nodes": {}}]), "10.2.7.7", false),
    ] {
        for action in ["Accept", "Deny", "Pass"] {
            egress(action, peer.clone(), target, matches);
        }
    }
    // Addresses of every type count.
    let rule = json!([{"action": "Deny", "to": [{"nodes": {}}]}]);
    let mut c = tiers(
        &[cluster_policy("x", "Admin", json!({"egress": rule}))],
        &[],
    );
    let addresses = c.nodes[0]
        .status
        .as_mut()
        .unwrap()
        .addresses
        .as_mut()
        .unwrap();
    addresses.push(of(json!({"type": "ExternalIP", "address": "203.0.113.5"})));
    addresses.push(of(json!({"type": "Hostname", "address": "203.0.113.6"})));
    let deny = "deny rule x:spec.egress[0]";
    check(&c, "a/db", "203.0.113.5", "80/tcp", deny, OUT);
    check(&c, "a/db", "203.0.113.6", "80/tcp", deny, OUT);
    check(&c, "a/db", "203.0.113.7", "80/tcp", FREE, OUT);
}

#[test]
fn domain_names_match_nothing_yet() {
    egress(
        "Accept",
        json!([{"domainNames": ["a.b", "*.c.d"]}]),
        "203.0.113.1",
        false,
    );
    let two = json!([{"domainNames": ["a.b"]}, {"networks": ["203.0.113.0/24"]}]);
    egress("Accept", two, "203.0.113.1", true);
}

#[test]
fn one_of_several_peers_is_enough() {
    let peers = json!([{"nodes": {}}, {"networks": ["203.0.113.0/24"]}, {"namespaces": {}}]);
    for target in ["node:n2", "203.0.113.1", "b/web"] {
        egress("Deny", peers.clone(), target, true);
    }
    egress("Deny", peers, "198.51.100.1", false);
}

/// At a/db: what an unknown pod of n2 gets, and what it may send to one.
#[track_caller]
fn unknown(action: &str, protocols: Value, port: &str, ingress: &str, egress: &str) {
    let rule = |peers: &str| {
        let peer = json!({"pods": {"podSelector": {"matchLabels": {"no": "one"}}}});
        json!([{"action": action, peers: [peer], "protocols": protocols}])
    };
    let change = json!({"ingress": rule("from"), "egress": rule("to")});
    let c = tiers(&[cluster_policy("x", "Admin", change)], &[]);
    for address in ["10.2.7.7", "fd02::7"] {
        check(&c, address, "a/db", port, OUT, ingress);
        check(&c, "a/db", address, port, egress, OUT);
    }
}

#[test]
fn deny_rules_by_selector_match_unknown_pods_and_no_other_rule_does() {
    let (deny_in, deny_out) = ("deny rule x:spec.ingress[0]", "deny rule x:spec.egress[0]");
    unknown("Deny", Value::Null, "80/tcp", deny_in, deny_out);
    unknown("Deny", Value::Null, "icmp", deny_in, deny_out);
    unknown("Accept", Value::Null, "80/tcp", FREE, FREE);
    unknown("Pass", Value::Null, "80/tcp", FREE, FREE);
    let port = json!([{"tcp": {"destinationPort": {"number": 80}}}]);
    unknown("Deny", port.clone(), "80/tcp", deny_in, deny_out);
    unknown("Deny", port, "81/tcp", FREE, FREE);
    // What an unknown pod calls http nobody knows; a/db calls 8080 so.
    let named = json!([{"destinationNamedPort": "http"}]);
    unknown("Deny", named.clone(), "81/udp", FREE, deny_out);
    unknown("Deny", named.clone(), "8080/tcp", deny_in, deny_out);
    unknown("Deny", named, "icmp", FREE, FREE);
}

#[test]
fn an_address_is_an_unknown_pod_only_while_no_known_pod_has_it() {
    let rule =
        json!([{"action": "Deny", "from": [{"namespaces": {"matchLabels": {"no": "one"}}}]}]);
    let mut c = tiers(
        &[cluster_policy("x", "Admin", json!({"ingress": rule}))],
        &[],
    );
    let deny = "deny rule x:spec.ingress[0]";
    check(&c, "10.2.7.7", "a/db", "80/tcp", OUT, deny);
    c.pods.push(of(pod(
        "late",
        "late",
        &["10.2.7.7"],
        json!({"metadata": {"namespace": "b"}}),
    )));
    check(&c, "10.2.7.7", "a/db", "80/tcp", FREE, FREE);
    c.pods[4].status.as_mut().unwrap().phase = Some("Failed".to_owned());
    check(&c, "10.2.7.7", "a/db", "80/tcp", OUT, deny);
    // A node may have one as well.
    let addresses = c.nodes[1]
        .status
        .as_mut()
        .unwrap()
        .addresses
        .as_mut()
        .unwrap();
    addresses.push(of(json!({"type": "InternalIP", "address": "10.2.0.254"})));
    check(&c, "10.2.0.254", "a/db", "80/tcp", OUT, FREE);
    // The first of podCIDRs and podCIDR that says something counts.
    c.nodes[1].spec = Some(of(json!({"podCIDR": "10.9.0.0/16"})));
    check(&c, "10.2.7.7", "a/db", "80/tcp", OUT, FREE);
    check(&c, "10.9.7.7", "a/db", "80/tcp", OUT, deny);
    c.nodes[1].spec = Some(of(
        json!({"podCIDR": "10.9.0.0/16", "podCIDRs": ["10.2.0.0/16"]}),
    ));
    check(&c, "10.9.7.7", "a/db", "80/tcp", OUT, FREE);
}

#[test]
fn protocols_match_by_protocol_number_and_range_and_icmp_none() {
    let number = |protocol: &str, n: u32| json!([{protocol: {"destinationPort": {"number": n}}}]);
    let range = |protocol: &str, start: u32, end: u32| json!([{protocol: {"destinationPort": {"range": {"start": start, "end": end}}}}]);
    for (protocols, flow, matches) in [
        (Value::Null, "80/tcp", true),
        (Value::Null, "icmp", true),
        (number("tcp", 80), "80/tcp", true),
        (number("tcp", 80), "80/udp", false),
        (number("tcp", 80), "81/tcp", false),
        (number("udp", 80), "80/udp", true),
        (number("sctp", 80), "80/sctp", true),
        (number("sctp", 80), "80/tcp", false),
        (number("tcp", 65535), "65535/tcp", true),
        (range("tcp", 80, 90), "80/tcp", true),
        (range("tcp", 80, 90), "90/tcp", true),
        (range("tcp", 80, 90), "79/tcp", false),
        (range("tcp", 80, 90), "91/tcp", false),
        (range("udp", 1, 65535), "65535/udp", true),
        (range("udp", 1, 65535), "icmp", false),
        (
            json!([{"udp": {"destinationPort": {"number": 80}}}, {"tcp": {"destinationPort": {"number": 80}}}]),
            "80/tcp",
            true,
        ),
    ] {
        let rule =
            json!([{"action": "Deny", "from": [{"namespaces": {}}], "protocols": protocols}]);
        let c = tiers(
            &[cluster_policy("x", "Baseline", json!({"ingress": rule}))],
            &[],
        );
        let wanted = if matches {
            "deny rule x:spec.ingress[0]"
        } else {
            FREE
        };
        check(&c, "b/web", "a/db", flow, FREE, wanted);
    }
}

#[test]
fn a_named_port_is_the_destination_pods_for_each_of_its_protocols() {
    let named = |name: &str| json!([{"destinationNamedPort": name}]);
    for (name, flow, matches) in [
        ("http", "8080/tcp", true),
        ("http", "8080/udp", false),
        ("http", "80/tcp", false),
        ("dns", "5353/udp", true),
        ("dns", "5353/tcp", false),
        ("both", "1000/tcp", true),
        ("both", "2000/udp", true),
        ("both", "3000/sctp", true),
        ("both", "2000/tcp", false),
        ("nix", "8080/tcp", false),
        // No pod can have it, and the API server lets it pass.
        ("NO_NAME", "8080/tcp", false),
        ("http", "icmp", false),
    ] {
        let port = |number: u16, protocol: &str| json!({"name": "both", "containerPort": number, "protocol": protocol});
        let both = json!({"spec": {"containers": [{"name": "c", "ports": [
            {"name": "http", "containerPort": 8080},
            {"name": "dns", "containerPort": 5353, "protocol": "UDP"},
            port(1000, "TCP"), port(2000, "UDP"), port(3000, "SCTP"),
        ]}]}});
        let db = pod("db", "db", &["10.1.0.2", "fd01::2"], both);
        let everyone = json!([{"namespaces": {}}]);
        let ingress = json!([{"action": "Deny", "from": everyone, "protocols": named(name)}]);
        let egress = json!([{"action": "Deny", "to": everyone, "protocols": named(name)}]);
        let web =
            json!({"pods": {"podSelector": {"matchLabels": {"app": "web"}}}, "namespaces": null});
        let mut c = tiers(
            &[
                cluster_policy("x", "Admin", json!({"ingress": ingress})),
                cluster_policy("y", "Admin", json!({"subject": web, "egress": egress})),
            ],
            &[],
        );
        c.pods[1] = of(db);
        let at = |wanted: &'static str| if matches { wanted } else { FREE };
        let (out, deny) = (
            at("deny rule y:spec.egress[0]"),
            at("deny rule x:spec.ingress[0]"),
        );
        check(&c, "b/web", "a/db", flow, out, deny);
    }
}
