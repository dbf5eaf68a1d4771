//! WireGuard devices (linux/wireguard.h, generic netlink family `wireguard`): their key, port and
//! peers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardCmd, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};

use super::{Netlink, generic::Generic};
use crate::{
    error::Result,
    key::{PrivateKey, PublicKey},
};

/// The kind of its devices.
pub const KIND: &str = "wireguard";
/// Most peers in one request: an attribute has 16 bits of length.
const PEERS_AT_ONCE: usize = 64;

/// Another end of a device's tunnels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Where it was last heard from, or is to be sent to first.
    pub endpoint: Option<SocketAddr>,
    /// What is sent to it, and believed to come from it.
    pub allowed: BTreeSet<IpNetwork>,
}

/// A device as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its own key; `None` for one that has none yet.
    pub private_key: Option<PrivateKey>,
    /// What others know it by.
    pub public_key: Option<PublicKey>,
    /// UDP port, host order.
    pub port: u16,
    /// Its peers.
    pub peers: BTreeMap<PublicKey, Peer>,
}

/// A change of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// It is made if it is not there; what is absent stays as it is.
    Set {
        /// Whom.
        key: PublicKey,
        /// Where it is.
        endpoint: Option<SocketAddr>,
        /// All that it is allowed from now on; another peer loses what it had of that.
        allowed: Option<BTreeSet<IpNetwork>>,
    },
    /// It is removed.
    Remove(PublicKey),
}

impl Netlink {
    /// Makes a WireGuard device: down, without key and peers. Fails with [`crate::Error::exists`] if
    /// the name is taken, with EOPNOTSUPP if the kernel has no WireGuard.
    pub fn create_wireguard(&self, name: &str) -> Result<()> {
        self.create_link(name, KIND)
    }
}

/// A connection to the WireGuard devices of one network namespace, the one it was opened in.
#[derive(Debug)]
pub struct Wireguard {
    generic: Generic,
}

impl Wireguard {
    /// Opens a connection to the calling thread's namespace. [`crate::Error::is_gone`] if the kernel
    /// has no WireGuard, or has not loaded it yet.
    pub fn open() -> Result<Self> {
        let generic = Generic::open::<WireguardMessage>()?;
        Ok(Self { generic })
    }

    /// A device as it is, with its private key (CAP_NET_ADMIN).
    pub fn device(&self, name: &str) -> Result<Device> {
        let request = WireguardMessage {
            cmd: WireguardCmd::GetDevice,
            attributes: vec![WireguardAttribute::IfName(name.to_owned())],
        };
        let object = format!("WireGuard device {name}");
        let answers = self.generic.ask(
            "WG_CMD_GET_DEVICE",
            &object,
            request,
            NLM_F_REQUEST | NLM_F_DUMP,
        )?;
        let mut device = Device::default();
        for answer in answers {
            read_device(answer.attributes, &mut device);
        }
        Ok(device)
    }

    /// Gives a device its key and UDP port. Sessions of another key end.
    pub fn set_device(&self, name: &str, key: &PrivateKey, port: u16) -> Result<()> {
        self.set(
            name,
            vec![
                WireguardAttribute::PrivateKey(*key.bytes()),
                WireguardAttribute::ListenPort(port),
            ],
        )
    }

    /// Changes peers; sessions of those that are not named, or only get other addresses, go on.
    pub fn change_peers(&self, name: &str, changes: &[PeerChange]) -> Result<()> {
        for some in changes.chunks(PEERS_AT_ONCE) {
            let peers = some.iter().map(change).collect();
            self.set(name, vec![WireguardAttribute::Peers(peers)])?;
        }
        Ok(())
    }

    fn set(&self, name: &str, what: Vec<WireguardAttribute>) -> Result<()> {
        let mut attributes = vec![WireguardAttribute::IfName(name.to_owned())];
        attributes.extend(what);
        let request = WireguardMessage {
            cmd: WireguardCmd::SetDevice,
            attributes,
        };
        let object = format!("WireGuard device {name}");
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        self.generic
            .ask("WG_CMD_SET_DEVICE", &object, request, flags)
            .map(drop)
    }
}

