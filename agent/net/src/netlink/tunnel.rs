//! Devices that pack frames into UDP, each to where its own metadata says.

use std::fmt;

use netlink_packet_route::link::{
    InfoData, InfoGeneve, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::{
    Netlink,
    link::{Mac, address},
};
use crate::error::Result;

/// A kind of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// RFC 7348.
    Vxlan,
    /// RFC 8926.
    Geneve,
}

impl TunnelKind {
    /// The kernel's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
        }
    }
}

impl fmt::Display for TunnelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A device to be made.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel<'a> {
    /// Its name.
    pub name: &'a str,
    /// How it packs.
    pub kind: TunnelKind,
    /// UDP port, host order.
    pub port: u16,
    /// Source ports of VXLAN's outer packets, the last one excluded.
    pub source_ports: (u16, u16),
    /// Its Ethernet address.
    pub mac: Mac,
}

impl Netlink {
    /// Makes a device whose packets say themselves where they go, and which looks for no neighbours:
    /// down. Fails with [`crate::Error::exists`] if the name is taken.
    pub fn create_tunnel(&self, tunnel: &Tunnel<'_>) -> Result<()> {
        let (kind, data) = match tunnel.kind {
            TunnelKind::Vxlan => (
                InfoKind::Vxlan,
                InfoData::Vxlan(vec![
                    InfoVxlan::CollectMetadata(true),
                    InfoVxlan::Learning(false),
                    InfoVxlan::Port(tunnel.port),
                    InfoVxlan::PortRange(tunnel.source_ports),
                ]),
            ),
            TunnelKind::Geneve => (
                InfoKind::Geneve,
                InfoData::Geneve(vec![
                    InfoGeneve::CollectMetadata,
                    InfoGeneve::Port(tunnel.port),
                ]),
            ),
        };
        let mut request = LinkMessage::default();
        request.header.flags = LinkFlags::Noarp;
        request.header.change_mask = LinkFlags::Noarp;
        request.attributes = vec![
            LinkAttribute::IfName(tunnel.name.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]),
            address(tunnel.mac),
        ];
        self.create(&format!("{} {}", tunnel.kind, tunnel.name), request)
    }
}

/// The source ports of a VXLAN device's outer packets, the last one excluded.
pub(super) fn source_ports(data: &InfoData) -> Option<(u16, u16)> {
    let InfoData::Vxlan(infos) = data else {
        return None;
    };
    infos.iter().find_map(|info| match info {
        InfoVxlan::PortRange(ports) => Some(*ports),
        _ => None,
    })
}

/// The UDP port of a device whose tunnels are each packet's own.
pub(super) fn external_port(data: &InfoData) -> Option<u16> {
    let (mut port, mut external) = (None, false);
    match data {
        InfoData::Vxlan(infos) => {
            for info in infos {
                match info {
                    InfoVxlan::Port(own) => port = Some(*own),
                    InfoVxlan::CollectMetadata(on) => external = *on,
                    _ => {}
                }
            }
        }
        InfoData::Geneve(infos) => {
            for info in infos {
                match info {
                    InfoGeneve::Port(own) => port = Some(*own),
                    InfoGeneve::CollectMetadata => external = true,
                    _ => {}
                }
            }
        }
        _ => {}
    }
    port.filter(|_| external)
}
