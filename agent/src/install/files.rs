//! Files that others read while they are replaced.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Replaces a file as a whole, or makes it, with this mode: a reader sees the old one or the new
/// one, also after a crash. The new one is written to `temporary`, a name in the same directory,
/// and renamed, as a directory on another file system would not do (and containerd does not see a
/// configuration that is moved in from elsewhere).
///
/// # Errors
/// The file system's, naming the file.
pub(super) fn replace(path: &Path, temporary: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let new = dir.join(temporary);
    write(&new, bytes, mode)
        .and_then(|()| fs::rename(&new, path))
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(|e| {
            // Of a failed attempt nothing stays; if this fails too, the next one removes it.
            let _ = fs::remove_file(&new);
            named(path, &e)
        })
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    remove(path)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // Whatever the umask is.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Removes a file; false if there is none.
///
/// # Errors
/// The file system's, naming the file.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(named(path, &e)),
    }
}

/// A file's contents, or none where it is not there.
///
/// # Errors
/// The file system's, naming the file.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(named(path, &e)),
    }
}

/// The same error with the file's name.
pub(super) fn named(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}
