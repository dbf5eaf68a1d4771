//! The rooms of `docs/architecture.md` and the dependencies that cargo sees.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::{cells, quoted, read, root};

/// Crates that decide and touch nothing.
const PURE: [&str; 5] = [
    "weir-abi",
    "weir-crd",
    "weir-policy",
    "weir-oracle",
    "weir-manifests",
];
/// What a crate that touches nothing has no use for: runtimes, clients, the kernel.
const IMPURE: [&str; 9] = [
    "aya",
    "axum",
    "hyper",
    "kube",
    "libc",
    "netlink",
    "nix",
    "rtnetlink",
    "tokio",
];

/// A row of the table.
struct Room {
    folder: String,
    may: Option<BTreeSet<String>>,
}

/// A member of the workspace.
struct Package {
    folder: String,
    /// Other members that it depends on, but for tests.
    members: BTreeSet<String>,
    /// Everything that it depends on, but for tests and behind features.
    always: BTreeSet<String>,
}

/// The table in the current form of the page; `all` lifts the limit.
fn rooms(page: &str) -> BTreeMap<String, Room> {
    let mut rooms = BTreeMap::new();
    for row in page.lines().filter_map(cells) {
        let [folder, name, _, may] = row[..] else {
            continue;
        };
        let (Some(folder), Some(name)) = (quoted(folder).next(), quoted(name).next()) else {
            continue;
        };
        let may = (may != "all").then(|| quoted(may).map(str::to_owned).collect());
        let folder = folder.trim_end_matches('/').to_owned();
        rooms.insert(name.to_owned(), Room { folder, may });
    }
    rooms
}

fn packages() -> BTreeMap<String, Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(
        out.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("cargo metadata is JSON");
    let workspace = metadata["workspace_root"].as_str().expect("a root");
    let listed = metadata["packages"].as_array().expect("a list");
    let names: BTreeSet<&str> = listed.iter().filter_map(|p| p["name"].as_str()).collect();
    listed
        .iter()
        .map(|package| {
            let name = package["name"].as_str().expect("a name").to_owned();
            let manifest = package["manifest_path"].as_str().expect("a path");
            let folder = manifest
                .strip_prefix(workspace)
                .and_then(|p| p.strip_suffix("Cargo.toml"))
                .expect("a member is inside the workspace")
                .trim_matches('/')
                .to_owned();
            let mut members = BTreeSet::new();
            let mut always = BTreeSet::new();
            for dependency in package["dependencies"].as_array().expect("a list") {
                if dependency["kind"] == "dev" {
                    continue;
                }
                let on = dependency["name"].as_str().expect("a name");
                if names.contains(on) {
                    members.insert(on.to_owned());
                }
                if dependency["optional"] == Value::Bool(false) {
                    always.insert(on.to_owned());
                }
            }
            (
                name,
                Package {
                    folder,
                    members,
                    always,
                },
            )
        })
        .collect()
}

#[test]
fn no_room_looks_into_a_room_that_the_architecture_does_not_name() {
    let rooms = rooms(&read("docs/architecture.md"));
    let mut wrong = Vec::new();
    for (name, package) in packages() {
        let Some(room) = rooms.get(&name) else {
            wrong.push(format!("{name} ({}) has no row", package.folder));
            continue;
        };
        if room.folder != package.folder {
            wrong.push(format!(
                "{name} is in {}, the row says {}",
                package.folder, room.folder
            ));
        }
        let Some(may) = &room.may else {
            continue;
        };
        for on in package.members.difference(may) {
            wrong.push(format!("{name} depends on {on}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "docs/architecture.md disagrees:\n  {}",
        wrong.join("\n  ")
    );
}

#[test]
fn the_architecture_names_no_room_that_is_gone() {
    let packages = packages();
    for (name, room) in rooms(&read("docs/architecture.md")) {
        assert!(
            packages.contains_key(&name),
            "{name} has a row but is no member"
        );
        for on in room.may.unwrap_or_default() {
            assert!(
                packages.contains_key(&on),
                "{name} may depend on {on}, which is no member"
            );
        }
    }
}

#[test]
fn what_decides_depends_on_nothing_that_acts() {
    let packages = packages();
    for name in PURE {
        let package = packages
            .get(name)
            .unwrap_or_else(|| panic!("no member {name}"));
        for on in &package.always {
            let impure = IMPURE
                .iter()
                .any(|i| on == i || on.starts_with(&format!("{i}-")));
            assert!(!impure, "{name} is to touch nothing, but depends on {on}");
        }
    }
}

#[test]
fn the_table_is_read_as_written() {
    let page = "| room | crate | is | may depend on |\n| --- | --- | --- | --- |\n\
                | `a/` | `weir-a` | text | – |\n| `b/` | `weir-b` | text | `weir-a` |\n\
                | `c/` | `weir-c` | text | all |\n";
    let rooms = rooms(page);
    assert_eq!(
        rooms.keys().collect::<Vec<_>>(),
        ["weir-a", "weir-b", "weir-c"]
    );
    assert_eq!(rooms["weir-a"].may, Some(BTreeSet::new()));
    assert_eq!(
        rooms["weir-b"].may,
        Some(BTreeSet::from(["weir-a".to_owned()]))
    );
    assert_eq!(rooms["weir-c"].may, None);
    assert_eq!(rooms["weir-b"].folder, "b");
}
