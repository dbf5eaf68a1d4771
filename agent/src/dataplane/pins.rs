//! Weir's folder in the bpffs: `<bpffs>/v<LAYOUT_VERSION>/{maps,progs,links}`.
//!
//! The lock is an advisory one (`flock`) on the folder itself: a bpffs holds no ordinary files, and
//! so the lock is as private or shared as the pins are. It goes with the process.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg, OFlag, open},
    sys::{stat::Mode, statfs::statfs},
};
use weir_abi::LAYOUT_VERSION;

use super::Error;

/// `BPF_FS_MAGIC` (linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Whether a path is in a BPF file system.
///
/// # Errors
/// The kernel's.
pub fn is_bpffs(path: &Path) -> nix::Result<bool> {
    Ok(statfs(path)?.filesystem_type().0 as i64 == BPF_FS_MAGIC)
}

/// Paths of pinned objects.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

/// Held by the one agent that owns the folder.
#[derive(Debug)]
pub struct Lock {
    _flock: Flock<OwnedFd>,
}

impl Pins {
    /// The folder of this layout below `bpffs`; touches nothing.
    pub fn new(bpffs: &Path) -> Self {
        Self {
            root: bpffs.join(format!("v{LAYOUT_VERSION}")),
        }
    }

    /// Makes the folders and takes the lock.
    ///
    /// # Errors
    /// Not a bpffs; pins of another layout; another agent has the lock.
    pub fn prepare(&self) -> Result<Lock, Error> {
        for dir in [&self.maps(), &self.progs(), &self.links()] {
            // The first is made before the check, for it may be what is to be checked.
            fs::create_dir_all(dir).map_err(|e| Error::pin(dir, format!("{e}: {MOUNT_HINT}")))?;
        }
        if !is_bpffs(&self.root).map_err(|e| Error::pin(&self.root, e))? {
            return Err(Error::pin(
                &self.root,
                format!("not a BPF file system: {MOUNT_HINT}"),
            ));
        }
        self.refuse_other_layouts()?;
        lock(&self.root)
    }

    /// Programs of another layout would stay attached beside ours.
    fn refuse_other_layouts(&self) -> Result<(), Error> {
        let Some(parent) = self.root.parent() else {
            return Ok(());
        };
        for layout in layouts(parent)? {
            if layout != self.root {
                return Err(Error::pin(
                    layout,
                    format!(
                        "pins of another layout (this agent writes v{LAYOUT_VERSION}): run the release that made them, or drain the node and remove this folder"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The folders beside the pins whose names begin so, sorted.
    pub(super) fn markers(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let mut found = names(&self.root)?;
        found.retain(|name| name.starts_with(prefix));
        Ok(found)
    }

    /// Makes `marker` the only folder whose name begins so; or none.
    pub(super) fn set_marker(&self, prefix: &str, marker: Option<&str>) -> Result<(), Error> {
        for name in self.markers(prefix)? {
            let path = self.root.join(name);
            fs::remove_dir(&path).map_err(|e| Error::pin(&path, e))?;
        }
        if let Some(marker) = marker {
            let path = self.root.join(marker);
            fs::create_dir(&path).map_err(|e| Error::pin(&path, e))?;
        }
        Ok(())
    }

    /// Folder of maps.
    pub fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    /// Folder of programs.
    pub fn progs(&self) -> PathBuf {
        self.root.join("progs")
    }

    /// Folder of links.
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// A map's pin.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// A program's pin.
    pub fn prog(&self, name: &str) -> PathBuf {
        self.progs().join(name)
    }

    /// A link's pin.
    pub fn link(&self, name: &str) -> PathBuf {
        self.links().join(name)
    }
}

/// Folders of all layouts below `bpffs`, sorted; none where it is not there.
///
/// # Errors
/// It cannot be read.
pub fn layouts(bpffs: &Path) -> Result<Vec<PathBuf>, Error> {
    if !bpffs.exists() {
        return Ok(Vec::new());
    }
    let mut found = names(bpffs)?;
    found.retain(|name| {
        let version = name.strip_prefix('v').map(str::parse::<u32>);
        matches!(version, Some(Ok(_)))
    });
    Ok(found.into_iter().map(|name| bpffs.join(name)).collect())
}

/// Takes the lock on a layout's folder.
///
/// # Errors
/// Another agent has it.
pub fn lock(root: &Path) -> Result<Lock, Error> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = open(root, flags, Mode::empty()).map_err(|e| Error::pin(root, e))?;
    match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
        Ok(flock) => Ok(Lock { _flock: flock }),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(Error::pin(
            root,
            "another weir-agent works with these pins: stop it first, or give this one a --bpffs of its own",
        )),
        Err((_, e)) => Err(Error::pin(root, e)),
    }
}

const MOUNT_HINT: &str =
    "mount one with `mount -t bpf bpf /sys/fs/bpf`, or name another by --bpffs";

/// Names in a folder of pins, sorted.
///
/// # Errors
/// It cannot be read.
pub fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::pin(dir, e))? {
        let entry = entry.map_err(|e| Error::pin(dir, e))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Removes a pin; one that is gone is fine.
pub(super) fn unpin(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::pin(path, e)),
        _ => Ok(()),
    }
}
