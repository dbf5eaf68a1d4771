//! `docs/cni.md` says which tests show which line of its table: it must not say what is not so.

use std::{fs, path::Path};

/// All Rust source of the plugin and of its tests.
fn source(dir: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &source(&path);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            all += &fs::read_to_string(&path).unwrap();
        }
    }
    all
}

#[test]
fn every_line_of_the_conformance_table_names_a_test_that_exists_or_gives_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let source = source(&root.join("tests/cni")) + &source(&root.join("cni-plugin/src"));
    let docs = fs::read_to_string(root.join("docs/cni.md")).unwrap();
    let (_, table) = docs.split_once("| id | level | what | tests |").unwrap();
    let mut lines = 0;
    for line in table
        .lines()
        .filter(|line| !line.contains("---") && line.starts_with("| "))
    {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [id, level, what, tests] = cells[..] else {
            panic!("{line}")
        };
        lines += 1;
        assert!(!what.is_empty() && !tests.is_empty(), "{line}");
        let names = tests.strip_prefix('`').is_some();
        assert!(names || level != "M", "{id} is a must and has no test");
        for name in tests.split(", ").filter(|_| names) {
            let name = name.trim_matches('`');
            assert!(
                source.contains(&format!("fn {name}()")),
                "{id}: there is no test {name}"
            );
            assert!(
                name.contains(&id.to_lowercase()),
                "{id}: {name} does not say so"
            );
        }
    }
    assert_eq!(lines, 82, "lines of the table");
}
