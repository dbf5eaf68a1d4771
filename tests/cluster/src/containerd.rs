//! containerd on a node: its configuration, which one it is, and the images it gets.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};

use crate::args::Containerd;

/// The sandbox's image, which is imported as any other.
const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

/// How containerd keeps images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshotter {
    /// Layers on top of each other.
    Overlayfs,
    /// Whole copies: works everywhere.
    Native,
}

impl Snapshotter {
    /// The best that works in `dir`: an overlay cannot be the upper layer of another.
    #[must_use]
    pub fn for_dir(dir: &Path) -> Self {
        match statfs(dir) {
            Ok(fs) if fs.filesystem_type() != OVERLAYFS_SUPER_MAGIC => Self::Overlayfs,
            _ => Self::Native,
        }
    }

    /// As containerd names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlayfs => "overlayfs",
            Self::Native => "native",
        }
    }
}

/// Where a containerd has its files.
#[derive(Clone, Debug)]
pub struct Files {
    /// What outlives it: images.
    pub root: PathBuf,
    /// What does not.
    pub state: PathBuf,
}

impl Files {
    /// A node's: the defaults, as each node has its own `/run` and `/var/lib`.
    #[must_use]
    pub fn of_node() -> Self {
        Self {
            root: "/var/lib/containerd".into(),
            state: "/run/containerd".into(),
        }
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state.join("containerd.sock")
    }
}

/// Its configuration; both versions read this format.
#[must_use]
pub fn config(snapshotter: Snapshotter, files: &Files) -> String {
    format!(
        r#"version = 2
root = {:?}
state = {:?}
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
]
[grpc]
  address = {:?}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Without CAP_SYS_RESOURCE no process may have a lower score than its parent.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#,
        files.root,
        files.state,
        files.socket(),
        snapshotter.name()
    )
}

/// The folder that a version's programs are in.
///
/// # Errors
/// There is no such version.
pub fn find(version: Containerd, bin: &Path) -> Result<PathBuf> {
    let want = match version {
        Containerd::Two => "2.",
        Containerd::OneSix => "1.6.",
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(bin.to_owned()).chain(std::env::split_paths(&path));
    let mut seen = Vec::new();
    for folder in folders {
        let program = folder.join("containerd");
        let Ok(output) = Command::new(&program).arg("--version").output() else {
            continue;
        };
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if is_version(&text, want) {
            return Ok(folder);
        }
        seen.push(format!("{}: {text}", program.display()));
    }
    let remedy = match version {
        Containerd::Two => "`cargo xtask cluster` builds it",
        Containerd::OneSix => "apt-get install containerd",
    };
    bail!("no containerd {want}x ({remedy}); found: {seen:?}")
}

/// Whether `containerd --version` says the version: `containerd PACKAGE 1.6.20~ds1 REVISION`. A build
/// without the linker's flags says `2.4.2+unknown`.
fn is_version(text: &str, want: &str) -> bool {
    text.split_whitespace()
        .any(|word| word.trim_start_matches('v').starts_with(want))
}

/// Whether it answers on its socket, in the node whose holder is `holder`.
#[must_use]
pub fn answers(holder: u32, files: &Files) -> bool {
    UnixStream::connect(format!("/proc/{holder}/root{}", files.socket().display())).is_ok()
}

/// The arguments of `ctr` that import an image.
#[must_use]
pub fn import_args(
    version: Containerd,
    snapshotter: Snapshotter,
    files: &Files,
    image: &Path,
) -> Vec<String> {
    let mut args: Vec<String> = ["-n", "k8s.io", "-a"].map(Into::into).into();
    args.push(files.socket().display().to_string());
    args.extend(["images".into(), "import".into()]);
    if version == Containerd::Two {
        // The transfer service knows only the snapshotter it is configured for.
        args.push("--local".into());
    }
    args.extend(["--snapshotter".into(), snapshotter.name().into()]);
    args.push(image.display().to_string());
    args
}

/// The images of a folder, by name.
///
/// # Errors
/// It cannot be read, or has none.
pub fn images(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "tar"))
        // Nodes see where a link leads, and not necessarily the link.
        .map(|path| path.canonicalize().unwrap_or(path))
        .collect();
    all.sort();
    if all.is_empty() {
        bail!(
            "{} has no image (NAME.tar); `cargo xtask cluster` builds them",
            folder.display()
        );
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_by_what_the_program_says() {
        let debian = "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1";
        assert!(is_version(debian, "1.6.") && !is_version(debian, "2."));
        let built = "containerd github.com/containerd/containerd/v2 2.4.2+unknown";
        assert!(is_version(built, "2.") && !is_version(built, "1.6."));
        assert!(is_version("containerd x v2.0.1 y", "2."));
    }

    #[test]
    fn the_old_ctr_is_not_given_the_new_ones_flags() {
        let (files, image) = (Files::of_node(), Path::new("/a.tar"));
        let args = |version| import_args(version, Snapshotter::Native, &files, image);
        assert!(args(Containerd::Two).contains(&"--local".into()));
        assert!(!args(Containerd::OneSix).contains(&"--local".into()));
    }
}
