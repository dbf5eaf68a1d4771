//! The plugin in the runtime's binary directory.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use super::files;

/// The plugin's name.
pub const PLUGIN: &str = "weir-cni";
/// The reference plugin that containerd cannot do without; the plugin is one under that name.
pub const LOOPBACK: &str = "loopback";

const MODE: u32 = 0o755;

/// What was done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Made, or replaced by another.
    Installed,
    /// It was there as it should be.
    Unchanged,
    /// Somebody else's is there, and stays.
    Foreign,
}

/// The plugin beside the running program.
///
/// # Errors
/// The running program cannot be found.
pub fn beside_this_program() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(PLUGIN))
}

/// Copies the plugin into `bin_dir`, which is made if it is missing. The old one, which may just be
/// running, is replaced by a rename.
///
/// # Errors
/// The file system's, naming the file.
pub fn install_plugin(plugin: &Path, bin_dir: &Path) -> io::Result<Outcome> {
    let bytes = fs::read(plugin).map_err(|e| files::named(plugin, &e))?;
    fs::create_dir_all(bin_dir).map_err(|e| files::named(bin_dir, &e))?;
    let path = bin_dir.join(PLUGIN);
    let same_mode = fs::symlink_metadata(&path)
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o777 == MODE);
    if same_mode && files::read(&path)?.as_deref() == Some(bytes.as_slice()) {
        return Ok(Outcome::Unchanged);
    }
    files::replace(&path, ".weir-cni.tmp", &bytes, MODE)?;
    Ok(Outcome::Installed)
}

/// Makes `loopback` the plugin's other name, if nothing has that name. It is a link, so that a later
/// release replaces both at once, and so that one can see whose it is.
///
/// # Errors
/// The file system's, naming the file.
pub fn install_loopback(bin_dir: &Path) -> io::Result<Outcome> {
    let path = bin_dir.join(LOOPBACK);
    match symlink(PLUGIN, &path) {
        Ok(()) => Ok(Outcome::Installed),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(if is_our_loopback(bin_dir) {
            Outcome::Unchanged
        } else {
            Outcome::Foreign
        }),
        Err(e) => Err(files::named(&path, &e)),
    }
}

/// Whether `loopback` is the link that [`install_loopback`] makes.
pub fn is_our_loopback(bin_dir: &Path) -> bool {
    fs::read_link(bin_dir.join(LOOPBACK)).is_ok_and(|target| target == Path::new(PLUGIN))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn dirs(plugin: &[u8]) -> (TempDir, PathBuf, PathBuf) {
        let dir = TempDir::new().unwrap();
        let from = dir.path().join("image");
        fs::create_dir(&from).unwrap();
        fs::write(from.join(PLUGIN), plugin).unwrap();
        let bin = dir.path().join("opt/cni/bin");
        (dir, from.join(PLUGIN), bin)
    }

    fn listed(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = names
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_plugin_is_copied_executable_into_a_directory_that_is_made() {
        let (_dir, plugin, bin) = dirs(b"one");
        assert_eq!(install_plugin(&plugin, &bin).unwrap(), Outcome::Installed);
        assert_eq!(fs::read(bin.join(PLUGIN)).unwrap(), b"one");
        let mode = fs::metadata(bin.join(PLUGIN)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(listed(&bin), [PLUGIN]);
    }

    #[test]
    fn the_same_plugin_is_left_and_another_release_replaces_it_by_a_rename() {
        use std::os::unix::fs::MetadataExt as _;
        let (_dir, plugin, bin) = dirs(b"one");
        install_plugin(&plugin, &bin).unwrap();
        let inode = || fs::metadata(bin.join(PLUGIN)).unwrap().ino();
        // Held open, as by a plugin that runs: its inode is not given again.
        let running = fs::File::open(bin.join(PLUGIN)).unwrap();
        let first = inode();
        assert_eq!(install_plugin(&plugin, &bin).unwrap(), Outcome::Unchanged);
        assert_eq!(inode(), first);
        fs::write(&plugin, b"two").unwrap();
        assert_eq!(install_plugin(&plugin, &bin).unwrap(), Outcome::Installed);
        assert_ne!(inode(), first);
        assert_eq!(fs::read(bin.join(PLUGIN)).unwrap(), b"two");
        drop(running);
    }

    #[test]
    fn what_an_installation_that_was_killed_has_left_is_no_obstacle_and_goes() {
        let (_dir, plugin, bin) = dirs(b"one");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join(".weir-cni.tmp"), b"ha").unwrap();
        install_plugin(&plugin, &bin).unwrap();
        assert_eq!(listed(&bin), [PLUGIN]);
    }

    #[test]
    fn loopback_is_made_only_where_there_is_none_and_ours_is_known_again() {
        let (_dir, plugin, bin) = dirs(b"one");
        install_plugin(&plugin, &bin).unwrap();
        assert!(!is_our_loopback(&bin));
        assert_eq!(install_loopback(&bin).unwrap(), Outcome::Installed);
        assert_eq!(fs::read(bin.join(LOOPBACK)).unwrap(), b"one");
        assert_eq!(install_loopback(&bin).unwrap(), Outcome::Unchanged);
        assert!(is_our_loopback(&bin));
        fs::remove_file(bin.join(LOOPBACK)).unwrap();
        fs::write(bin.join(LOOPBACK), b"the distribution's").unwrap();
        assert_eq!(install_loopback(&bin).unwrap(), Outcome::Foreign);
        assert_eq!(fs::read(bin.join(LOOPBACK)).unwrap(), b"the distribution's");
    }

    #[test]
    fn a_missing_plugin_and_a_directory_that_cannot_be_made_are_named() {
        let (dir, plugin, bin) = dirs(b"one");
        let missing = install_plugin(&dir.path().join("nowhere"), &bin).unwrap_err();
        assert!(missing.to_string().contains("nowhere"), "{missing}");
        let error = install_plugin(&plugin, &plugin.join("bin")).unwrap_err();
        assert!(error.to_string().contains("weir-cni/bin"), "{error}");
    }
}
