//! The demo as a program: what it prints, how it ends, and that it leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use weir_lab::cgroup;
use weir_lab::leftovers::{Census, Snapshot};

fn demo() -> Command {
    let mut command = Command::new(weir_lab::bin("weir-lab").unwrap());
    command.arg("demo").stdin(Stdio::null());
    command
}

fn shop() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/shop")
}

/// The cgroups of labs that a process owns.
fn labs_of(pid: u32) -> Vec<PathBuf> {
    cgroup::lab_folders()
        .unwrap()
        .into_iter()
        .filter(|(_, owner)| owner.pid == pid)
        .map(|(path, _)| path)
        .collect()
}

/// What is new since `before`, but for the labs of other tests that run at the same time.
fn left_since(before: &Snapshot) -> Vec<String> {
    let mut left = Snapshot::take().unwrap().new_since(before);
    left.retain(|item| !item.contains(cgroup::PREFIX));
    left
}

#[test]
fn the_shop_is_as_expected_in_every_cell_and_the_demo_leaves_nothing() {
    let before = Snapshot::take().unwrap();
    let child = demo()
        .args(["--output", "json", "--manifests"])
        .arg(shop())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    for round in ["cells", "afterChange"] {
        let cells = &report[round];
        assert!(cells["total"].as_u64().unwrap() > 2000, "{cells}");
        assert_eq!(cells["disagree"], 0, "{cells}");
        assert_eq!(
            cells["agree"], cells["total"],
            "nothing in the shop is n/a: {cells}"
        );
        assert!(cells["allowed"].as_u64().unwrap() > 300, "{cells}");
        assert!(cells["denied"].as_u64().unwrap() > 300, "{cells}");
    }
    assert!(report["afterChange"]["changedCells"].as_u64().unwrap() > 0);
    assert_eq!(report["trace"]["agrees"], true, "{}", report["trace"]);
    assert_eq!(labs_of(pid), Vec::<PathBuf>::new());
    assert_eq!(left_since(&before), Vec::<String>::new());
}

#[test]
fn manifests_without_workloads_are_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let only = "apiVersion: v1\nkind: Namespace\nmetadata: {name: empty}\n";
    fs::write(folder.path().join("only.yaml"), only).unwrap();
    let output = demo()
        .arg("--manifests")
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("nothing to probe"), "{text}");
}

#[test]
fn manifests_that_do_not_parse_are_named_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.yaml"), "kind: Pod\n  broken: [\n").unwrap();
    let output = demo()
        .arg("--manifests")
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("bad.yaml:"), "{text}");
}

/// Waits until the demo has pods in their namespaces.
fn await_pods(child: &mut Child) -> PathBuf {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        for lab in labs_of(child.id()) {
            let procs = fs::read_to_string(lab.join("n1/pods/cgroup.procs")).unwrap_or_default();
            if procs.lines().count() >= 2 {
                return lab;
            }
        }
        assert!(
            child.try_wait().unwrap().is_none(),
            "the demo ended before it had pods"
        );
        assert!(Instant::now() < deadline, "the demo has no pods after 60 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn interrupted_by(signal: Signal) {
    let before = Snapshot::take().unwrap();
    let mut child = demo()
        .arg("--manifests")
        .arg(shop())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let census = Census::of_cgroup(&await_pods(&mut child));
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    let status = child.wait().unwrap();
    // Three of the lab itself, two agents, two pods, which may be on the way into their namespaces.
    let [processes, namespaces, _] = census.counts();
    assert!(processes >= 7 && namespaces >= 6, "{census:?}");
    assert!(!status.success());
    assert_eq!(
        census.await_gone(Duration::from_secs(10)),
        Vec::<String>::new(),
        "{signal}"
    );
    assert_eq!(left_since(&before), Vec::<String>::new(), "{signal}");
}

#[test]
fn ctrl_c_in_the_middle_leaves_nothing() {
    interrupted_by(Signal::SIGINT);
}

#[test]
fn sigterm_in_the_middle_leaves_nothing() {
    interrupted_by(Signal::SIGTERM);
}

#[test]
fn a_demo_killed_with_9_leaves_no_process_and_its_cgroup_is_swept_by_the_next() {
    let mut child = demo()
        .arg("--manifests")
        .arg(shop())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lab = await_pods(&mut child);
    let census = Census::of_cgroup(&lab);
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = census.remaining();
        let only_cgroup = left.iter().all(|item| item.starts_with("cgroup"));
        if only_cgroup {
            break;
        }
        assert!(Instant::now() < deadline, "{left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    // A pod that was being made when its lab died has died as well; then the sweep takes it all.
    while lab.exists() {
        cgroup::sweep().unwrap();
        assert!(Instant::now() < deadline, "{} stays", lab.display());
    }
}

#[test]
fn a_kept_lab_can_be_entered_and_taken_down() {
    let folder = tempfile::tempdir().unwrap();
    let pod = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n\
             spec: {{containers: [{{name: c, ports: [{{containerPort: 80}}]}}]}}\n---\n"
        )
    };
    fs::write(folder.path().join("two.yaml"), pod("one") + &pod("two")).unwrap();
    // Reading to the end also proves that the lab holds no pipe of its caller open.
    let output = demo()
        .arg("--keep")
        .arg("--manifests")
        .arg(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("enter default/one"), "{text}");
    let lab = |args: &[&str]| {
        Command::new(weir_lab::bin("weir-lab").unwrap())
            .args(args)
            .output()
            .unwrap()
    };
    let inside = lab(&["enter", "default/one", "cat", "/proc/net/dev"]);
    assert!(
        String::from_utf8_lossy(&inside.stdout).contains("eth0:"),
        "{inside:?}"
    );
    let status = lab(&["enter", "n2", "weir", "status", "-o", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["node"], "n2");
    let nobody = lab(&["enter", "default/nobody", "true"]);
    assert_eq!(nobody.status.code(), Some(2));
    let down = lab(&["down"]);
    assert_eq!(down.status.code(), Some(0), "{down:?}");
    let again = lab(&["enter", "default/one", "true"]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
}
