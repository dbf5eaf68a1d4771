//! This node's own WireGuard key: made once, and kept in a file that only root reads.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use weir_net::PrivateKey;

/// The file's name in the state directory.
pub const FILE: &str = "wireguard.key";
/// Access for its owner alone.
const MODE: u32 = 0o600;

/// The key in the directory's file, which is made if it is not there.
///
/// # Errors
/// The file cannot be read or made, or holds no key: it is never replaced by itself, as the other
/// nodes know this one by it.
pub fn load_or_make(dir: &Path) -> anyhow::Result<PrivateKey> {
    let path = dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return make(&path),
        Err(e) => return Err(e).with_context(|| format!("this node's key {}", path.display())),
    };
    let shown = || path.display().to_string();
    fs::set_permissions(&path, Permissions::from_mode(MODE)).with_context(shown)?;
    text.parse().map_err(|e: String| {
        anyhow!(
            "this node's key {}: {e}: remove the file for a new one to be made",
            path.display()
        )
    })
}

fn make(path: &Path) -> anyhow::Result<PrivateKey> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|e| anyhow!("random bytes for this node's key: {e}"))?;
    let key = PrivateKey::from_bytes(random);
    let temporary = path.with_extension("key.tmp");
    write(&temporary, &key)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("this node's key {}", path.display()))?;
    tracing::info!(file = %path.display(), "this node's WireGuard key made");
    Ok(key)
}

fn write(path: &Path, key: &PrivateKey) -> io::Result<()> {
    // What an agent has left that was killed here is nobody's key.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)?;
    writeln!(file, "{}", key.secret_text())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(dir: &Path) -> u32 {
        let meta = fs::metadata(dir.join(FILE)).unwrap();
        meta.permissions().mode() & 0o777
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let key = load_or_make(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), MODE);
        assert_eq!(load_or_make(dir.path()).unwrap(), key);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load_or_make(other.path()).unwrap(), key);
    }

    #[test]
    fn a_key_that_others_could_read_is_closed_to_them() {
        let dir = tempfile::tempdir().unwrap();
        load_or_make(dir.path()).unwrap();
        fs::set_permissions(dir.path().join(FILE), Permissions::from_mode(0o644)).unwrap();
        load_or_make(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), MODE);
    }

    #[test]
    fn a_damaged_key_is_an_error_that_names_the_file_and_not_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "c2VjcmV0\n").unwrap();
        let error = format!("{:#}", load_or_make(dir.path()).unwrap_err());
        assert!(error.contains(FILE) && error.contains("remove"), "{error}");
        assert!(!error.contains("c2VjcmV0"), "{error}");
        assert_eq!(
            fs::read_to_string(dir.path().join(FILE)).unwrap(),
            "c2VjcmV0\n"
        );
    }
}
