//! Which of the node's addresses serve NodePorts (`--nodeport-addresses`).

use std::net::IpAddr;

use weir_net::IpNetwork;

/// The configured choice, with kube-proxy's meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// Every address of the node but IPv6 link-local ones.
    #[default]
    All,
    /// The first InternalIP of each family in the Node object.
    Primary,
    /// Those in one of these prefixes; of a family without a prefix all, as kube-proxy does.
    Within(Vec<IpNetwork>),
}

impl NodePortAddresses {
    /// Whether NodePorts are served at one of the node's addresses, whose Node object lists
    /// `internal` as InternalIPs, in its order.
    pub fn serve(&self, address: IpAddr, internal: &[IpAddr]) -> bool {
        if address.is_loopback() || is_link_local_v6(address) {
            return false;
        }
        let same_family = |other: &&IpAddr| other.is_ipv4() == address.is_ipv4();
        match self {
            Self::All => true,
            Self::Primary => internal.iter().find(same_family) == Some(&address),
            Self::Within(prefixes) => {
                let mut own = prefixes
                    .iter()
                    .filter(|prefix| prefix.is_ipv4() == address.is_ipv4())
                    .peekable();
                own.peek().is_none() || own.any(|prefix| prefix.contains(address))
            }
        }
    }
}

fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn served(choice: &NodePortAddresses) -> Vec<&'static str> {
        let internal = [ip("192.0.2.1"), ip("192.0.2.2"), ip("2001:db8::1")];
        let mut all = vec!["192.0.2.1", "192.0.2.2", "10.9.0.1", "127.0.0.1"];
        all.extend(["2001:db8::1", "fd00::1", "fe80::1", "::1"]);
        all.retain(|text| choice.serve(ip(text), &internal));
        all
    }

    #[test]
    fn by_default_every_address_serves_but_loopback_and_ipv6_link_local() {
        let all = served(&NodePortAddresses::All);
        let expected = [
            "192.0.2.1",
            "192.0.2.2",
            "10.9.0.1",
            "2001:db8::1",
            "fd00::1",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn primary_is_the_first_internal_address_of_each_family() {
        assert_eq!(
            served(&NodePortAddresses::Primary),
            ["192.0.2.1", "2001:db8::1"]
        );
    }

    #[test]
    fn prefixes_choose_within_their_family_and_leave_the_other_whole() {
        let within = |texts: &[&str]| {
            let prefixes = texts.iter().map(|text| text.parse().unwrap());
            NodePortAddresses::Within(prefixes.collect())
        };
        assert_eq!(
            served(&within(&["10.0.0.0/8"])),
            ["10.9.0.1", "2001:db8::1", "fd00::1"]
        );
        assert_eq!(
            served(&within(&["192.0.2.2/32", "10.0.0.0/8", "fd00::/8"])),
            ["192.0.2.2", "10.9.0.1", "fd00::1"]
        );
    }
}
