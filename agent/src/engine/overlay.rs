//! The overlay's device: made where the mode needs it, kept while it is right, removed where not.

use weir_abi::node::{OVERLAY_MAC, VXLAN_SOURCE_PORTS};
use weir_net::{
    Netlink, Result,
    netlink::{Link, Mac, Tunnel, TunnelKind},
    sysctl as keys,
};

use super::tunnel::settle;

/// The device's name on every node.
pub const DEVICE: &str = "weir-overlay";

/// What the overlay's device must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// How it packs.
    pub kind: TunnelKind,
    /// Its UDP port.
    pub port: u16,
}

impl Device {
    /// Sees to it that the device is there, as it must be, and up, with this MTU where that is known;
    /// one that is right is kept. Its index.
    ///
    /// # Errors
    /// Netlink's: the kernel lacks the kind, or somebody else has the port.
    pub fn ensure(self, netlink: &Netlink, mtu: Option<u32>) -> Result<u32> {
        let link = match netlink.find_link(DEVICE)? {
            Some(link) if self.is(&link) => link,
            other => {
                if other.is_some() {
                    netlink.delete_link(DEVICE)?;
                }
                self.make(netlink)?
            }
        };
        settle(netlink, &link, mtu)?;
        Ok(link.index)
    }

    fn make(self, netlink: &Netlink) -> Result<Link> {
        netlink.create_tunnel(&Tunnel {
            name: DEVICE,
            kind: self.kind,
            port: self.port,
            source_ports: VXLAN_SOURCE_PORTS,
            mac: Mac(OVERLAY_MAC),
        })?;
        // No link-local address: it would be the same on every node.
        let key = format!("ipv6/conf/{DEVICE}/addr_gen_mode");
        if keys::exists(&key) {
            keys::write(&key, "1")?;
        }
        tracing::info!(device = DEVICE, kind = %self.kind, port = self.port, "overlay made");
        netlink.link(DEVICE)
    }

    fn is(self, link: &Link) -> bool {
        link.kind.as_deref() == Some(self.kind.name())
            && link.external_port == Some(self.port)
            && link.mac == Some(Mac(OVERLAY_MAC))
            && (self.kind != TunnelKind::Vxlan || link.source_ports == Some(VXLAN_SOURCE_PORTS))
            && link.noarp
    }

    /// What to do about a device that cannot be made.
    pub fn remedy(self) -> String {
        match self.kind {
            TunnelKind::Geneve => format!(
                "the overlay's device {DEVICE} cannot be made: does the kernel have Geneve (`modprobe geneve`), and is UDP port {} free? Else give --mode=vxlan or another --overlay-port",
                self.port
            ),
            TunnelKind::Vxlan => format!(
                "the overlay's device {DEVICE} cannot be made: does the kernel have VXLAN (`modprobe vxlan`), and is UDP port {} free of other VXLAN devices (`ip -d link show type vxlan`)? Else give --mode=native or another --overlay-port",
                self.port
            ),
        }
    }
}

/// Removes the device that an earlier mode has left, and only that.
///
/// # Errors
/// Netlink's.
pub fn remove(netlink: &Netlink) -> Result<()> {
    match netlink.find_link(DEVICE)? {
        Some(link) if link.external_port.is_some() => netlink.delete_link(DEVICE).map(drop),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_right_is_known_from_all_others() {
        let device = Device {
            kind: TunnelKind::Vxlan,
            port: 8472,
        };
        let right = Link {
            kind: Some("vxlan".into()),
            external_port: Some(8472),
            source_ports: Some(VXLAN_SOURCE_PORTS),
            mac: Some(Mac(OVERLAY_MAC)),
            noarp: true,
            ..Link::default()
        };
        assert!(device.is(&right));
        let wrong = [
            Link {
                kind: Some("geneve".into()),
                ..right.clone()
            },
            Link {
                external_port: Some(4789),
                ..right.clone()
            },
            Link {
                external_port: None,
                ..right.clone()
            },
            Link {
                mac: Some(Mac([2, 0, 0, 0, 0, 1])),
                ..right.clone()
            },
            Link {
                source_ports: Some((0, 0)),
                ..right.clone()
            },
            Link {
                noarp: false,
                ..right.clone()
            },
        ];
        assert!(wrong.iter().all(|link| !device.is(link)));
    }
}
