//! The XDP program on uplinks whose driver runs it: it carries on what the tc programs have opened,
//! so that a device without it works the same, only slower.

use crate::causes::chain;
use std::{fmt, os::fd::AsFd as _, str::FromStr};

use aya::programs::{Xdp, XdpMode, links::FdLink};
use aya_obj::programs::XdpAttachType;
use weir_net::bpf::{self, LinkTarget};

use super::{
    Error,
    pins::{self, Pins},
};

/// The program's name.
pub(super) const PROGRAM: &str = "xdp_uplink";
/// Begins the name of a link's pin; the interface's index follows.
const LINK: &str = "xdp-";

/// Where the XDP program is used: `--xdp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// On hardware whose driver runs it. A veth pair's driver does, too, but it sends nothing that
    /// way unless its other end is prepared for that, which cannot be seen from here.
    Auto,
    /// On every uplink whose driver runs it.
    Native,
    /// Nowhere.
    Off,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "off" => Ok(Self::Off),
            _ => Err("expected auto, native or off".into()),
        }
    }
}

/// What became of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The driver runs the program.
    Driver,
    /// The tc programs do it all, and why.
    Tc(String),
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver => write!(f, "known flows go on in the driver (XDP)"),
            Self::Tc(why) => write!(f, "all by tc programs ({why})"),
        }
    }
}

/// A device towards other machines, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: &'a str,
    /// Its kind, such as `veth`; none for hardware.
    pub kind: Option<&'a str>,
}

/// Sees to it that the program is on the device, if that is wanted and its driver runs it.
///
/// # Errors
/// A pin cannot be read or written. That a driver refuses is no error.
pub fn ensure(pins: &Pins, device: Device<'_>, mode: Mode) -> Result<Chosen, Error> {
    let pin = pins.link(&format!("{LINK}{}", device.index));
    if let Some(why) = unwanted(pins, device, mode) {
        pins::unpin(&pin)?;
        return Ok(Chosen::Tc(why));
    }
    let path = pins.prog(PROGRAM);
    let program = bpf::get_pinned(&path).map_err(|e| Error::pin(&path, e))?;
    let id = bpf::prog_info(program.as_fd())
        .map_err(|e| Error::pin(&path, e))?
        .id;
    if pin.exists() {
        let link = bpf::get_pinned(&pin).map_err(|e| Error::pin(&pin, e))?;
        let info = bpf::link_info(link.as_fd()).map_err(|e| Error::pin(&pin, e))?;
        let here = matches!(info.target, LinkTarget::Xdp { ifindex } if ifindex == device.index);
        if here && info.prog_id == id {
            return Ok(Chosen::Driver);
        }
        if here {
            bpf::link_update(link.as_fd(), program.as_fd(), None)
                .map_err(|e| Error::pin(&pin, e))?;
            return Ok(Chosen::Driver);
        }
        // The link of a device that is gone and whose index has come again.
        pins::unpin(&pin)?;
    }
    match attach(pins, device.index) {
        Ok(link) => {
            link.pin(&pin).map_err(|e| Error::pin(&pin, chain(&e)))?;
            Ok(Chosen::Driver)
        }
        Err(why) => Ok(Chosen::Tc(format!("the driver refuses it: {why}"))),
    }
}

/// Why the device is left to tc, before its driver is asked.
fn unwanted(pins: &Pins, device: Device<'_>, mode: Mode) -> Option<String> {
    match (mode, device.kind) {
        (Mode::Off, _) => Some("--xdp=off".into()),
        (Mode::Auto, Some(kind)) => Some(format!(
            "{kind} is no hardware: --xdp=native uses XDP all the same"
        )),
        _ if !pins.prog(PROGRAM).exists() => Some("the object has no XDP program".into()),
        _ => None,
    }
}

fn attach(pins: &Pins, index: u32) -> Result<FdLink, String> {
    let failed = |e: &dyn std::error::Error| chain(e);
    let mut program =
        Xdp::from_pin(pins.prog(PROGRAM), XdpAttachType::Interface).map_err(|e| failed(&e))?;
    let id = program
        .attach_to_if_index(index, XdpMode::Driver)
        .map_err(|e| failed(&e))?;
    let link = program.take_link(id).map_err(|e| failed(&e))?;
    // Without links for XDP (a driver that only takes it by netlink) the program would go with us.
    FdLink::try_from(link).map_err(|e| failed(&e))
}

/// Takes the program off every device that is not among these.
///
/// # Errors
/// The folder of pins cannot be read, or a pin not be removed.
pub fn sweep(pins: &Pins, devices: &[u32]) -> Result<(), Error> {
    for name in pins::names(&pins.links())? {
        let index = name.strip_prefix(LINK).and_then(|n| n.parse::<u32>().ok());
        if index.is_some_and(|index| !devices.contains(&index)) {
            pins::unpin(&pins.link(&name))?;
        }
    }
    Ok(())
}
