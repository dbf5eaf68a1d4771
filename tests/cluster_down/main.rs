//! `weir-cluster down` leaves nothing, whatever `up` had come to. The cluster's programs are stand-ins
//! that never get ready, so that no Go is needed and `up` is in the middle of it for as long as wanted.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Says containerd's version, and otherwise waits to be ended.
const STAND_IN: &str = "#!/bin/sh\n\
    [ \"$1\" = --version ] && { echo containerd stand-in v2.0.0 0; exit; }\n\
    exec sleep 1000\n";
/// What `up` starts before the API server answers.
const PROGRAMS: [&str; 4] = ["etcd", "kube-apiserver", "containerd", "ctr"];
/// What `up` says once all that has been started.
const STARTED: &str = "kube-apiserver is ready";

/// A cluster that never gets ready, in a folder of its own.
struct Cluster {
    name: String,
    folder: tempfile::TempDir,
}

impl Cluster {
    fn new(case: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let cluster = Self {
            name: format!("{case}-{}", std::process::id()),
            folder,
        };
        for dir in ["bin", "images"] {
            fs::create_dir(cluster.path(dir)).expect("a folder");
        }
        fs::write(cluster.path("images/none.tar"), "").expect("a file");
        for program in PROGRAMS {
            let file = cluster.path("bin").join(program);
            fs::write(&file, STAND_IN).expect("a file");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a program");
        }
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of its state: the name is appended.
    fn state(&self) -> PathBuf {
        self.path(&format!("state-{}", self.name))
    }

    fn command(&self, verb: &str) -> Command {
        let program = weir_lab::bin("weir-cluster").expect("weir-cluster");
        let mut command = Command::new(program);
        command
            .args([verb, "--name", &self.name])
            .env("WEIR_CLUSTER_BIN", self.path("bin"))
            .env("WEIR_CLUSTER_IMAGES", self.path("images"))
            .env("WEIR_CLUSTER_DIR", self.path("state"))
            .stdin(Stdio::null());
        command
    }

    /// An `up` that waits for the API server.
    fn half_up(&self) -> Child {
        let mut up = self
            .command("up")
            .args(["--cni", "none"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("up");
        let mut said = String::new();
        let mut lines = BufReader::new(up.stderr.take().expect("a pipe"));
        while !said.contains(STARTED) {
            let more = lines.read_line(&mut said).expect("a line");
            assert!(more > 0, "up ended by itself: {said}");
        }
        // It goes on writing; a pipe that is closed would end it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        up
    }

    fn down(&self) {
        let down = self.command("down").output().expect("down");
        let said = String::from_utf8_lossy(&down.stderr);
        assert!(down.status.success(), "down failed: {said}");
    }

    /// What is there of it, but for files.
    fn traces(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let folder = self.folder.path().display().to_string();
        found.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&folder))
                .map(|line| format!("mount {line}")),
        );
        for hierarchy in mounts.lines().filter(|line| line.contains(" - cgroup")) {
            let at = hierarchy.split(' ').nth(4).expect("a mount point");
            let group = Path::new(at).join(format!("weir-cluster-{}", self.name));
            if group.exists() {
                found.insert(format!("cgroup {}", group.display()));
            }
        }
        found.extend(self.processes());
        found
    }

    /// Processes that are in its cgroups, or see its files mounted: those of its mount namespaces.
    fn processes(&self) -> Vec<String> {
        let folder = self.folder.path().display().to_string();
        let group = format!("weir-cluster-{}", self.name);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            // A process may end meanwhile; one that waits to be reaped has no mounts.
            let read = |file| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            let command = read("comm");
            if read("mountinfo").contains(&folder) {
                found.push(format!("mount namespace of {name} ({})", command.trim()));
            }
            if read("cgroup").contains(&group) && !read("mountinfo").is_empty() {
                found.push(format!("process {name} ({})", command.trim()));
            }
        }
        found
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Also after a failed assertion.
        let _ = self.command("down").output();
    }
}

fn assert_all_gone(cluster: &Cluster) {
    assert_eq!(cluster.traces(), BTreeSet::new());
    let left: Vec<String> = fs::read_dir(cluster.state())
        .expect("the logs' folder")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "logs" && name != "lock")
        .collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn down_leaves_nothing_of_a_cluster_whose_up_was_killed() {
    let cluster = Cluster::new("killed");
    let mut up = cluster.half_up();
    up.kill().expect("kill");
    up.wait().expect("wait");
    let kinds: BTreeSet<String> = cluster
        .traces()
        .iter()
        .filter_map(|trace| Some(trace.split(' ').next()?.to_owned()))
        .collect();
    // What is looked for is found while it is there.
    assert_eq!(
        kinds,
        ["cgroup", "mount", "process"].map(String::from).into()
    );
    cluster.down();
    assert_all_gone(&cluster);
    // And again, of what is not there.
    cluster.down();
}

#[test]
fn an_up_that_is_interrupted_takes_down_what_it_made() {
    let cluster = Cluster::new("ctrl-c");
    let mut up = cluster.half_up();
    let pid = Pid::from_raw(i32::try_from(up.id()).expect("a pid"));
    kill(pid, Signal::SIGINT).expect("a signal");
    let status = up.wait().expect("wait");
    assert_eq!(status.code(), Some(130));
    assert_all_gone(&cluster);
}
