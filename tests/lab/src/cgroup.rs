//! Sub-cgroups of the cgroup v2 hierarchy: one folder per lab, named after the process that owns
//! it, so that a later start can tell a dead lab's folder from a living one's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

/// What the names of labs' cgroups begin with.
pub const PREFIX: &str = "weir-lab-";

/// Where the cgroup v2 hierarchy is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside
/// v1 hierarchies.
///
/// # Errors
/// When no cgroup v2 hierarchy is mounted.
pub fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    parse_mount_point(&mounts).ok_or_else(|| {
        anyhow!("no cgroup2 file system is mounted: mount one with `mount -t cgroup2 none DIR`")
    })
}

fn parse_mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, target, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(target))
    })
}

/// A process, told apart from a later one with the same number by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Start time of the process in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start: u64,
}

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn this() -> Result<Self> {
        let pid = std::process::id();
        Self::of_process(pid).ok_or_else(|| anyhow!("reading /proc/{pid}/stat"))
    }

    /// A running process.
    #[must_use]
    pub fn of_process(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            start: start_time(pid)?,
        })
    }

    /// The owner named by a cgroup folder `weir-lab-PID-START-N`.
    #[must_use]
    pub fn of_folder(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        let owner = Self {
            pid: parts.next()?.parse().ok()?,
            start: parts.next()?.parse().ok()?,
        };
        parts.next()?.parse::<u32>().ok()?;
        parts.next().is_none().then_some(owner)
    }

    /// Whether the process still runs.
    #[must_use]
    pub fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses and may hold anything.
    let rest = stat.rsplit_once(')')?.1;
    let mut fields = rest.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Folders of labs in the cgroup hierarchy, with their owners, sorted.
///
/// # Errors
/// When the hierarchy cannot be read.
pub fn lab_folders() -> Result<Vec<(PathBuf, Owner)>> {
    let root = mount_point()?;
    let mut found = Vec::new();
    for entry in fs::read_dir(&root).with_context(|| format!("listing {}", root.display()))? {
        let entry = entry?;
        if let Some(owner) = entry.file_name().to_str().and_then(Owner::of_folder) {
            found.push((entry.path(), owner));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Removes the cgroups of labs whose owner is dead. Returns how many it removed.
///
/// # Errors
/// When the hierarchy cannot be read.
pub fn sweep() -> Result<usize> {
    let mut swept = 0;
    for (path, owner) in lab_folders()? {
        if !owner.is_alive() {
            swept += usize::from(remove_tree(&path).is_ok());
        }
    }
    Ok(swept)
}

/// Creates a cgroup (and those above it).
///
/// # Errors
/// When the kernel refuses it.
pub fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("creating the cgroup {}", path.display()))
}

/// Removes a cgroup with everything below it. The processes in it must have been killed; one that
/// is still being torn down is waited for, up to two seconds.
///
/// # Errors
/// When a process stays in it.
pub fn remove_tree(path: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(path) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            // A killed process leaves its cgroup a moment after it was reaped; the kernel offers
            // no event that is certain to come for an empty cgroup.
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => {
                return Err(error).with_context(|| format!("removing cgroup {}", path.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_cgroup2_beside_v1_hierarchies() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        assert_eq!(
            parse_mount_point(mounts),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        assert_eq!(parse_mount_point("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn a_folder_names_its_owner_and_other_folders_name_none() {
        assert_eq!(
            Owner::of_folder("weir-lab-12-345-0"),
            Some(Owner {
                pid: 12,
                start: 345
            })
        );
        for other in [
            "weir-lab-12-345",
            "weir-lab-x-1-0",
            "weir-lab-1-1-0-0",
            "system.slice",
        ] {
            assert_eq!(Owner::of_folder(other), None, "{other}");
        }
    }

    #[test]
    fn this_process_is_alive_and_an_older_one_of_its_number_is_not() {
        let this = Owner::this().unwrap();
        assert!(this.is_alive());
        assert!(
            !Owner {
                start: this.start - 1,
                ..this
            }
            .is_alive()
        );
    }
}
