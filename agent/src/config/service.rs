//! The keys around Services.

use std::collections::BTreeSet;

use weir_abi::node::config::flags;

use super::Masquerade;
use crate::compile::{nat_ports::NatPorts, node_port::NodePortAddresses, service::ServiceName};

/// Whose sockets the cgroup hooks translate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketLb {
    /// Those of pods and of the node.
    #[default]
    All,
    /// Those of the node; pods' are left to the packet path (meshes that redirect inside the pod
    /// must see the Service's address).
    HostOnly,
}

/// How TCP from outside gets to a backend on another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodePortMode {
    /// From the node's own address, and back through it.
    #[default]
    Snat,
    /// From the client's address, and back straight from the backend's node.
    Dsr,
}

/// The word [`weir_abi::node::config::FLAGS`] of `CONFIG`.
pub fn flag_word(socket_lb: SocketLb, mode: NodePortMode, masquerade: Masquerade) -> u64 {
    let socket_lb = match socket_lb {
        SocketLb::All => 0,
        SocketLb::HostOnly => flags::SOCKET_LB_HOST_ONLY,
    };
    let mode = match mode {
        NodePortMode::Snat => 0,
        NodePortMode::Dsr => flags::DSR,
    };
    let masquerade = match masquerade {
        Masquerade::On => flags::MASQUERADE,
        Masquerade::Off => 0,
    };
    socket_lb | mode | masquerade
}

/// `primary`, or CIDRs by comma.
pub(super) fn parse_node_ports(text: &str) -> Result<NodePortAddresses, String> {
    if text == "primary" {
        return Ok(NodePortAddresses::Primary);
    }
    let parts = text.split(',').map(str::trim).filter(|s| !s.is_empty());
    let mut prefixes = Vec::new();
    for part in parts {
        match part.parse() {
            Ok(prefix) if part.contains('/') => prefixes.push(prefix),
            _ => {
                return Err(format!(
                    "{part:?} is no CIDR: give CIDRs by comma such as 192.0.2.0/24,2001:db8::/32, or primary alone"
                ));
            }
        }
    }
    if prefixes.is_empty() {
        return Err("expected CIDRs by comma, or primary: leave the key out for all".into());
    }
    Ok(NodePortAddresses::Within(prefixes))
}

/// `NAMESPACE/NAME` by comma.
pub(super) fn parse_services(text: &str) -> Result<BTreeSet<ServiceName>, String> {
    let parts = text.split(',').map(str::trim).filter(|s| !s.is_empty());
    let named = parts.map(|part| match part.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok(ServiceName::new(namespace, name))
        }
        _ => Err(format!(
            "{part:?} names no Service: expected NAMESPACE/NAME by comma, such as kube-system/kube-dns"
        )),
    });
    named.collect()
}

pub(super) fn parse_socket_lb(text: &str) -> Result<SocketLb, String> {
    match text {
        "all" => Ok(SocketLb::All),
        "host-only" => Ok(SocketLb::HostOnly),
        _ => Err("expected all or host-only".into()),
    }
}

pub(super) fn parse_node_port_mode(text: &str) -> Result<NodePortMode, String> {
    match text {
        "snat" => Ok(NodePortMode::Snat),
        "dsr" => Ok(NodePortMode::Dsr),
        _ => Err("expected snat or dsr".into()),
    }
}

/// `FIRST-LAST`.
pub(super) fn parse_nat_ports(text: &str) -> Result<NatPorts, String> {
    let wrong = || "expected FIRST-LAST, ports from 1024 to 65535, such as 61000-65535: a range that neither net.ipv4.ip_local_port_range nor NodePorts use";
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let port = |text: &str| text.trim().parse().ok().filter(|port: &u16| *port >= 1024);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(NatPorts { first, last }),
        _ => Err(wrong().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodeport_addresses_are_cidrs_or_primary_and_nothing_between() {
        assert_eq!(parse_node_ports("primary"), Ok(NodePortAddresses::Primary));
        let within = parse_node_ports("192.0.2.0/24, 2001:db8::/32").unwrap();
        let NodePortAddresses::Within(prefixes) = within else {
            panic!("{within:?}")
        };
        assert_eq!(prefixes.len(), 2);
        for bad in ["primary,192.0.2.0/24", "192.0.2.1", "x", "", ","] {
            let message = parse_node_ports(bad).unwrap_err();
            assert!(message.contains("CIDR"), "{bad}: {message}");
        }
    }

    #[test]
    fn services_are_named_with_their_namespace() {
        let services = parse_services("kube-system/kube-dns, a/b").unwrap();
        assert_eq!(
            services.into_iter().collect::<Vec<_>>(),
            [
                ServiceName::new("a", "b"),
                ServiceName::new("kube-system", "kube-dns")
            ]
        );
        for bad in ["kube-dns", "a/", "/b", "a/b/c"] {
            assert!(parse_services(bad).unwrap_err().contains("NAMESPACE/NAME"));
        }
    }

    #[test]
    fn nat_ports_are_a_range_above_the_privileged_ports() {
        let ports = parse_nat_ports("61000-65535").unwrap();
        assert_eq!((ports.first, ports.last), (61000, 65535));
        assert_eq!(ports.word(), 0xffff_ee48);
        assert!(ports.contains(61000) && ports.contains(65535) && !ports.contains(60999));
        for bad in ["61000", "61000-60000", "80-90", "61000-65536", "a-b", ""] {
            assert!(
                parse_nat_ports(bad).unwrap_err().contains("FIRST-LAST"),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_flag_word_has_a_bit_for_each_choice() {
        use Masquerade::{Off, On};
        let word = flag_word;
        assert_eq!(word(SocketLb::All, NodePortMode::Snat, Off), 0);
        assert_eq!(
            word(SocketLb::HostOnly, NodePortMode::Snat, Off),
            flags::SOCKET_LB_HOST_ONLY
        );
        assert_eq!(word(SocketLb::All, NodePortMode::Dsr, Off), flags::DSR);
        assert_eq!(
            word(SocketLb::All, NodePortMode::Snat, On),
            flags::MASQUERADE
        );
    }
}
