//! Puts the socket programs on a cgroup, by pinned links.

use crate::causes::chain;
use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::programs::{
    CgroupAttachMode, CgroupSock, CgroupSockAddr, CgroupSockAddrAttachType as Addr,
    CgroupSockAttachType as Sock, links::FdLink,
};
use weir_net::bpf::{self, LinkTarget};

use super::{
    Error,
    pins::{self, Pins},
};

/// Program name, and where it is attached. A program that the object does not have is passed over.
const HOOKS: [(&str, Hook); 9] = [
    ("sock_connect4", Hook::Addr(Addr::Connect4)),
    ("sock_connect6", Hook::Addr(Addr::Connect6)),
    ("sock_sendmsg4", Hook::Addr(Addr::UDPSendMsg4)),
    ("sock_sendmsg6", Hook::Addr(Addr::UDPSendMsg6)),
    ("sock_recvmsg4", Hook::Addr(Addr::UDPRecvMsg4)),
    ("sock_recvmsg6", Hook::Addr(Addr::UDPRecvMsg6)),
    ("sock_getpeername4", Hook::Addr(Addr::GetPeerName4)),
    ("sock_getpeername6", Hook::Addr(Addr::GetPeerName6)),
    ("sock_release", Hook::Sock(Sock::SockRelease)),
];

/// A cgroup hook of either kind of program.
#[derive(Clone, Copy)]
enum Hook {
    Addr(Addr),
    Sock(Sock),
}

impl Hook {
    /// Links coexist with other programs whatever the mode; flags other than 0 are refused.
    fn attach(self, program: &Path, cgroup: &File) -> Result<FdLink, Box<dyn std::error::Error>> {
        match self {
            Self::Addr(attach_type) => {
                let mut program = CgroupSockAddr::from_pin(program, attach_type)?;
                let id = program.attach(cgroup, CgroupAttachMode::Single)?;
                Ok(program.take_link(id)?.try_into()?)
            }
            Self::Sock(attach_type) => {
                let mut program = CgroupSock::from_pin(program, attach_type)?;
                let id = program.attach(cgroup, CgroupAttachMode::Single)?;
                Ok(program.take_link(id)?.try_into()?)
            }
        }
    }
}

/// The root of the machine's cgroup2 mount.
///
/// # Errors
/// There is none.
pub fn mount_root() -> Result<PathBuf, Error> {
    let mounts = "/proc/self/mounts";
    let text = fs::read_to_string(mounts).map_err(|e| Error::pin(mounts, e))?;
    find_mount(&text).ok_or_else(|| {
        Error::pin(
            mounts,
            "no cgroup2 file system is mounted: mount one with `mount -t cgroup2 none /sys/fs/cgroup`, or name a directory of one by --cgroup",
        )
    })
}

fn find_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let path = fields.nth(1)?;
        // Spaces and the like are octal escapes (fstab(5)).
        (fields.next()? == "cgroup2").then(|| PathBuf::from(path.replace("\\040", " ")))
    })
}

/// Sees to it that the socket programs are attached to the cgroup; says how many links changed.
///
/// # Errors
/// The directory is no cgroup2, or the kernel refuses.
pub fn ensure(pins: &Pins, cgroup: &Path) -> Result<usize, Error> {
    let mut changed = 0;
    for (name, hook) in HOOKS {
        if pins.prog(name).exists() {
            changed += usize::from(ensure_one(pins, cgroup, name, hook)?);
        }
    }
    Ok(changed)
}

fn ensure_one(pins: &Pins, cgroup: &Path, name: &str, hook: Hook) -> Result<bool, Error> {
    let failed = |message: String| Error::Attach {
        program: name.to_owned(),
        target: format!("cgroup {}", cgroup.display()),
        message,
    };
    let directory = File::open(cgroup).map_err(|e| failed(e.to_string()))?;
    let prog_path = pins.prog(name);
    let prog = bpf::get_pinned(&prog_path).map_err(|e| failed(e.to_string()))?;
    let prog_id = bpf::prog_info(prog.as_fd())
        .map_err(|e| failed(e.to_string()))?
        .id;
    let pin = pins.link(&format!("cg-{name}"));
    if pin.exists() {
        let link = bpf::get_pinned(&pin).map_err(|e| failed(e.to_string()))?;
        let info = bpf::link_info(link.as_fd()).map_err(|e| failed(e.to_string()))?;
        if attached_to(info.target, &directory) {
            if info.prog_id == prog_id {
                return Ok(false);
            }
            bpf::link_update(link.as_fd(), prog.as_fd(), None)
                .map_err(|e| failed(e.to_string()))?;
            return Ok(true);
        }
        // Another cgroup was configured, or it was removed and made again.
        pins::unpin(&pin)?;
    }
    let link = hook
        .attach(&prog_path, &directory)
        .map_err(|e| failed(chain(e.as_ref())))?;
    link.pin(&pin).map_err(|e| Error::pin(&pin, chain(&e)))?;
    Ok(true)
}

/// A cgroup's id is the inode of its directory (kernfs, 64-bit).
fn attached_to(target: LinkTarget, directory: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let LinkTarget::Cgroup { cgroup_id, .. } = target else {
        return false;
    };
    directory.metadata().is_ok_and(|m| m.ino() == cgroup_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup2_mount_is_found_beside_cgroup_v1() {
        let mounts = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      none /sys/fs/cgroup/my\\040unified cgroup2 rw,nosuid 0 0\n";
        assert_eq!(find_mount(mounts), Some("/sys/fs/cgroup/my unified".into()));
        assert_eq!(
            find_mount("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"),
            None
        );
    }
}
