//! What a lab could leave on the machine: namespaces, links, mounts, cgroups.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where pins, namespaces and cgroups of Weir can be.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const NAMESPACES: &str = "/run/netns";
const PINS: &str = "/sys/fs/bpf";

/// A list of everything that is on the machine.
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// What is there now.
    pub fn now() -> Self {
        let mut found = BTreeSet::new();
        names(&mut found, "network namespace", NAMESPACES);
        names(&mut found, "link", "/sys/class/net");
        names(&mut found, "pinned object", PINS);
        for dir in CGROUPS {
            names(&mut found, "cgroup", dir);
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for line in mounts.lines() {
            let mut fields = line.split(' ');
            if let (Some(what), Some(place)) = (fields.next(), fields.next()) {
                found.insert(format!("mount {place} ({what})"));
            }
        }
        Self(found)
    }

    /// What has come since and is Weir's (other programs may make links of their own meanwhile).
    pub fn new_since(&self) -> Vec<String> {
        let Self(now) = Self::now();
        now.difference(&self.0)
            .filter(|name| name.contains("weir"))
            .cloned()
            .collect()
    }
}

fn names(found: &mut BTreeSet<String>, what: &str, dir: &str) {
    let Ok(entries) = fs::read_dir(Path::new(dir)) else {
        return;
    };
    for entry in entries.flatten() {
        found.insert(format!(
            "{what} {dir}/{}",
            entry.file_name().to_string_lossy()
        ));
    }
}
