//! Neighbour entries (ARP and NDP).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::RouteType,
};

use super::{Mac, Netlink, addr::family};
use crate::error::Result;

/// A neighbour of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The link's index.
    pub index: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its Ethernet address, where it is known.
    pub mac: Option<Mac>,
    /// It never expires.
    pub permanent: bool,
}

impl Netlink {
    /// The neighbours of one link, or of all (index 0).
    pub fn neighbours(&self, index: u32) -> Result<Vec<Neighbour>> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let all = self.dump("RTM_GETNEIGH", "neighbours", &request)?;
        let all = all.into_iter().filter_map(parse);
        Ok(all.filter(|n| index == 0 || n.index == index).collect())
    }

    /// Adds a permanent entry, or replaces what is there.
    pub fn set_neighbour(&self, index: u32, address: IpAddr, mac: Mac) -> Result<()> {
        let mut request = message(index, address);
        request.header.state = NeighbourState::Permanent;
        request
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let object = format!("neighbour {address} lladdr {mac} on link #{index}");
        let request = RouteNetlinkMessage::NewNeighbour(request);
        self.act(
            "RTM_NEWNEIGH",
            &object,
            request,
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Removes an entry; false if it is not there.
    pub fn delete_neighbour(&self, index: u32, address: IpAddr) -> Result<bool> {
        let request = RouteNetlinkMessage::DelNeighbour(message(index, address));
        let object = format!("neighbour {address} on link #{index}");
        match self.act("RTM_DELNEIGH", &object, request, 0) {
            Ok(()) => Ok(true),
            Err(error) if error.is_gone() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    message
}

fn parse(message: RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else {
        return None;
    };
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(IpAddr::V4(ip));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(IpAddr::V6(ip));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some(Neighbour {
        index: message.header.ifindex,
        address: address?,
        mac,
        permanent: message.header.state == NeighbourState::Permanent,
    })
}
