//! What the CNI specification demands has a test that carries its line's id.
//!
//! `docs/cni.md` holds the checklist: rows that begin `| ID | M |`, S or R for what is only
//! advised, or what runtimes rely on.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::sources;
use crate::{cells, read};

/// The lines that the specification demands, so that none can fall out of the page.
const MUST: &str = "P1 P3 P4 P5 E1 E3 E5 E6 C1 C2 C3 C4 C5 A2 A3 A5 A6 A7 A8 A10 A11 A13 A14 A15 \
                    A17 A18 D1 D2 D3 D4 D6 D7 D8 K1 K2 K6 K7 K8 S1 S2 S4 S5 S7 G3 G6 V1 V2";
/// The others: a test, or a row in the page that says what is done instead.
const ADVISED: &str = "P2 P6 P7 P8 P9 P10 E2 E4 E7 E8 E9 C6 C7 C8 A1 A4 A9 A12 A16 A19 A20 A21 D5 \
                       D9 D10 D11 K3 K4 K5 S3 S6 G1 G2 G4 G5";

/// Ids that the name of a test begins with: `a6_a7_result_…` carries A6 and A7.
fn ids(name: &str) -> impl Iterator<Item = String> {
    name.split('_').map_while(|part| {
        let (letter, number) = part.split_at_checked(1)?;
        let is_id = letter.chars().all(|c| c.is_ascii_lowercase())
            && !number.is_empty()
            && number.chars().all(|c| c.is_ascii_digit());
        is_id.then(|| part.to_uppercase())
    })
}

/// Names of the test functions in a source text.
fn tests(source: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some(rest) = line.strip_prefix("fn ").or(line.strip_prefix("async fn ")) {
            if marked {
                found.extend(rest.split(['(', '<']).next());
            }
            marked = false;
        }
    }
    found
}

/// Ids that a test of the plugin carries.
fn tested() -> BTreeSet<String> {
    sources()
        .iter()
        .filter(|(path, _)| path.starts_with("tests/cni") || path.starts_with("cni-plugin"))
        .flat_map(|(_, text)| tests(text).into_iter().flat_map(ids).collect::<Vec<_>>())
        .collect()
}

/// Id and level of each row of the page.
fn rows(page: &str) -> BTreeMap<String, String> {
    page.lines()
        .filter_map(cells)
        .filter(|row| row.len() >= 3)
        .map(|row| (row[0].trim_matches('`').to_owned(), row[1].to_owned()))
        .collect()
}

#[test]
fn every_demand_of_the_cni_specification_has_a_test() {
    let tested = tested();
    let rows = rows(&read("docs/cni.md"));
    let mut missing: Vec<String> = MUST
        .split_whitespace()
        .filter(|id| !tested.contains(*id))
        .map(|id| {
            format!(
                "{id}: no test in tests/cni begins with {}_",
                id.to_lowercase()
            )
        })
        .collect();
    for id in MUST.split_whitespace() {
        if rows.get(id).is_none_or(|level| level != "M") {
            missing.push(format!("{id}: docs/cni.md has no row `| {id} | M |`"));
        }
    }
    assert!(
        missing.is_empty(),
        "{} open:\n  {}",
        missing.len(),
        missing.join("\n  ")
    );
}

#[test]
fn every_advised_line_has_a_test_or_a_word() {
    let tested = tested();
    let rows = rows(&read("docs/cni.md"));
    let open: Vec<&str> = ADVISED
        .split_whitespace()
        .filter(|id| !tested.contains(*id) && !rows.contains_key(*id))
        .collect();
    assert!(
        open.is_empty(),
        "neither a test nor a row in docs/cni.md: {}",
        open.join(" ")
    );
}

#[test]
fn ids_are_read_from_the_names_of_tests() {
    let all = |name: &str| ids(name).collect::<Vec<_>>();
    assert_eq!(all("a14_many_adds_at_once"), ["A14"]);
    assert_eq!(all("a6_a7_result_has_interfaces"), ["A6", "A7"]);
    assert!(all("an_add_works").is_empty());
    let source = "#[test]\nfn a1_x() {}\nfn a2_helper() {}\n#[test]\n#[cfg(x)]\nfn a3_y() {}\n";
    assert_eq!(tests(source), ["a1_x", "a3_y"]);
}
