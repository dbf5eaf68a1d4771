//! Hosts outside the cluster: one for every ipBlock and every network of the policies and one for each
//! exception, so that the matrix shows both.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::plan::{OutsideHost, list, number};
use crate::wire::{Listen, Proto};

/// Ranges a host outside cannot have: pods, services, nodes, and what is no unicast address.
const TAKEN: [&str; 10] = [
    "10.244.0.0/16",
    "10.96.0.0/16",
    "172.18.0.0/24",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/3",
    "fd00:10::/32",
    "fd00:18::/64",
    "fe80::/10",
    "ff00::/8",
];
/// Most hosts; further ipBlocks are judged by the oracle and the tests, not by the demo.
const MOST: usize = 12;
/// The port a host listens on where a rule with an ipBlock names none.
const DEFAULT_PORT: u16 = 443;

/// The hosts for a list of policies of both kinds, sorted by address.
pub fn hosts(policies: &[Value]) -> Vec<OutsideHost> {
    let mut addresses = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for policy in policies {
        for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in list(&policy["spec"][rules]) {
                let blocks: Vec<Value> = list(&rule[peers]).iter().flat_map(blocks).collect();
                addresses.extend(blocks.iter().flat_map(in_block));
                if rules == "egress" && !blocks.is_empty() {
                    ports.extend(list(&rule["ports"]).iter().filter_map(listen));
                    ports.extend(list(&rule["protocols"]).iter().filter_map(cluster_listen));
                }
            }
        }
    }
    if ports.is_empty() {
        ports.insert(Listen {
            proto: Proto::Tcp,
            port: DEFAULT_PORT,
        });
    }
    let declared: Vec<Listen> = ports.into_iter().collect();
    addresses
        .into_iter()
        .take(MOST)
        .map(|address| OutsideHost {
            address,
            declared: declared.clone(),
        })
        .collect()
}

/// A peer's `ipBlock`, or its `networks` as such.
fn blocks(peer: &Value) -> Vec<Value> {
    let block = Some(&peer["ipBlock"]).filter(|block| block.is_object());
    let networks = list(&peer["networks"]).iter();
    let networks = networks.map(|cidr| json!({"cidr": cidr}));
    block.cloned().into_iter().chain(networks).collect()
}

/// A port of a ClusterNetworkPolicy's `protocols`, the first of a range.
fn cluster_listen(protocol: &Value) -> Option<Listen> {
    let known = [
        ("tcp", Proto::Tcp),
        ("udp", Proto::Udp),
        ("sctp", Proto::Sctp),
    ];
    known.into_iter().find_map(|(field, proto)| {
        let port = &protocol[field]["destinationPort"];
        let port = number(&port["number"]).or_else(|| number(&port["range"]["start"]))?;
        Some(Listen { proto, port })
    })
}

fn listen(port: &Value) -> Option<Listen> {
    Some(Listen {
        proto: Proto::parse(port["protocol"].as_str())?,
        port: number(&port["port"])?,
    })
}

/// An address in the block and in none of its exceptions, and one in each exception.
fn in_block(block: &Value) -> Vec<IpAddr> {
    let parse = |value: &Value| {
        value
            .as_str()
            .and_then(|text| text.parse::<IpNetwork>().ok())
    };
    let Some(cidr) = parse(&block["cidr"]) else {
        return Vec::new();
    };
    let exceptions: Vec<IpNetwork> = list(&block["except"]).iter().filter_map(parse).collect();
    let inside = candidates(cidr)
        .into_iter()
        .find(|address| !exceptions.iter().any(|network| network.contains(*address)));
    let excepted = exceptions
        .iter()
        .filter_map(|network| candidates(*network).first().copied());
    inside.into_iter().chain(excepted).collect()
}

/// Addresses of a network that a host outside may have, best first. Of "everything" a
/// documentation address (RFC 5737, RFC 3849) is taken.
fn candidates(network: IpNetwork) -> Vec<IpAddr> {
    let at = |offset: u32| -> IpAddr {
        match network.network() {
            IpAddr::V4(base) => Ipv4Addr::from(u32::from(base).wrapping_add(offset)).into(),
            IpAddr::V6(base) => {
                Ipv6Addr::from(u128::from(base).wrapping_add(u128::from(offset))).into()
            }
        }
    };
    let documentation: [IpAddr; 2] = [
        Ipv4Addr::new(192, 0, 2, 10).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10).into(),
    ];
    let spread = [10, 1, 0, 70, 140, 210, 1000, 100_000, 1 << 24].map(at);
    let first = documentation.into_iter().filter(|_| network.prefix() == 0);
    first
        .chain(spread)
        .filter(|address| network.contains(*address) && is_free(*address))
        .collect()
}

/// Whether a host outside may have the address.
pub fn is_free(address: IpAddr) -> bool {
    let taken = TAKEN
        .iter()
        .filter_map(|text| text.parse::<IpNetwork>().ok());
    !taken.into_iter().any(|network| network.contains(address)) && !address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cidr: &str, except: &[&str]) -> Vec<String> {
        in_block(&json!({"cidr": cidr, "except": except}))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_block_gives_one_host_inside_and_one_in_each_exception() {
        assert_eq!(
            of("203.0.113.0/24", &["203.0.113.128/25"]),
            ["203.0.113.10", "203.0.113.138"]
        );
        assert_eq!(
            of("203.0.113.0/24", &["203.0.113.0/26"]),
            ["203.0.113.70", "203.0.113.10"]
        );
        assert_eq!(of("2001:db8:1::/48", &[]), ["2001:db8:1::a"]);
        assert_eq!(of("198.51.100.7/32", &[]), ["198.51.100.7"]);
    }

    #[test]
    fn everything_gives_a_documentation_address_and_the_pods_own_range_gives_none() {
        assert_eq!(of("0.0.0.0/0", &[]), ["192.0.2.10"]);
        assert_eq!(of("::/0", &[]), ["2001:db8::10"]);
        assert_eq!(of("10.0.0.0/8", &[]), ["10.0.0.10"]);
        assert!(of("10.244.0.0/16", &[]).is_empty());
        assert!(of("no network", &[]).is_empty());
    }

    #[test]
    fn hosts_listen_on_the_ports_of_egress_rules_with_blocks() {
        let policy = json!({"spec": {
            "egress": [{"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}],
                        "ports": [{"port": 8443}, {"port": 53, "protocol": "UDP"}]}],
            "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 1}]}],
        }});
        let hosts = hosts(&[policy]);
        assert_eq!(hosts.len(), 1);
        assert_eq!(
            hosts[0]
                .declared
                .iter()
                .map(|listen| listen.port)
                .collect::<Vec<_>>(),
            [8443, 53]
        );
    }

    #[test]
    fn networks_of_cluster_policies_give_hosts_that_listen_on_their_ports() {
        let policy = json!({"spec": {"egress": [{
            "to": [{"networks": ["203.0.113.0/24", "2001:db8::/32"]}, {"namespaces": {}}],
            "protocols": [
                {"tcp": {"destinationPort": {"number": 8443}}},
                {"udp": {"destinationPort": {"range": {"start": 53, "end": 54}}}},
                {"destinationNamedPort": "http"},
            ],
        }]}});
        let hosts = hosts(&[policy]);
        let addresses: Vec<String> = hosts.iter().map(|h| h.address.to_string()).collect();
        assert_eq!(addresses, ["203.0.113.10", "2001:db8::a"]);
        let ports: Vec<u16> = hosts[0].declared.iter().map(|l| l.port).collect();
        assert_eq!(ports, [8443, 53]);
    }
}
