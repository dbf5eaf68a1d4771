//! What `up` has made, in `state.json`: enough for `down` and `status` of another process.

use std::{
    fs,
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{args::Options, process::Process};

/// Changes with the file's shape.
const VERSION: u32 = 1;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// `n1`, `n2`, …
    pub name: String,
    /// Its addresses, the primary family's first.
    pub addresses: Vec<IpAddr>,
    /// Whose namespaces are the node's.
    pub holder: Process,
    /// Its cgroup of version 2: socket hooks attach here.
    pub cgroup: PathBuf,
}

/// A cluster, as far as it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// [`VERSION`].
    version: u32,
    /// The cluster's name.
    pub name: String,
    /// The boot it belongs to: after another one, none of its processes is left.
    pub boot: String,
    /// What it was asked to be.
    pub options: Options,
    /// Where the programs are.
    pub bin: PathBuf,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// All other processes.
    pub processes: Vec<Process>,
    /// Whether `up` has come to its end.
    pub ready: bool,
}

impl State {
    /// Of a cluster of which nothing is made yet.
    ///
    /// # Errors
    /// The boot's id cannot be read.
    pub fn new(name: &str, options: &Options, bin: &Path) -> Result<Self> {
        Ok(Self {
            version: VERSION,
            name: name.to_owned(),
            boot: boot()?,
            options: options.clone(),
            bin: bin.to_owned(),
            nodes: Vec::new(),
            processes: Vec::new(),
            ready: false,
        })
    }

    /// The folder of the cluster's cgroups, in every hierarchy.
    #[must_use]
    pub fn cgroup(name: &str) -> PathBuf {
        format!("weir-cluster-{name}").into()
    }

    /// Reads it; none if there is none.
    ///
    /// # Errors
    /// It cannot be read, or another version wrote it.
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        let path = file(dir);
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let state: Self = serde_json::from_str(&text).with_context(|| {
            format!(
                "cannot read {}: another version wrote it; `down` still works",
                path.display()
            )
        })?;
        ensure!(
            state.version == VERSION,
            "{} has version {}, not {VERSION}; take the cluster down and up again",
            path.display(),
            state.version
        );
        Ok(Some(state))
    }

    /// Writes it: the old one or the new one is there, never half of one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let path = file(dir);
        let mut temporary = tempfile::NamedTempFile::new_in(dir)
            .with_context(|| format!("cannot write into {}", dir.display()))?;
        temporary.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
        temporary
            .persist(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// The node of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        match self.nodes.iter().find(|node| node.name == name) {
            Some(node) => Ok(node),
            None => bail!("the cluster has {} nodes, but no {name}", self.nodes.len()),
        }
    }

    /// All processes, the nodes' holders first.
    pub fn all(&self) -> impl Iterator<Item = &Process> {
        let holders = self.nodes.iter().map(|node| &node.holder);
        holders.chain(&self.processes)
    }

    /// Whether this boot made it.
    ///
    /// # Errors
    /// The boot's id cannot be read.
    pub fn of_this_boot(&self) -> Result<bool> {
        Ok(self.boot == boot()?)
    }

    /// Processes that have ended.
    #[must_use]
    pub fn dead(&self) -> Vec<&Process> {
        self.all().filter(|process| !process.alive()).collect()
    }
}

/// Where it is.
#[must_use]
pub fn file(dir: &Path) -> PathBuf {
    dir.join("state.json")
}

fn boot() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cni, Containerd, NodeCidrs};

    fn state() -> State {
        let options = Options {
            nodes: 1,
            cni: Cni::Bridge,
            dual_stack: false,
            ipv6: true,
            containerd: Containerd::OneSix,
            node_cidrs: NodeCidrs::Weir,
        };
        State::new("x", &options, Path::new("/bin")).unwrap()
    }

    #[test]
    fn what_is_saved_is_loaded_and_nothing_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), None);
        let mut state = state();
        state
            .processes
            .push(Process::find("own", std::process::id()).unwrap());
        state.save(dir.path()).unwrap();
        let loaded = State::load(dir.path()).unwrap().unwrap();
        assert_eq!(loaded, state);
        assert!(loaded.of_this_boot().unwrap() && loaded.dead().is_empty());
    }

    #[test]
    fn another_versions_file_is_refused_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut newer = state();
        newer.version += 1;
        newer.save(dir.path()).unwrap();
        let error = State::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("down and up again"), "{error}");
        fs::write(file(dir.path()), "{}").unwrap();
        assert!(State::load(dir.path()).is_err());
    }

    #[test]
    fn a_process_of_the_same_pid_but_another_start_counts_as_dead() {
        let mut state = state();
        let mut process = Process::find("own", std::process::id()).unwrap();
        process.started += 1;
        state.processes.push(process);
        assert_eq!(state.dead().len(), 1);
    }
}
