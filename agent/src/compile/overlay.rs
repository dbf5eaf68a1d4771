//! Which nodes are reached by the overlay, and between which addresses (`--mode`).

use std::net::IpAddr;

use weir_abi::node::{OVERLAY_MAC, UplinkInfo, uplink};
use weir_net::netlink::TunnelKind;

use super::wireguard::Encryption;

/// How packets get to pods on other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As they are, by routes.
    #[default]
    Native,
    /// Packed by VXLAN.
    Vxlan,
    /// Packed by Geneve.
    Geneve,
    /// As they are to nodes in a subnet of an uplink, packed by VXLAN to others.
    Auto,
}

impl Mode {
    /// The kind of the device that this needs.
    pub fn tunnel(self) -> Option<TunnelKind> {
        match self {
            Self::Native => None,
            Self::Vxlan | Self::Auto => Some(TunnelKind::Vxlan),
            Self::Geneve => Some(TunnelKind::Geneve),
        }
    }

    /// Whether a node is reached by the overlay; `on_link`: it is in a subnet of an uplink.
    pub fn packs(self, on_link: bool) -> bool {
        match self {
            Self::Native => false,
            Self::Vxlan | Self::Geneve => true,
            Self::Auto => !on_link,
        }
    }
}

/// What `--mode`, `--encryption` and the kernel say of the way between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// As configured.
    pub mode: Mode,
    /// As configured: with it on, all nodes are reached by its tunnels, whatever the mode.
    pub encryption: Encryption,
    /// The device's index; `None` where there is none (yet).
    pub device: Option<u32>,
}

impl Overlay {
    /// The MTU of what is packed, from that of the uplinks, for a node with these addresses.
    pub fn mtu(self, uplinks: u32, own: &[IpAddr]) -> u32 {
        // WireGuard: header, counter and tag. VXLAN and Geneve: header, and the inner Ethernet header.
        let inner = match (self.encryption, self.mode.tunnel()) {
            (Encryption::Wireguard(_), _) => 16 + 16,
            (Encryption::None, Some(_)) => 8 + 14,
            (Encryption::None, None) => return uplinks,
        };
        uplinks.saturating_sub(outer(own) + inner)
    }

    /// Whether a node is reached by the device; `on_link`: it is in a subnet of an uplink.
    pub fn packs(self, on_link: bool) -> bool {
        self.encryption != Encryption::None || self.mode.packs(on_link)
    }

    /// The device's entry in `UPLINKS`: what leaves by it is between the nodes' addresses.
    pub fn uplink(own: &[IpAddr]) -> UplinkInfo {
        let of = |v4: bool| own.iter().find(|ip| ip.is_ipv4() == v4);
        let addr = |v4| of(v4).map_or_else(Default::default, |ip| (*ip).into());
        UplinkInfo {
            addr4: addr(true),
            addr6: addr(false),
            mac: OVERLAY_MAC,
            flags: uplink::OVERLAY,
        }
    }
}

/// What every tunnel adds to a packet: the outer IP header and UDP.
fn outer(own: &[IpAddr]) -> u32 {
    let ip = if own.iter().any(IpAddr::is_ipv4) {
        20
    } else {
        40
    };
    ip + 8
}

/// The address of another node that tunnels from a node with these addresses end at: the first of the
/// first family that both have, IPv4 before IPv6, so that both choose the same pair.
pub fn end(own: &[IpAddr], other: &[IpAddr]) -> Option<IpAddr> {
    [true, false].into_iter().find_map(|v4| {
        let of = |ips: &[IpAddr]| ips.iter().copied().find(|ip| ip.is_ipv4() == v4);
        of(own).and(of(other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn both_nodes_choose_the_same_pair_of_addresses() {
        let (dual, swapped) = (
            ips(&["192.0.2.1", "fd00::1"]),
            ips(&["fd00::2", "192.0.2.2"]),
        );
        let (v4, v6) = (ips(&["192.0.2.3"]), ips(&["fd00::4"]));
        for (a, b, expected) in [
            (&dual, &swapped, Some(true)),
            (&dual, &v4, Some(true)),
            (&swapped, &v6, Some(false)),
            (&v4, &v6, None),
        ] {
            for (own, other) in [(a, b), (b, a)] {
                let end = end(own, other);
                assert_eq!(end.map(|ip| ip.is_ipv4()), expected);
                assert!(end.is_none_or(|ip| other.contains(&ip)));
            }
        }
    }

    #[test]
    fn wireguard_takes_60_bytes_over_ipv4_and_80_over_ipv6_whatever_the_mode_and_reaches_all_nodes()
    {
        for mode in [Mode::Native, Mode::Vxlan, Mode::Auto] {
            let overlay = Overlay {
                mode,
                encryption: Encryption::Wireguard(51820),
                device: None,
            };
            assert_eq!(overlay.mtu(1500, &ips(&["192.0.2.1", "fd00::1"])), 1440);
            assert_eq!(overlay.mtu(1500, &ips(&["fd00::1"])), 1420);
            assert!(overlay.packs(true) && overlay.packs(false));
        }
    }

    #[test]
    fn the_overlay_takes_50_bytes_over_ipv4_and_70_over_ipv6() {
        for (mode, own, mtu) in [
            (Mode::Native, ips(&["192.0.2.1"]), 1500),
            (Mode::Vxlan, ips(&["192.0.2.1", "fd00::1"]), 1450),
            (Mode::Geneve, ips(&["192.0.2.1"]), 1450),
            (Mode::Auto, ips(&["fd00::1"]), 1430),
        ] {
            let overlay = Overlay {
                mode,
                ..Overlay::default()
            };
            assert_eq!(overlay.mtu(1500, &own), mtu, "{mode:?}");
        }
    }

    #[test]
    fn auto_packs_only_what_goes_across_subnets() {
        for (mode, here, across) in [
            (Mode::Native, false, false),
            (Mode::Vxlan, true, true),
            (Mode::Geneve, true, true),
            (Mode::Auto, false, true),
        ] {
            assert_eq!((mode.packs(true), mode.packs(false)), (here, across));
        }
    }
}
