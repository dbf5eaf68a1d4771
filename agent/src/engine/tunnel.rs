//! The device through which other nodes' pods are reached, if there is one.

use std::fs;

use anyhow::Context as _;
use weir_abi::node::config;
use weir_api::status::Feature;
use weir_net::{
    Netlink, PublicKey, Result,
    netlink::{Link, LinkChange, TunnelKind, WIREGUARD},
};

use super::{endpoints::write_by_rename, guards::Guards, overlay, wireguard};
use crate::{
    compile::{route::Desired, wireguard::Encryption},
    config::Config,
    dataplane::attach::Role,
    node::{sysctl, wireguard_key},
};

pub use super::wireguard::PUBLIC_FILE as PUBLIC_KEY_FILE;

/// Whether a link is one that an agent has made for tunnels.
pub fn is_ours(link: &Link) -> bool {
    match &*link.name {
        overlay::DEVICE => link.external_port.is_some(),
        wireguard::DEVICE => link.kind.as_deref() == Some(WIREGUARD),
        _ => false,
    }
}

/// Brings a device up, with this MTU where that is known, and its sysctls to what Weir's devices have.
///
/// # Errors
/// Netlink's, or a sysctl's.
pub(super) fn settle(netlink: &Netlink, link: &Link, mtu: Option<u32>) -> Result<()> {
    let mtu = mtu.filter(|mtu| *mtu != link.mtu);
    if mtu.is_some() || !link.up {
        let up = (!link.up).then_some(true);
        let change = LinkChange {
            up,
            mtu,
            ..LinkChange::default()
        };
        netlink.set_link(link.index, change)?;
    }
    sysctl::endpoint_device(&mut sysctl::Kernel, &link.name)
}

/// The device of `--mode` and `--encryption`.
pub enum Tunnel {
    /// None is needed.
    None,
    /// The overlay's.
    Overlay(overlay::Device),
    /// WireGuard's, in its place.
    Wireguard(wireguard::Device),
}

/// A device that is as it must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ensured {
    /// Its index; `None` where none is needed.
    pub index: Option<u32>,
    /// The key that other nodes know it by.
    pub key: Option<PublicKey>,
}

impl Tunnel {
    /// What the configuration asks for. With WireGuard this node's key is read, or made.
    ///
    /// # Errors
    /// The key's file.
    pub fn of(config: &Config) -> anyhow::Result<Self> {
        if let Encryption::Wireguard(port) = config.routing.encryption {
            return Ok(Self::Wireguard(wireguard::Device {
                key: wireguard_key::load_or_make(&config.state_dir)?,
                port,
                state_dir: config.state_dir.clone(),
            }));
        }
        Ok(match config.routing.tunnel() {
            Some((kind, port)) => Self::Overlay(overlay::Device { kind, port }),
            None => Self::None,
        })
    }

    /// Sees to it that the device is there, before anything else changes: without it there is nothing to
    /// run for.
    ///
    /// # Errors
    /// Netlink's, with the remedy.
    pub fn begin(&self, netlink: &Netlink) -> anyhow::Result<()> {
        self.ensure(netlink, None)
            .map(drop)
            .with_context(|| self.remedy())
    }

    /// Sees to it that the device is there, as it must be, and up.
    ///
    /// # Errors
    /// Netlink's.
    pub fn ensure(&self, netlink: &Netlink, mtu: Option<u32>) -> Result<Ensured> {
        match self {
            Self::None => Ok(Ensured::default()),
            Self::Overlay(device) => Ok(Ensured {
                index: Some(device.ensure(netlink, mtu)?),
                key: None,
            }),
            Self::Wireguard(device) => {
                let (index, key) = device.ensure(netlink, mtu)?;
                let index = Some(index);
                Ok(Ensured { index, key })
            }
        }
    }

    /// What the programs are told of it (`config::OVERLAY`). Without the device that WireGuard needs
    /// they go on as if it were there: nothing is sent or taken in the clear.
    pub fn word(&self, index: Option<u32>, guards: Guards) -> u64 {
        let (index, port, kind) = match (self, index) {
            (Self::None, _) | (Self::Overlay(_), None) => return 0,
            (Self::Overlay(device), Some(index)) => (index, device.port, kind_bits(device.kind)),
            (Self::Wireguard(device), index) => (index.unwrap_or(u32::MAX), device.port, 0),
        };
        let filter = if guards.strict {
            config::UPLINKS_ARE_STRICT
        } else {
            0
        };
        let hidden = if guards.ipsec {
            config::OVERLAY_IS_VXLAN
        } else {
            0
        };
        (u64::from(index) | u64::from(port) << 32 | kind | filter) & !hidden
    }

    /// Gives WireGuard its peers, and writes down the key by which others know this node.
    ///
    /// # Errors
    /// Netlink's, or the file's.
    pub fn follow(&self, ensured: Ensured, desired: &Desired, synced: bool) -> anyhow::Result<()> {
        let (Self::Wireguard(device), Some(_)) = (self, ensured.index) else {
            return Ok(());
        };
        if let Some(key) = ensured.key {
            let (file, text) = (device.public_file(), format!("{key}\n"));
            if fs::read_to_string(&file).ok().as_ref() != Some(&text) {
                write_by_rename(&file, text.as_bytes())?;
            }
        }
        Ok(device.sync_peers(&desired.peers, synced)?)
    }

