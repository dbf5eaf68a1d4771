//! The keys of the way between nodes.

use weir_net::netlink::TunnelKind;

use super::layers::{ConfigError, Layers};
use crate::compile::{overlay::Mode, wireguard::Encryption};

/// `mode`, `overlay-port`, `encryption` and `encryption-port`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// `mode`.
    pub mode: Mode,
    /// `encryption` and `encryption-port`.
    pub encryption: Encryption,
    /// `overlay-port`; `None`: the one of the kind's own.
    port: Option<u16>,
}

impl Routing {
    /// The overlay's device, if one is needed: how it packs, and its UDP port. With encryption on none is.
    pub fn tunnel(self) -> Option<(TunnelKind, u16)> {
        if self.encryption != Encryption::None {
            return None;
        }
        let kind = self.mode.tunnel()?;
        let port = self.port.unwrap_or(match kind {
            // What Linux and flannel use; 4789 is often taken by the network below.
            TunnelKind::Vxlan => 8472,
            TunnelKind::Geneve => 6081,
        });
        Some((kind, port))
    }
}

pub(super) fn from_layers(layers: &Layers) -> Result<Routing, ConfigError> {
    Ok(Routing {
        mode: layers.require("mode", parse_mode)?,
        encryption: encryption(
            layers.require("encryption", parse_encryption)?,
            layers.require("encryption-port", parse_port)?,
        ),
        port: layers.optional("overlay-port", parse_port)?,
    })
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    match text {
        "native" => Ok(Mode::Native),
        "vxlan" => Ok(Mode::Vxlan),
        "geneve" => Ok(Mode::Geneve),
        "auto" => Ok(Mode::Auto),
        _ => Err("expected vxlan, geneve, native or auto".into()),
    }
}

/// Whether to encrypt.
fn parse_encryption(text: &str) -> Result<bool, String> {
    match text {
        "none" => Ok(false),
        "wireguard" => Ok(true),
        _ => Err("expected none or wireguard".into()),
    }
}

fn encryption(is_on: bool, port: u16) -> Encryption {
    if is_on {
        Encryption::Wireguard(port)
    } else {
        Encryption::None
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port @ 1..) => Ok(port),
        _ => Err("expected a UDP port, 1 to 65535, the same on all nodes".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_has_its_device_and_port() {
        let tunnel = |mode, port| {
            let mode = parse_mode(mode).unwrap();
            let encryption = Encryption::None;
            Routing {
                mode,
                encryption,
                port,
            }
            .tunnel()
        };
        assert_eq!(tunnel("native", Some(7)), None);
        assert_eq!(tunnel("vxlan", None), Some((TunnelKind::Vxlan, 8472)));
        assert_eq!(tunnel("auto", Some(7)), Some((TunnelKind::Vxlan, 7)));
        assert_eq!(tunnel("geneve", None), Some((TunnelKind::Geneve, 6081)));
        assert!(parse_mode("ipip").unwrap_err().contains("native"));
        for bad in ["0", "65536", "x", ""] {
            assert!(parse_port(bad).unwrap_err().contains("UDP port"), "{bad}");
        }
    }

    #[test]
    fn wireguard_needs_no_overlay() {
        let on = encryption(parse_encryption("wireguard").unwrap(), 51820);
        assert_eq!(on, Encryption::Wireguard(51820));
        let routing = Routing {
            mode: Mode::Vxlan,
            encryption: on,
            port: None,
        };
        assert_eq!(routing.tunnel(), None);
        let off = encryption(parse_encryption("none").unwrap(), 51820);
        assert_eq!(off, Encryption::None);
        assert!(parse_encryption("ipsec").unwrap_err().contains("wireguard"));
    }
}
