//! The docs point at what is there.

use std::fs;

use crate::files::with_extension;
use crate::{quoted, read, root};

/// Targets of a page's links that are files: no addresses, and without the part after `#`.
fn links(page: &str) -> Vec<&str> {
    page.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    for path in with_extension("md") {
        let file = root().join(&path);
        let page = fs::read_to_string(&file).expect("UTF-8 text");
        for target in links(&page) {
            let there = file.parent().expect("a folder").join(target).exists();
            assert!(
                there,
                "{} links to {target}, which is not there",
                path.display()
            );
        }
    }
}

#[test]
fn links_are_found() {
    let page = "See [a](docs/a.md#part), [b](https://b.example/) and [c](#here).";
    assert_eq!(links(page), ["docs/a.md"]);
}

#[test]
fn every_chore_is_explained() {
    let source = read("xtask/src/main.rs");
    let (_, list) = source
        .split_once("enum Chore {")
        .expect("the list of chores");
    let (list, _) = list.split_once("\n}").expect("its end");
    let page = read("docs/development.md");
    let mut chores = 0;
    for line in list.lines() {
        // Variants stand at the first level of indentation.
        let Some(name) = line
            .strip_prefix("    ")
            .filter(|l| l.starts_with(char::is_uppercase))
        else {
            continue;
        };
        let name: String = name
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect();
        let command = kebab(&name);
        let found = quoted(&page).any(|q| {
            q.strip_prefix("cargo xtask ")
                .is_some_and(|c| c.split(' ').next() == Some(&command))
        });
        assert!(
            found,
            "docs/development.md says nothing of `cargo xtask {command}`"
        );
        chores += 1;
    }
    assert!(chores > 3, "the list of chores was not understood");
}

fn kebab(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
