//! The processes that hold a lab's namespaces. Namespaces have no names on the machine: they are
//! gone when their last process is, and these die with the lab.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

use crate::spawn::Place;

/// Where a lab keeps its files, in its own mount namespaces only.
pub const ROOT: &str = "/run/weir-lab";

/// What a holder holds.
#[derive(Clone, Debug)]
pub enum Role {
    /// The fabric between the nodes, and the lab's private file system on `/run`.
    Fabric,
    /// One node.
    Node(String),
}

/// Runs a holder: makes its namespaces, says `ready` and waits for the end of standard input.
///
/// # Errors
/// When a namespace or a mount is refused.
pub fn run(role: &Role) -> Result<()> {
    let place = Place {
        new_net: true,
        new_mnt: true,
        ..Place::default()
    };
    place
        .enter()
        .context("creating a network and a mount namespace (root is needed)")?;
    private_mounts()?;
    match role {
        Role::Fabric => {
            mount_fs("tmpfs", "/run", "mode=0755")?;
            fs::create_dir_all("/run/weir").context("creating /run/weir")?;
            fs::create_dir_all(format!("{ROOT}/source"))?;
        }
        Role::Node(name) => {
            let run = node_dir(name, "run");
            fs::create_dir_all(&run).with_context(|| format!("creating {run}"))?;
            fs::create_dir_all(node_dir(name, "lib"))?;
            mount(
                Some(run.as_str()),
                "/run/weir",
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .with_context(|| format!("mounting {run} on /run/weir"))?;
            if !Path::new("/sys/fs/bpf").is_dir() {
                bail!("/sys/fs/bpf is missing: the kernel has no BPF file system");
            }
            mount_fs("bpf", "/sys/fs/bpf", "mode=0700")?;
        }
    }
    crate::netlink::raise_loopback()?;
    std::io::stdout().write_all(b"ready\n")?;
    std::io::stdout().flush()?;
    crate::spawn::release_output()?;
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    Ok(())
}

/// A folder of a node's files, as seen inside the lab: `run` (sockets) or `lib` (state).
#[must_use]
pub fn node_dir(node: &str, kind: &str) -> String {
    format!("{ROOT}/{node}/{kind}")
}

fn private_mounts() -> Result<()> {
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .context("making the mounts of the new namespace private")
}

fn mount_fs(kind: &str, target: &str, options: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(kind), target, Some(kind), flags, Some(options))
        .with_context(|| format!("mounting {kind} on {target}"))
}
