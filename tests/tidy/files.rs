//! What holds for every source file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::root;

/// A file that is longer wants to be two.
const LINES: usize = 500;

/// Files of the repository whose name ends in `.EXTENSION`, as paths from its root.
pub fn with_extension(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&root(), Path::new(""), extension, &mut found);
    found.sort();
    assert!(!found.is_empty(), "no .{extension} file found");
    found
}

fn walk(root: &Path, dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root.join(dir)).expect("a readable folder") {
        let entry = entry.expect("a readable entry");
        let path = dir.join(entry.file_name());
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with('.');
        if entry.file_type().expect("a type").is_dir() {
            // What cargo and mutation tests write is not ours.
            let made = name == "target" || name.to_string_lossy().starts_with("mutants.out");
            if !hidden && !made {
                walk(root, &path, extension, found);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

/// Each Rust file and its text.
pub fn sources() -> Vec<(PathBuf, String)> {
    with_extension("rs")
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(root().join(&path)).expect("UTF-8 text");
            (path, text)
        })
        .collect()
}

#[test]
fn no_source_file_is_longer_than_one_can_take_in() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES)
        .map(|(path, lines)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert!(
        long.is_empty(),
        "over {LINES} lines:\n  {}",
        long.join("\n  ")
    );
}

#[test]
fn no_test_is_switched_off() {
    let mark = concat!("#[ign", "ore");
    for (path, text) in sources() {
        assert!(
            !text.contains(mark),
            "{}: a skip goes through tests/skips.txt",
            path.display()
        );
    }
}

#[test]
fn nothing_is_left_for_later_in_the_source() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    for (path, text) in sources() {
        for mark in marks {
            let line = text.lines().position(|l| l.contains(mark));
            assert!(
                line.is_none(),
                "{}:{}: {mark}",
                path.display(),
                line.unwrap_or(0) + 1
            );
        }
    }
}

#[test]
fn no_source_assumes_one_processor() {
    for (path, text) in sources() {
        // QEMU needs another machine for each.
        if path.starts_with("xtask/src/vm") || path.starts_with("xtask/src/setup") {
            continue;
        }
        let name = concat!("x86", "_64");
        for (number, line) in text.lines().enumerate() {
            // A condition says what holds for the others.
            let conditional = line.contains("target_arch = ");
            assert!(
                conditional || !line.contains(name),
                "{}:{} names {name}",
                path.display(),
                number + 1
            );
        }
    }
}

#[test]
fn every_crate_takes_the_workspaces_lints() {
    for path in with_extension("toml") {
        if path.ends_with("Cargo.toml") && path != Path::new("Cargo.toml") {
            let text = fs::read_to_string(root().join(&path)).expect("UTF-8 text");
            let taken = text.contains("[lints]\nworkspace = true");
            assert!(
                taken,
                "{} has no `[lints] workspace = true`",
                path.display()
            );
        }
    }
}
