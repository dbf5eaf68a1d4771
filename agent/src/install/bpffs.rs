//! The BPF file system that pins are in.

use std::{fs, io, path::Path};

use nix::mount::{MsFlags, mount};

use super::{binaries::Outcome, files};
use crate::dataplane::pins;

/// Mounts a BPF file system at `dir` unless there is one; `dir` is made if it is missing.
///
/// # Errors
/// The kernel's, naming the directory.
pub fn ensure(dir: &Path) -> io::Result<Outcome> {
    fs::create_dir_all(dir).map_err(|e| files::named(dir, &e))?;
    if is_bpffs(dir)? {
        return Ok(Outcome::Unchanged);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), dir, Some("bpf"), flags, Some("mode=0700")).map_err(|e| {
        let message = format!("{}: cannot mount a BPF file system: {e}", dir.display());
        io::Error::new(io::Error::from(e).kind(), message)
    })?;
    Ok(Outcome::Installed)
}

/// Whether a path is in a BPF file system.
///
/// # Errors
/// The kernel's, naming the path.
pub fn is_bpffs(path: &Path) -> io::Result<bool> {
    pins::is_bpffs(path).map_err(|e| files::named(path, &e.into()))
}
