//! Links: list, make, change, remove.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd},
    str::FromStr,
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State},
};

use super::{Netlink, tunnel};
use crate::{
    error::{Error, Result},
    netns::NetNs,
};

/// An Ethernet address; its text is `aa:bb:cc:dd:ee:ff`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a MAC address such as 0a:58:0a:00:00:01");
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            Err(wrong())
        } else {
            Ok(Self(mac))
        }
    }
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, where it has one.
    pub mac: Option<Mac>,
    /// IP MTU, bytes.
    pub mtu: u32,
    /// Set up by the administrator (IFF_UP).
    pub up: bool,
    /// Has a carrier (IFF_LOWER_UP): a veth whose peer is up.
    pub carrier: bool,
    /// Sends what it is given (its operational state is `up`): see [`Netlink::await_active`].
    pub active: bool,
    /// The loopback.
    pub loopback: bool,
    /// `veth`, `bridge`, `vxlan`, …; none for hardware and the loopback.
    pub kind: Option<String>,
    /// Index of the link it stands on; for a veth its peer, in the peer's namespace.
    pub lower: Option<u32>,
    /// Index of the bridge or bond it is a port of.
    pub master: Option<u32>,
    /// No neighbours are looked for on it (IFF_NOARP).
    pub noarp: bool,
    /// The UDP port of a VXLAN or Geneve device whose tunnels are each packet's own ("external",
    /// collect metadata), host order.
    pub external_port: Option<u16>,
    /// The source ports of a VXLAN device's outer packets, the last one excluded.
    pub source_ports: Option<(u16, u16)>,
}

/// A veth pair to be made.
#[derive(Clone, Debug)]
pub struct Veth<'a> {
    /// Name of the side in the connection's namespace.
    pub name: &'a str,
    /// That side's address; the kernel makes one up if it is absent.
    pub mac: Option<Mac>,
    /// Name of the other side.
    pub peer_name: &'a str,
    /// The namespace the other side is made in: it never exists anywhere else.
    pub peer_ns: &'a NetNs,
    /// The other side's address.
    pub peer_mac: Option<Mac>,
    /// IP MTU of both, bytes.
    pub mtu: u32,
}

/// What [`Netlink::set_link`] changes; what is absent stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkChange {
    /// Up or down.
    pub up: Option<bool>,
    /// IP MTU, bytes.
    pub mtu: Option<u32>,
    /// Ethernet address.
    pub mac: Option<Mac>,
    /// Index of the bridge to join; 0 leaves it.
    pub master: Option<u32>,
}

impl Netlink {
    /// All links, by index.
    pub fn links(&self) -> Result<Vec<Link>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut links: Vec<Link> = self
            .dump("RTM_GETLINK", "links", &request)?
            .into_iter()
            .filter_map(parse)
            .collect();
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// The link of that name, or none.
    pub fn find_link(&self, name: &str) -> Result<Option<Link>> {
        let mut request = LinkMessage::default();
        request
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.look_up(&format!("link {name}"), request)
    }

    /// The link of that name; [`Error::is_gone`] if there is none.
    pub fn link(&self, name: &str) -> Result<Link> {
        let object = format!("link {name}");
        self.find_link(name)?.ok_or(Error::Missing { object })
    }

    /// The link of that index, or none.
    pub fn link_by_index(&self, index: u32) -> Result<Option<Link>> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        self.look_up(&format!("link #{index}"), request)
    }

    fn look_up(&self, object: &str, request: LinkMessage) -> Result<Option<Link>> {
        let request = RouteNetlinkMessage::GetLink(request);
        match self.get("RTM_GETLINK", object, request) {
            Ok(messages) => Ok(messages.into_iter().find_map(parse)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a veth pair in one request: the peer appears in its namespace under its final name and
    /// nowhere else. Fails with [`Error::exists`] if either name is taken. Both sides are down.
    pub fn create_veth(&self, veth: &Veth<'_>) -> Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(veth.peer_name.to_owned()),
            LinkAttribute::NetNsFd(veth.peer_ns.as_fd().as_raw_fd()),
            LinkAttribute::Mtu(veth.mtu),
        ];
        peer.attributes.extend(veth.peer_mac.map(address));
        let mut own = LinkMessage::default();
        own.attributes = vec![
            LinkAttribute::IfName(veth.name.to_owned()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        own.attributes.extend(veth.mac.map(address));
        let object = format!(
            "veth {} with peer {} in {}",
            veth.name,
            veth.peer_name,
            veth.peer_ns.path()
        );
        self.create(&object, own)
    }

    /// Makes a link that needs no parameters, such as a `bridge`.
    pub fn create_link(&self, name: &str, kind: &str) -> Result<()> {
        let mut request = LinkMessage::default();
        request.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::from(kind))]),
        ];
        self.create(&format!("{kind} {name}"), request)
    }

    pub(super) fn create(&self, object: &str, request: LinkMessage) -> Result<()> {
        let request = RouteNetlinkMessage::NewLink(request);
        self.act("RTM_NEWLINK", object, request, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Changes a link.
    pub fn set_link(&self, index: u32, change: LinkChange) -> Result<()> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        if let Some(up) = change.up {
            request.header.flags = if up {
                LinkFlags::Up
            } else {
                LinkFlags::empty()
            };
            request.header.change_mask = LinkFlags::Up;
        }
        request
            .attributes
            .extend(change.mtu.map(LinkAttribute::Mtu));
        request.attributes.extend(change.mac.map(address));
        request
            .attributes
            .extend(change.master.map(LinkAttribute::Controller));
        let request = RouteNetlinkMessage::SetLink(request);
        self.act("RTM_SETLINK", &format!("link #{index}"), request, 0)
    }

    /// Sets a link up.
    pub fn set_up(&self, index: u32) -> Result<()> {
        self.set_link(
            index,
            LinkChange {
                up: Some(true),
                ..LinkChange::default()
            },
        )
    }

    /// Removes a link by name (a veth goes with its peer); false if there is none.
    pub fn delete_link(&self, name: &str) -> Result<bool> {
        let mut request = LinkMessage::default();
        request
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let request = RouteNetlinkMessage::DelLink(request);
        match self.act("RTM_DELLINK", &format!("link {name}"), request, 0) {
            Ok(()) => Ok(true),
            Err(error) if error.is_gone() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

pub(super) fn address(mac: Mac) -> LinkAttribute {
    LinkAttribute::Address(mac.0.to_vec())
}

fn parse(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        loopback: flags.contains(LinkFlags::Loopback),
        noarp: flags.contains(LinkFlags::Noarp),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::OperState(state) => link.active = state == State::Up,
            LinkAttribute::Link(index) => link.lower = Some(index),
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                        LinkInfo::Data(data) => {
                            link.external_port = tunnel::external_port(&data);
                            link.source_ports = tunnel::source_ports(&data);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(link)
}
