//! Whose sockets are in a network namespace: the values of `NETNS`.

use std::net::IpAddr;

use weir_abi::{
    Addr,
    node::{NetnsOwner, netns},
};
use weir_api::endpoint::AdoptRequest;

use crate::node::Uplink;

/// The owner of the namespace with this cookie: the first of the attachments in it, as a runtime
/// may give a pod several interfaces; `None` if there is none.
pub fn pod<'a>(
    cookie: u64,
    attachments: impl IntoIterator<Item = &'a AdoptRequest>,
) -> Option<NetnsOwner> {
    let mut attachments = attachments.into_iter();
    let first = attachments.find(|a| a.netns_cookie == Some(cookie))?;
    Some(owner(&first.addresses, 0))
}

/// The owner of the node's own namespace: its primary address of each family, which is the first
/// of the Node's own (`InternalIP`) that an uplink has, else the first of an uplink.
pub fn node(uplinks: &[Uplink], internal: &[IpAddr]) -> NetnsOwner {
    let on_uplinks: Vec<IpAddr> = uplinks
        .iter()
        .flat_map(|uplink| uplink.sources.iter().copied())
        .collect();
    let own = internal.iter().filter(|ip| on_uplinks.contains(ip));
    let all: Vec<IpAddr> = own.chain(&on_uplinks).copied().collect();
    owner(&all, netns::NODE)
}

/// With the first address of each family.
fn owner(addresses: &[IpAddr], flags: u32) -> NetnsOwner {
    let first = |v4: bool| {
        let found = addresses.iter().find(|ip| ip.is_ipv4() == v4);
        found.map_or(Addr::NONE, |ip| Addr::from(*ip))
    };
    NetnsOwner {
        addr4: first(true),
        addr6: first(false),
        flags,
        zero: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::endpoint::tests::request;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn uplink(addresses: &[&str]) -> Uplink {
        Uplink {
            index: 2,
            name: "eth0".into(),
            mtu: 1500,
            addresses: Vec::new(),
            sources: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            mac: None,
            kind: None,
        }
    }

    #[test]
    fn a_pod_owns_its_namespace_with_both_addresses() {
        let a = request("a", 7, &["10.0.0.5", "fd00::5"]);
        let cookie = a.netns_cookie.unwrap();
        let owner = pod(cookie, [&a]).unwrap();
        assert_eq!(
            (owner.addr4, owner.addr6),
            (addr("10.0.0.5"), addr("fd00::5"))
        );
        assert_eq!(owner.flags & netns::NODE, 0);
        assert_eq!(pod(cookie + 1, [&a]), None);
    }

    #[test]
    fn the_first_of_two_interfaces_of_a_pod_names_it() {
        let a = request("a", 7, &["10.0.0.5"]);
        let mut second = request("a", 8, &["10.0.0.6"]);
        second.netns_cookie = a.netns_cookie;
        let cookie = a.netns_cookie.unwrap();
        assert_eq!(pod(cookie, [&a, &second]).unwrap().addr4, addr("10.0.0.5"));
        assert_eq!(pod(cookie, [&second]).unwrap().addr4, addr("10.0.0.6"));
    }

    #[test]
    fn an_attachment_of_an_older_plugin_owns_no_namespace() {
        let mut a = request("a", 7, &["10.0.0.5"]);
        a.netns_cookie = None;
        assert_eq!(pod(0, [&a]), None);
    }

    #[test]
    fn the_nodes_primary_addresses_are_its_own_that_an_uplink_has() {
        let uplinks = [
            uplink(&["192.0.2.1", "2001:db8::1"]),
            uplink(&["192.0.2.9", "2001:db8::9"]),
        ];
        let first = node(&uplinks, &[]);
        assert_eq!(
            (first.addr4, first.addr6),
            (addr("192.0.2.1"), addr("2001:db8::1"))
        );
        let internal: Vec<IpAddr> = ["203.0.113.1", "192.0.2.9", "2001:db8::9"]
            .map(|a| a.parse().unwrap())
            .into();
        let own = node(&uplinks, &internal);
        assert_eq!(
            (own.addr4, own.addr6),
            (addr("192.0.2.9"), addr("2001:db8::9"))
        );
        assert_eq!(own.flags, netns::NODE);
    }

    #[test]
    fn a_node_without_uplinks_is_known_all_the_same() {
        let owner = node(&[], &[]);
        assert_eq!(owner.flags, netns::NODE);
        assert!(owner.addr4.is_none() && owner.addr6.is_none());
    }
}
