//! `down`: ends a cluster and removes all of it but its logs, whatever state it is in.
//!
//! It needs no state: all processes are in the cluster's cgroup, whose path follows from its name, and
//! namespaces and mounts end with them. The state only adds processes that have left the cgroup.

use std::{fs, io, path::Path};

use anyhow::{Context, Result};

use crate::{api, cgroup::Mounts, state, state::State};

/// Takes the cluster `name` down, whose files are in `dir`; what is not there is as it shall be.
///
/// # Errors
/// A process does not end, or something cannot be removed.
pub fn down(dir: &Path, name: &str) -> Result<()> {
    match State::load(dir) {
        Ok(Some(state)) if state.of_this_boot()? => {
            state.all().for_each(crate::process::Process::kill);
        }
        Ok(_) => {}
        Err(error) => eprintln!("  {error:#}"),
    }
    Mounts::find()?.remove(&State::cgroup(name))?;
    for folder in ["nodes", "pki", "install"] {
        remove(&dir.join(folder), |path| fs::remove_dir_all(path))?;
    }
    let files = [
        api::kubeconfig(dir),
        api::node_kubeconfig(dir),
        state::file(dir),
    ];
    for file in files {
        remove(&file, |path| fs::remove_file(path))?;
    }
    Ok(())
}

fn remove(path: &Path, how: impl Fn(&Path) -> io::Result<()>) -> Result<()> {
    match how(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
