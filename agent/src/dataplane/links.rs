//! Pinned links, whatever they are attached to, get the programs that are pinned now.

use std::os::fd::AsFd as _;

use weir_net::bpf::{self, LinkTarget};

use super::{
    Error,
    attach::{Hook, Role, Side},
    pins::{self, Pins},
    xdp,
};

/// Gives every pinned link the current program of its name: before anything is written to maps that
/// only the current programs know. Nothing is attached that was not. Returns how many changed; a
/// link whose device or cgroup is gone is left to whoever removes it.
///
/// # Errors
/// A pin cannot be read; the kernel refuses a program.
pub(super) fn refresh(pins: &Pins) -> Result<u64, Error> {
    let mut changed = 0;
    for name in pins::names(&pins.links())? {
        let program = program_of(&name).map(|program| pins.prog(program));
        let Some(path) = program.filter(|path| path.exists()) else {
            continue;
        };
        let pin = pins.link(&name);
        let failed = |e: weir_net::Error| Error::pin(&pin, e);
        let program = bpf::get_pinned(&path).map_err(|e| Error::pin(&path, e))?;
        let id = bpf::prog_info(program.as_fd()).map_err(failed)?.id;
        let link = bpf::get_pinned(&pin).map_err(failed)?;
        let info = bpf::link_info(link.as_fd()).map_err(failed)?;
        let gone = match info.target {
            LinkTarget::Tcx { ifindex, .. } => ifindex == 0,
            LinkTarget::Cgroup { cgroup_id, .. } => cgroup_id == 0,
            LinkTarget::Xdp { ifindex } => ifindex == 0,
            LinkTarget::Other => true,
        };
        if info.prog_id == id || gone {
            continue;
        }
        match bpf::link_update(link.as_fd(), program.as_fd(), None) {
            Ok(()) => changed += 1,
            // What it is attached to has just gone.
            Err(e) if e.errno() == Some(libc::ENOLINK) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(changed)
}

/// The program that belongs to a link of this name: `ep-7-in`, `up-2-out`, `xdp-2`,
/// `cg-sock_connect4`.
fn program_of(link: &str) -> Option<&str> {
    let (kind, rest) = link.split_once('-')?;
    let role = match kind {
        "cg" => return Some(rest),
        "xdp" => return Some(xdp::PROGRAM),
        "ep" => Role::Endpoint,
        "up" => Role::Uplink,
        "ov" => Role::Overlay,
        "wg" => Role::Wireguard,
        _ => return None,
    };
    let side = match rest.split_once('-')?.1 {
        "in" => Side::In,
        "out" => Side::Out,
        _ => return None,
    };
    let hook = Hook {
        ifindex: 0,
        ifname: String::new(),
        role,
        side,
    };
    Some(hook.program())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_name_tells_its_program() {
        for (role, side) in [
            (Role::Endpoint, Side::In),
            (Role::Endpoint, Side::Out),
            (Role::Uplink, Side::In),
            (Role::Uplink, Side::Out),
            (Role::Overlay, Side::In),
            (Role::Overlay, Side::Out),
            (Role::Wireguard, Side::In),
            (Role::Wireguard, Side::Out),
        ] {
            let hook = Hook {
                ifindex: 7,
                ifname: "eth0".into(),
                role,
                side,
            };
            assert_eq!(program_of(&hook.link()), Some(hook.program()));
        }
        assert_eq!(program_of("cg-sock_connect4"), Some("sock_connect4"));
        assert_eq!(program_of("xdp-2"), Some("xdp_uplink"));
        for other in ["xdp", "ep", "ep-7", "ep-7-up", "x-7-in"] {
            assert_eq!(program_of(other), None);
        }
    }
}
