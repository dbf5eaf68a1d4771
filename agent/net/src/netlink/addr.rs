//! Addresses of links.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
};

use super::Netlink;
use crate::error::Result;

/// An address on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link's index.
    pub index: u32,
    /// The address and its prefix length.
    pub network: IpNetwork,
    /// Link-local scope (`fe80::/10`, `169.254.0.0/16` where set so).
    pub link_scope: bool,
    /// Duplicate address detection still runs, or failed: it cannot be used.
    pub tentative: bool,
    /// Still valid, but not to be taken for new connections.
    pub deprecated: bool,
}

impl Netlink {
    /// The addresses of one link, or of all (index 0).
    pub fn addresses(&self, index: u32) -> Result<Vec<Address>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let all = self.dump("RTM_GETADDR", "addresses", &request)?;
        let all = all.into_iter().filter_map(parse);
        Ok(all.filter(|a| index == 0 || a.index == index).collect())
    }

    /// Adds an address; an IPv6 one without duplicate address detection (`nodad`), so that it can
    /// be used at once. Fails with [`crate::Error::exists`] if it is there.
    pub fn add_address(&self, index: u32, network: IpNetwork) -> Result<()> {
        let mut request = message(index, network);
        if network.is_ipv6() {
            request
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let object = format!("address {network} on link #{index}");
        let request = RouteNetlinkMessage::NewAddress(request);
        self.act("RTM_NEWADDR", &object, request, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes an address; false if it is not there.
    pub fn delete_address(&self, index: u32, network: IpNetwork) -> Result<bool> {
        let request = RouteNetlinkMessage::DelAddress(message(index, network));
        let object = format!("address {network} on link #{index}");
        match self.act("RTM_DELADDR", &object, request, 0) {
            Ok(()) => Ok(true),
            Err(error) if error.is_gone() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn message(index: u32, network: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = network.prefix();
    message.header.family = family(network.ip());
    message.attributes = vec![
        AddressAttribute::Local(network.ip()),
        AddressAttribute::Address(network.ip()),
    ];
    message
}

/// The netlink family of an address.
pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn parse(message: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let (mut local, mut address, mut flags) = (None, None, AddressFlags::empty());
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Address(ip) => address = Some(ip),
            AddressAttribute::Flags(bits) => flags = bits,
            _ => {}
        }
    }
    Some(Address {
        index: message.header.index,
        // IPv6 has only the one; on a point-to-point IPv4 link the other is the peer's.
        network: IpNetwork::new(local.or(address)?, message.header.prefix_len).ok()?,
        link_scope: message.header.scope == AddressScope::Link,
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
        deprecated: flags.intersects(AddressFlags::Deprecated),
    })
}
