//! The cluster's cgroups: one tree in each hierarchy of version 1 (kubelet wants it there) and in
//! version 2, where the processes are, and by which all of them are ended.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How long killed processes may take to be gone.
const GONE: Duration = Duration::from_secs(20);

/// Where the hierarchies are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounts {
    /// Version 2.
    pub v2: PathBuf,
    /// Version 1, each; none on a machine that has only version 2.
    pub v1: Vec<PathBuf>,
}

impl Mounts {
    /// Finds them.
    ///
    /// # Errors
    /// There is no version 2.
    pub fn find() -> Result<Self> {
        let text = fs::read_to_string("/proc/self/mountinfo")
            .context("cannot read /proc/self/mountinfo")?;
        Self::parse(&text).context(
            "no cgroup v2 is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup/unified",
        )
    }

    /// Reads `mountinfo`: only mounts of a whole hierarchy below `/sys/fs/cgroup`.
    fn parse(text: &str) -> Option<Self> {
        let mut v2 = None;
        let mut v1 = Vec::new();
        for line in text.lines() {
            let Some((mount, kind)) = line.split_once(" - ") else {
                continue;
            };
            let mut fields = mount.split(' ').skip(3);
            let (root, path) = (fields.next()?, fields.next()?);
            if root != "/" || !path.starts_with("/sys/fs/cgroup") {
                continue;
            }
            match kind.split(' ').next()? {
                "cgroup2" => v2 = v2.or(Some(path.into())),
                "cgroup" => v1.push(path.into()),
                _ => {}
            }
        }
        Some(Self { v2: v2?, v1 })
    }

    /// Makes `path` (relative) in every hierarchy.
    ///
    /// # Errors
    /// A folder cannot be made.
    pub fn create(&self, path: &Path) -> Result<()> {
        for hierarchy in self.v1.iter().chain([&self.v2]) {
            let mut at = hierarchy.clone();
            for part in path {
                let parent = at.clone();
                at.push(part);
                make(&at)?;
                inherit_cpuset(&parent, &at)?;
            }
        }
        self.delegate(path);
        Ok(())
    }

    /// Makes a leaf for processes, in version 2 only, where nothing else may be beside groups.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create_leaf(&self, path: &Path) -> Result<PathBuf> {
        let at = self.v2.join(path);
        make(&at)?;
        Ok(at)
    }

    /// On a machine with version 2 only, hands the controllers down to `path`.
    fn delegate(&self, path: &Path) {
        let mut at = self.v2.clone();
        for part in path {
            at.push(part);
            let controllers = fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
            for controller in controllers.split_whitespace() {
                // One that cannot be had is kubelet's to complain about.
                let _ = fs::write(at.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
    }

    /// Kills all that is in `path` and below and removes the folders. Nothing there is success.
    ///
    /// # Errors
    /// A process does not end, or a folder cannot be removed.
    pub fn remove(&self, path: &Path) -> Result<()> {
        let v2 = self.v2.join(path);
        if v2.is_dir() {
            fs::write(v2.join("cgroup.kill"), "1")
                .with_context(|| format!("cannot kill what is in {}", v2.display()))?;
            await_empty(&v2)?;
        }
        for hierarchy in self.v1.iter().chain([&self.v2]) {
            remove_tree(&hierarchy.join(path))?;
        }
        Ok(())
    }
}

fn make(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(e).with_context(|| format!("cannot make the cgroup {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A new cpuset of version 1 is empty, and takes no process until it is filled.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = child.join(file);
        let empty = fs::read_to_string(&own).is_ok_and(|text| text.trim().is_empty());
        let version_1 = !parent.join("cgroup.controllers").exists();
        if empty && version_1 {
            let value = fs::read_to_string(parent.join(file))
                .with_context(|| format!("cannot read {file} of {}", parent.display()))?;
            fs::write(&own, value.trim())
                .with_context(|| format!("cannot write {}", own.display()))?;
        }
    }
    Ok(())
}

/// Waits until the kernel says that a version 2 cgroup has no processes (it wakes pollers of
/// `cgroup.events`).
fn await_empty(cgroup: &Path) -> Result<()> {
    let path = cgroup.join("cgroup.events");
    let deadline = Instant::now() + GONE;
    loop {
        let mut file =
            File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!(
                "processes in {} do not end; `ps -o pid,stat,comm -p PID` of its cgroup.procs says what they wait for",
                cgroup.display()
            );
        }
        await_change(&file, left).context("cannot wait for cgroup.events")?;
    }
}

/// Waits until the kernel says that a file of a cgroup has changed since it was read, or for `limit`.
fn await_change(file: &File, limit: Duration) -> io::Result<()> {
    let mut fd = libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLPRI,
        revents: 0,
    };
    let limit = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one pollfd is given, it outlives the call, and its file is open.
    let result = unsafe { libc::poll(&raw mut fd, 1, limit) };
    let error = io::Error::last_os_error();
    if result < 0 && error.kind() != io::ErrorKind::Interrupted {
        return Err(error);
    }
    Ok(())
}

/// Removes a tree of empty cgroups, leaves first.
fn remove_tree(path: &Path) -> Result<()> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot list {}", path.display()))?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    // In version 1 a process leaves its groups a moment after version 2 says that it is gone.
    let deadline = Instant::now() + GONE;
    loop {
        match fs::remove_dir(path) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => {
                return result
                    .with_context(|| format!("cannot remove the cgroup {}", path.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_pure_machines_are_told_apart() {
        let hybrid = "30 29 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      31 29 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      32 29 0:27 /x /run/y rw - cgroup2 cgroup2 rw";
        let mounts = Mounts::parse(hybrid).unwrap();
        assert_eq!(mounts.v2, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mounts.v1, [Path::new("/sys/fs/cgroup/cpu")]);
        let pure = Mounts::parse("31 29 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw").unwrap();
        assert!(pure.v1.is_empty());
        assert_eq!(Mounts::parse("1 0 8:1 / / rw - ext4 /dev/vda rw"), None);
    }
}
