//! WireGuard's device: made where `--encryption` asks for it, kept while it is right, removed where not;
//! its peers.

use std::{collections::BTreeMap, path::PathBuf};

use weir_net::{
    Netlink, PrivateKey, PublicKey, Result,
    netlink::{WIREGUARD, Wireguard, WireguardPeer},
};

use super::tunnel::settle;
use crate::compile::wireguard::diff_peers;

/// The device's name on every node.
pub const DEVICE: &str = "weir-wireguard";
/// The file in the state directory that has the node's public key, for those without an API server.
pub const PUBLIC_FILE: &str = "wireguard.pub";

/// What WireGuard's device must be.
#[derive(Clone, Debug)]
pub struct Device {
    /// This node's key.
    pub key: PrivateKey,
    /// Its UDP port.
    pub port: u16,
    /// The state directory.
    pub state_dir: PathBuf,
}

impl Device {
    /// Sees to it that the device is there, with its key and port, and up, with this MTU where that is
    /// known; the sessions of one that is right go on. Its index, and the key that others know it by.
    ///
    /// # Errors
    /// Netlink's: the kernel lacks WireGuard, or somebody else has the port.
    pub fn ensure(&self, netlink: &Netlink, mtu: Option<u32>) -> Result<(u32, Option<PublicKey>)> {
        let link = match netlink.find_link(DEVICE)? {
            Some(link) if link.kind.as_deref() == Some(WIREGUARD) => link,
            other => {
                if other.is_some() {
                    netlink.delete_link(DEVICE)?;
                }
                netlink.create_wireguard(DEVICE)?;
                tracing::info!(device = DEVICE, port = self.port, "WireGuard device made");
                netlink.link(DEVICE)?
            }
        };
        let wireguard = Wireguard::open()?;
        let mut device = wireguard.device(DEVICE)?;
        if device.private_key.as_ref() != Some(&self.key) || device.port != self.port {
            wireguard.set_device(DEVICE, &self.key, self.port)?;
            // The kernel makes the public key of it.
            device = wireguard.device(DEVICE)?;
        }
        settle(netlink, &link, mtu)?;
        Ok((link.index, device.public_key))
    }

    /// Gives the device these peers; those that are right are left alone, and others are removed once the
    /// source has synced.
    ///
    /// # Errors
    /// Netlink's.
    pub fn sync_peers(
        &self,
        peers: &BTreeMap<PublicKey, WireguardPeer>,
        synced: bool,
    ) -> Result<()> {
        let wireguard = Wireguard::open()?;
        let changes = diff_peers(&wireguard.device(DEVICE)?.peers, peers, synced);
        if changes.is_empty() {
            return Ok(());
        }
        tracing::info!(
            changes = changes.len(),
            peers = peers.len(),
            "WireGuard peers"
        );
        wireguard.change_peers(DEVICE, &changes)
    }

    /// Where the public key is for those who read no Node objects.
    pub fn public_file(&self) -> PathBuf {
        self.state_dir.join(PUBLIC_FILE)
    }

    /// What to do about a device that cannot be made.
    pub fn remedy(&self) -> String {
        format!(
            "encryption: the device {DEVICE} cannot be made: does the kernel have WireGuard (CONFIG_WIREGUARD; `modprobe wireguard`), and is UDP port {} free? Else give another --encryption-port, or --encryption=none, which sends in the clear",
            self.port
        )
    }
}

/// Removes the device that an earlier configuration has left, and only that.
///
/// # Errors
/// Netlink's.
pub fn remove(netlink: &Netlink) -> Result<()> {
    match netlink.find_link(DEVICE)? {
        Some(link) if link.kind.as_deref() == Some(WIREGUARD) => {
            netlink.delete_link(DEVICE).map(drop)
        }
        _ => Ok(()),
    }
}
