//! What a lab may leave behind, and the proof that it does not: a picture of the machine before
//! and after, and a census of one lab's own objects that must all be gone.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use weir_net::bpf;

use crate::cgroup::{self, Owner};
use crate::lab::Lab;

/// Things of this machine that a lab could leave: interfaces, named network namespaces, mounts,
/// this process' labs' cgroups, Weir's folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Takes the picture, as seen by the calling process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn take() -> Result<Self> {
        let mut items = BTreeSet::new();
        for name in names_in(Path::new("/sys/class/net")) {
            items.insert(format!("interface {name}"));
        }
        for name in names_in(Path::new("/run/netns")) {
            items.insert(format!("network namespace {name}"));
        }
        for line in fs::read_to_string("/proc/self/mounts")?.lines() {
            let target = line.split(' ').nth(1).unwrap_or_default();
            items.insert(format!("mount on {target}"));
        }
        let this = Owner::this()?;
        for (path, _) in cgroup::lab_folders()?
            .iter()
            .filter(|(_, owner)| *owner == this)
        {
            items.insert(format!("cgroup {}", path.display()));
        }
        for folder in ["/run", "/var/lib", "/tmp", "/sys/fs/bpf"] {
            for name in names_in(Path::new(folder))
                .iter()
                // Other programs' files in /tmp come and go while a lab runs.
                .filter(|name| match folder {
                    "/tmp" => name.starts_with(cgroup::PREFIX),
                    _ => name.contains("weir"),
                })
            {
                items.insert(format!("file {folder}/{name}"));
            }
        }
        Ok(Self(items))
    }

    /// What is here now and was not in `before`, sorted.
    #[must_use]
    pub fn new_since(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Everything one lab has in the kernel: processes, namespaces, BPF objects, cgroup.
#[derive(Clone, Debug, Default)]
pub struct Census {
    processes: Vec<Owner>,
    namespaces: BTreeSet<String>,
    bpf: BTreeSet<(BpfKind, u32)>,
    cgroup: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum BpfKind {
    Program,
    Map,
    Link,
}

impl Census {
    /// Counts a running lab.
    #[must_use]
    pub fn of(lab: &Lab) -> Self {
        let mut census = Self::of_cgroup(lab.cgroup());
        for node in &lab.nodes {
            census.add_pins(&node.path("/sys/fs/bpf"));
        }
        census
    }

    /// Counts the processes of a cgroup and below, and their namespaces.
    #[must_use]
    pub fn of_cgroup(cgroup: &Path) -> Self {
        let mut census = Self {
            cgroup: cgroup.to_owned(),
            ..Self::default()
        };
        census.add_cgroup(cgroup);
        for kind in ["net", "mnt"] {
            // Those that this process shares with the lab will of course stay.
            if let Some(own) = namespace("self", kind) {
                census.namespaces.remove(&own);
            }
        }
        census
    }

    fn add_cgroup(&mut self, cgroup: &Path) {
        let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| line.parse::<u32>().ok()) {
            self.processes.extend(Owner::of_process(pid));
            for kind in ["net", "mnt"] {
                self.namespaces.extend(namespace(&pid.to_string(), kind));
            }
        }
        for name in names_in(cgroup) {
            let below = cgroup.join(name);
            if below.is_dir() {
                self.add_cgroup(&below);
            }
        }
    }

    fn add_pins(&mut self, folder: &Path) {
        for name in names_in(folder) {
            let path = folder.join(name);
            if path.is_dir() {
                self.add_pins(&path);
                continue;
            }
            let Ok(fd) = bpf::get_pinned(&path) else {
                continue;
            };
            // The kernel refuses to describe a link as a map, and so on.
            if let Ok(info) = bpf::link_info(fd.as_fd()) {
                self.bpf.insert((BpfKind::Link, info.id));
            } else if let Ok(info) = bpf::prog_info(fd.as_fd()) {
                self.bpf.insert((BpfKind::Program, info.id));
            } else if let Ok(info) = bpf::map_info(fd.as_fd()) {
                self.bpf.insert((BpfKind::Map, info.id));
            }
        }
    }

    /// How many objects were counted: processes, namespaces, BPF objects.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        [self.processes.len(), self.namespaces.len(), self.bpf.len()]
    }

    /// What of it is still there.
    #[must_use]
    pub fn remaining(&self) -> Vec<String> {
        let mut left = Vec::new();
        for process in self.processes.iter().filter(|process| process.is_alive()) {
            left.push(format!("process {}", process.pid));
        }
        let living = living_namespaces();
        left.extend(
            self.namespaces
                .intersection(&living)
                .map(|name| format!("namespace {name}")),
        );
        for &(kind, id) in self.bpf.iter().filter(|&&(kind, id)| exists(kind, id)) {
            left.push(format!("BPF {kind:?} {id}"));
        }
        if self.cgroup.exists() {
            left.push(format!("cgroup {}", self.cgroup.display()));
        }
        left
    }

    /// Waits until all of it is gone (the kernel tears namespaces and BPF objects down in the
    /// background); returns what stayed.
    #[must_use]
    pub fn await_gone(&self, limit: Duration) -> Vec<String> {
        let deadline = Instant::now() + limit;
        loop {
            let left = self.remaining();
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// `net:[4026532281]` and the like.
fn namespace(pid: &str, kind: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    link.into_os_string().into_string().ok()
}

fn living_namespaces() -> BTreeSet<String> {
    names_in(Path::new("/proc"))
        .iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .flat_map(|pid| ["net", "mnt"].map(|kind| namespace(pid, kind)))
        .flatten()
        .collect()
}

/// Whether the kernel has a BPF object of this number: the next one after `id - 1` is it.
fn exists(kind: BpfKind, id: u32) -> bool {
    /// The members of `union bpf_attr` that the GET_NEXT_ID commands use (linux/bpf.h).
    #[repr(C)]
    struct NextId {
        start: u32,
        next: u32,
        flags: u32,
    }
    let command = match kind {
        BpfKind::Program => 11,
        BpfKind::Map => 12,
        BpfKind::Link => 31,
    };
    let mut attr = NextId {
        start: id - 1,
        next: 0,
        flags: 0,
    };
    // SAFETY: the pointer is to a live object of the size given.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<NextId>()) };
    result == 0 && attr.next == id
}