fn change(change: &PeerChange) -> WireguardPeer {
    let mut attributes = Vec::new();
    match change {
        PeerChange::Remove(key) => {
            attributes.push(WireguardPeerAttribute::PublicKey(*key.bytes()));
            attributes.push(WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe));
        }
        PeerChange::Set {
            key,
            endpoint,
            allowed,
        } => {
            attributes.push(WireguardPeerAttribute::PublicKey(*key.bytes()));
            attributes.extend(endpoint.map(WireguardPeerAttribute::Endpoint));
            if let Some(allowed) = allowed {
                let flags = WireguardPeerFlags::ReplaceAllowedIps;
                attributes.push(WireguardPeerAttribute::Flags(flags));
                let all = allowed.iter().map(|network| allow(*network)).collect();
                attributes.push(WireguardPeerAttribute::AllowedIps(all));
            }
        }
    }
    WireguardPeer(attributes)
}

fn allow(network: IpNetwork) -> WireguardAllowedIp {
    let family = match network {
        IpNetwork::V4(_) => WireguardAddressFamily::Ipv4,
        IpNetwork::V6(_) => WireguardAddressFamily::Ipv6,
    };
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(network.network()),
        WireguardAllowedIpAttr::Cidr(network.prefix()),
    ])
}

/// Adds one message's part of a device: a peer with many addresses is spread over several.
fn read_device(attributes: Vec<WireguardAttribute>, device: &mut Device) {
    for attribute in attributes {
        match attribute {
            WireguardAttribute::PrivateKey(key) if key != [0; 32] => {
                device.private_key = Some(PrivateKey::from_bytes(key));
            }
            WireguardAttribute::PublicKey(key) if key != [0; 32] => {
                device.public_key = Some(PublicKey::from_bytes(key));
            }
            WireguardAttribute::ListenPort(port) => device.port = port,
            WireguardAttribute::Peers(peers) => {
                for peer in peers {
                    read_peer(peer, &mut device.peers);
                }
            }
            _ => {}
        }
    }
}

fn read_peer(peer: WireguardPeer, peers: &mut BTreeMap<PublicKey, Peer>) {
    let key = peer.iter().find_map(|attribute| match attribute {
        WireguardPeerAttribute::PublicKey(key) => Some(PublicKey::from_bytes(*key)),
        _ => None,
    });
    let Some(key) = key else {
        return;
    };
    let known = peers.entry(key).or_default();
    for attribute in peer.0 {
        match attribute {
            WireguardPeerAttribute::Endpoint(endpoint) => known.endpoint = Some(endpoint),
            WireguardPeerAttribute::AllowedIps(allowed) => {
                known
                    .allowed
                    .extend(allowed.iter().filter_map(read_allowed));
            }
            _ => {}
        }
    }
}

fn read_allowed(allowed: &WireguardAllowedIp) -> Option<IpNetwork> {
    let mut ip: Option<IpAddr> = None;
    let mut prefix = None;
    for attribute in &allowed.0 {
        match attribute {
            WireguardAllowedIpAttr::IpAddr(address) => ip = Some(*address),
            WireguardAllowedIpAttr::Cidr(bits) => prefix = Some(*bits),
            _ => {}
        }
    }
    IpNetwork::new(ip?, prefix?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> PublicKey {
        PublicKey::from_bytes([number; 32])
    }

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_whose_addresses_are_spread_over_messages_is_one() {
        let endpoint: SocketAddr = "[2001:db8::1]:51820".parse().unwrap();
        let part = |allowed: &[&str]| {
            let allowed = allowed.iter().map(|text| net(text)).collect();
            let change = change(&PeerChange::Set {
                key: key(1),
                endpoint: Some(endpoint),
                allowed: Some(allowed),
            });
            vec![
                WireguardAttribute::ListenPort(7),
                WireguardAttribute::PrivateKey([0; 32]),
                WireguardAttribute::Peers(vec![change]),
            ]
        };
        let mut device = Device::default();
        read_device(part(&["10.1.0.0/24", "fd00:1::/64"]), &mut device);
        read_device(part(&["192.0.2.1/32"]), &mut device);
        assert_eq!((device.port, device.private_key.is_none()), (7, true));
        let peer = &device.peers[&key(1)];
        let allowed = ["10.1.0.0/24", "192.0.2.1/32", "fd00:1::/64"].map(net);
        assert_eq!(peer.endpoint, Some(endpoint));
        assert_eq!(peer.allowed, BTreeSet::from(allowed));
    }

    #[test]
    fn a_removal_names_the_peer_and_nothing_else() {
        let WireguardPeer(attributes) = change(&PeerChange::Remove(key(2)));
        assert_eq!(
            attributes,
            [
                WireguardPeerAttribute::PublicKey([2; 32]),
                WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
            ]
        );
    }
}
