//! The socket API: HTTP/JSON under `/v1/` on a unix socket, mode 0600 (docs/api.md).

mod routes;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

pub use routes::router;

/// Listens. The socket appears under its name with its mode set, in the place of one that an
/// earlier agent left.
///
/// # Errors
/// The file system's, naming the path.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("socket {}: {e}", path.display()));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(named)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(named(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary).map_err(named)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).map_err(named)?;
    fs::rename(&temporary, path).map_err(named)?;
    Ok(listener)
}