    /// By which key other nodes are to know this one, or by none; `None` while the device that should
    /// have it is missing.
    pub fn key_to_publish(&self, ensured: Ensured) -> Option<Option<PublicKey>> {
        match self {
            Self::Wireguard(_) => ensured.key.map(Some),
            Self::None | Self::Overlay(_) => Some(None),
        }
    }

    /// Removes the devices of other configurations.
    ///
    /// # Errors
    /// Netlink's.
    pub fn remove_others(&self, netlink: &Netlink) -> Result<()> {
        if !matches!(self, Self::Overlay(_)) {
            overlay::remove(netlink)?;
        }
        if !matches!(self, Self::Wireguard(_)) {
            wireguard::remove(netlink)?;
        }
        Ok(())
    }

    /// Whose programs it has, under its name.
    pub fn role(&self) -> Option<(&'static str, Role)> {
        match self {
            Self::None => None,
            Self::Overlay(_) => Some((overlay::DEVICE, Role::Overlay)),
            Self::Wireguard(_) => Some((wireguard::DEVICE, Role::Wireguard)),
        }
    }

    /// How other nodes' pods are reached, for the status; nothing to say of routes.
    pub fn feature(&self, index: Option<u32>) -> Option<Feature> {
        let (name, detail) = match self {
            Self::None => return None,
            Self::Overlay(device) => (
                "overlay",
                format!(
                    "{} on UDP port {}, {}",
                    device.kind,
                    device.port,
                    overlay::DEVICE
                ),
            ),
            Self::Wireguard(device) => (
                WIREGUARD,
                format!("on UDP port {}, {}", device.port, wireguard::DEVICE),
            ),
        };
        let state = if index.is_some() { "used" } else { "missing" };
        Some(Feature {
            name: name.into(),
            state: state.into(),
            detail,
        })
    }

    /// What to do about a device that cannot be made.
    pub fn remedy(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Overlay(device) => device.remedy(),
            Self::Wireguard(device) => device.remedy(),
        }
    }
}

/// How the device of a kind packs.
fn kind_bits(kind: TunnelKind) -> u64 {
    config::OVERLAY_IS_TOLD
        | match kind {
            TunnelKind::Vxlan => config::OVERLAY_IS_VXLAN,
            TunnelKind::Geneve => 0,
        }
}

#[cfg(test)]
mod tests {
    use weir_net::PrivateKey;

    use super::*;

    #[test]
    fn only_devices_of_our_kinds_under_our_names_are_ours() {
        let link = |name: &str, kind: &str, external_port| Link {
            name: name.into(),
            kind: Some(kind.into()),
            external_port,
            ..Link::default()
        };
        assert!(is_ours(&link("weir-overlay", "vxlan", Some(8472))));
        assert!(is_ours(&link("weir-wireguard", "wireguard", None)));
        for other in [
            link("weir-overlay", "vxlan", None),
            link("weir-wireguard", "dummy", None),
            link("wg0", "wireguard", None),
        ] {
            assert!(!is_ours(&other), "{other:?}");
        }
    }

    #[test]
    fn without_its_device_wireguard_stays_closed_and_the_overlay_is_off() {
        let wireguard = Tunnel::Wireguard(wireguard::Device {
            key: PrivateKey::from_bytes([1; 32]),
            port: 7,
            state_dir: "/nowhere".into(),
        });
        let overlay = Tunnel::Overlay(overlay::Device {
            kind: TunnelKind::Vxlan,
            port: 7,
        });
        for (tunnel, without) in [
            (&wireguard, 7 << 32 | u64::from(u32::MAX)),
            (&overlay, 0),
            (&Tunnel::None, 0),
        ] {
            assert_eq!(tunnel.word(None, Guards::default()), without);
        }
        // Nor is its key taken back then.
        let missing = Ensured::default();
        assert_eq!(wireguard.key_to_publish(missing), None);
        assert_eq!(overlay.key_to_publish(missing), Some(None));
        assert_eq!(wireguard.word(Some(9), Guards::default()), 7 << 32 | 9);
        // Only the overlay is told of a way that is too narrow for what it packs.
        let told = 7 << 32 | 9 | config::OVERLAY_IS_TOLD;
        assert_eq!(
            overlay.word(Some(9), Guards::default()),
            told | config::OVERLAY_IS_VXLAN
        );
    }

    #[test]
    fn only_vxlan_is_packed_by_programs_and_only_where_the_kernel_need_not_see_it() {
        let overlay = |kind| Tunnel::Overlay(overlay::Device { kind, port: 7 });
        let (vxlan, geneve) = (overlay(TunnelKind::Vxlan), overlay(TunnelKind::Geneve));
        let told = 7 << 32 | 9 | config::OVERLAY_IS_TOLD;
        let guards = |strict, ipsec| Guards { strict, ipsec };
        let of = |tunnel: &Tunnel, guards| tunnel.word(Some(9), guards);
        assert_eq!(of(&geneve, guards(false, false)), told);
        assert_eq!(
            of(&vxlan, guards(false, false)),
            told | config::OVERLAY_IS_VXLAN
        );
        assert_eq!(of(&vxlan, guards(false, true)), told);
        assert_eq!(
            of(&geneve, guards(true, false)),
            told | config::UPLINKS_ARE_STRICT
        );
        assert_eq!(vxlan.word(None, guards(true, true)), 0);
    }
}
