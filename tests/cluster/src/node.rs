//! A node's own view of the machine: the process that holds its namespaces, and the mounts in them.
//!
//! A node sees the machine's programs and libraries, and files of its own wherever a node of
//! Kubernetes keeps its: `/run`, `/var/lib`, `/var/log` and `/tmp` are others, `/etc` and `/opt`
//! have a layer of their own on top. All that ends with the node's last process.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde::{Deserialize, Serialize};

use crate::kubelet::STATIC_PODS;

/// Where a node finds its cgroup, wherever the machine has version 2 mounted.
pub const CGROUP: &str = "/run/weir-cluster-cgroup";

/// Where a node has a layer of its own.
const LAYERS: [&str; 2] = ["/etc", "/opt"];

/// What a node does not see of the machine, and the name of what is there instead.
const OWN: [(&str, &str); 3] = [("/var/lib", "lib"), ("/var/log", "log"), ("/tmp", "tmp")];

/// What a holder holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hold {
    /// The wire between the nodes: a network namespace.
    Fabric,
    /// A node.
    Node(HoldNode),
}

/// What a node's holder needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldNode {
    /// Its host name.
    pub name: String,
    /// Where its files are on the machine.
    pub dir: PathBuf,
    /// What it sees at the same path as the machine, even below what is hidden.
    pub keep: Vec<PathBuf>,
    /// Its cgroup of version 2.
    pub cgroup: PathBuf,
    /// Its `/etc/hosts`.
    pub hosts: String,
    /// Its `/etc/resolv.conf`.
    pub resolv: String,
}

/// Makes the namespaces, says `ready`, and keeps them until it is killed. The process must have a
/// single thread.
///
/// # Errors
/// A namespace or a mount is refused.
pub fn hold(hold: &Hold) -> Result<()> {
    let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    unshare(flags).context("cannot make namespaces (this needs root)")?;
    propagate(MsFlags::MS_PRIVATE)?;
    if let Hold::Node(node) = hold {
        node.make()?;
        propagate(MsFlags::MS_SHARED)?;
    }
    let mut out = io::stdout();
    writeln!(out, "ready").context("nobody listens")?;
    out.flush()?;
    loop {
        std::thread::park();
    }
}

/// Sets how mounts propagate, everywhere: private, so that the machine sees none of ours; then
/// shared, so that pods see the node's (`HostToContainer` is refused otherwise).
fn propagate(how: MsFlags) -> Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        how | MsFlags::MS_REC,
        None::<&str>,
    )
    .context("cannot set how mounts propagate")
}

impl HoldNode {
    fn make(&self) -> Result<()> {
        // Opened before anything is hidden.
        let keep: Vec<(&PathBuf, File)> = self
            .keep
            .iter()
            .map(|path| Ok((path, open_path(path)?)))
            .collect::<Result<_>>()?;
        let cgroup = open_path(&self.cgroup)?;
        let own: Vec<(&str, File)> = OWN
            .iter()
            .map(|&(hidden, name)| {
                let own = self.dir.join(name);
                make_dir(&own)?;
                Ok((hidden, open_path(&own)?))
            })
            .collect::<Result<_>>()?;
        fs_mount("tmpfs", Path::new("/run"), Some("mode=755"))?;
        for name in ["netns", "weir", "containerd", "lock"] {
            make_dir(&Path::new("/run").join(name))?;
        }
        for layer in LAYERS {
            overlay(Path::new(layer))?;
        }
        for (hidden, own) in &own {
            bind(own, Path::new(hidden))?;
        }
        for (path, file) in &keep {
            make_dir(path)?;
            bind(file, path)?;
        }
        make_dir(Path::new(CGROUP))?;
        bind(&cgroup, Path::new(CGROUP))?;
        fs_mount("bpf", Path::new("/sys/fs/bpf"), Some("mode=700"))?;
        for dir in [
            "/etc/cni/net.d",
            "/opt/cni/bin",
            "/var/lib/weir",
            "/var/log/pods",
            STATIC_PODS,
        ] {
            make_dir(Path::new(dir))?;
        }
        for (file, text) in [
            ("hostname", format!("{}\n", self.name)),
            ("hosts", self.hosts.clone()),
            ("resolv.conf", self.resolv.clone()),
        ] {
            replace(&Path::new("/etc").join(file), &text)?;
        }
        // Of the thread's own UTS namespace.
        fs::write("/proc/sys/kernel/hostname", &self.name).context("cannot set the host name")
    }
}

/// A tmpfs on top of a folder of the machine.
fn overlay(folder: &Path) -> Result<()> {
    let name = folder.strip_prefix("/").unwrap_or(folder);
    let own = Path::new("/run/weir-cluster").join(name);
    let (upper, work) = (own.join("upper"), own.join("work"));
    make_dir(&upper)?;
    make_dir(&work)?;
    make_dir(folder)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        folder.display(),
        upper.display(),
        work.display()
    );
    fs_mount("overlay", folder, Some(&options))
}

fn open_path(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

fn bind(from: &File, to: &Path) -> Result<()> {
    let source = format!("/proc/self/fd/{}", from.as_raw_fd());
    mount(
        Some(source.as_str()),
        to,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .with_context(|| format!("cannot bind to {}", to.display()))
}

fn fs_mount(kind: &str, at: &Path, options: Option<&str>) -> Result<()> {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("cannot mount {kind} at {}", at.display()))
}

/// Writes a file that may be a symbolic link to one that is hidden now.
fn replace(path: &Path, text: &str) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot replace {}", path.display()));
        }
        _ => {}
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
