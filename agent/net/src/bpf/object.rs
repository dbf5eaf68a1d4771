//! Programs, maps and links: what they say of themselves, and replacing a link's program.

use std::{
    ffi::CString,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use super::sys::{self, Attr, Command, Info};
use crate::error::{Error, Result};

/// `BPF_F_REPLACE`: replace only the program that is named.
const BPF_F_REPLACE: u32 = 1 << 2;

/// What the kernel says of a map (`struct bpf_map_info`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// The kernel's id.
    pub id: u32,
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes.
    pub key_size: u32,
    /// Bytes.
    pub value_size: u32,
    /// Most entries.
    pub max_entries: u32,
    /// `BPF_F_…` of creation.
    pub flags: u32,
    /// The first 15 bytes of its name.
    pub name: String,
}

/// What the kernel says of a program (`struct bpf_prog_info`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgInfo {
    /// The kernel's id.
    pub id: u32,
    /// `enum bpf_prog_type`.
    pub prog_type: u32,
    /// Hash of its instructions: equal for equal programs (map references aside).
    pub tag: [u8; 8],
    /// The first 15 bytes of its name.
    pub name: String,
}

/// What the kernel says of a link (`struct bpf_link_info`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The kernel's id.
    pub id: u32,
    /// `enum bpf_link_type`.
    pub link_type: u32,
    /// Id of the program that is attached now.
    pub prog_id: u32,
    /// Where it is attached.
    pub target: LinkTarget,
}

/// What a link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkTarget {
    /// A tcx hook.
    Tcx {
        /// The interface's index, in the caller's namespace; 0 once the interface is gone.
        ifindex: u32,
        /// `enum bpf_attach_type`: 46 ingress, 47 egress.
        attach_type: u32,
    },
    /// A cgroup.
    Cgroup {
        /// Inode of the cgroup's directory; 0 once the cgroup is gone.
        cgroup_id: u64,
        /// `enum bpf_attach_type`.
        attach_type: u32,
    },
    /// An interface's XDP hook.
    Xdp {
        /// The interface's index; 0 once the interface is gone.
        ifindex: u32,
    },
    /// Something else.
    Other,
}

/// Opens the program, map or link that is pinned at a path.
pub fn get_pinned(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    let name = path.display().to_string();
    let c_path = CString::new(path.as_os_str().as_bytes())
        .map_err(|e| Error::call("bpf(BPF_OBJ_GET)", &name, std::io::Error::from(e)))?;
    sys::obj_get(&c_path).map_err(|e| Error::call("bpf(BPF_OBJ_GET)", name, e))
}

/// What the kernel says of a map.
pub fn map_info(map: BorrowedFd<'_>) -> Result<MapInfo> {
    map_info_of(map, "map")
}

/// What the kernel says of the map pinned at a path: for comparing with what a program expects
/// before aya re-uses the pin, which it does without looking.
pub fn map_info_pinned(path: impl AsRef<Path>) -> Result<MapInfo> {
    let path = path.as_ref();
    map_info_of(
        get_pinned(path)?.as_fd(),
        &format!("map {}", path.display()),
    )
}

fn map_info_of(map: BorrowedFd<'_>, object: &str) -> Result<MapInfo> {
    let info = info(map, object)?;
    Ok(MapInfo {
        map_type: info.u32(0),
        id: info.u32(4),
        key_size: info.u32(8),
        value_size: info.u32(12),
        max_entries: info.u32(16),
        flags: info.u32(20),
        name: info.name(24),
    })
}

/// What the kernel says of a program.
pub fn prog_info(program: BorrowedFd<'_>) -> Result<ProgInfo> {
    let info = info(program, "program")?;
    Ok(ProgInfo {
        prog_type: info.u32(0),
        id: info.u32(4),
        tag: info.bytes(8),
        name: info.name(64),
    })
}

/// What the kernel says of a link.
pub fn link_info(link: BorrowedFd<'_>) -> Result<LinkInfo> {
    // enum bpf_link_type
    const CGROUP: u32 = 3;
    const XDP: u32 = 6;
    const TCX: u32 = 11;
    let info = info(link, "link")?;
    let link_type = info.u32(0);
    let target = match link_type {
        CGROUP => LinkTarget::Cgroup {
            cgroup_id: info.u64(16),
            attach_type: info.u32(24),
        },
        XDP => LinkTarget::Xdp {
            ifindex: info.u32(16),
        },
        TCX => LinkTarget::Tcx {
            ifindex: info.u32(16),
            attach_type: info.u32(20),
        },
        _ => LinkTarget::Other,
    };
    Ok(LinkInfo {
        link_type,
        id: info.u32(4),
        prog_id: info.u32(8),
        target,
    })
}

/// Puts another program into a link, atomically: at every instant one of the two is attached. With
/// `expected`, only if that one is attached now (else EPERM or EINVAL, by the kind of link).
pub fn link_update(
    link: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    expected: Option<BorrowedFd<'_>>,
) -> Result<()> {
    // link_fd at 0, new_prog_fd at 4, flags at 8, old_prog_fd at 12.
    let mut attr = Attr::new().fd(0, link).fd(4, program);
    if let Some(expected) = expected {
        attr = attr.u32(8, BPF_F_REPLACE).fd(12, expected);
    }
    let updated = sys::bpf(Command::LinkUpdate, &attr);
    updated
        .map(drop)
        .map_err(|e| Error::call("bpf(BPF_LINK_UPDATE)", "link", e))
}

fn info(fd: BorrowedFd<'_>, object: &str) -> Result<Info> {
    let mut info = Info::new();
    sys::obj_info(fd, &mut info)
        .map_err(|e| Error::call("bpf(BPF_OBJ_GET_INFO_BY_FD)", object, e))?;
    Ok(info)
}
