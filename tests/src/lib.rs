//! What all scenarios share: how to skip, and what maps hold.

pub mod maps;

use std::fs::OpenOptions;
use std::io::Write;
use std::thread;

/// The kernel features for which a test may be skipped: `NAME  what is not tested without it`.
const SKIPS: &str = include_str!("../skips.txt");

/// Counts the running test as skipped, because this kernel has no `feature`; the test returns
/// right after the call. `why` is what the kernel answered.
///
/// `cargo xtask test` reads the file that `WEIR_SKIPS` names, one `feature test why` a line.
///
/// # Panics
/// `feature` is not listed in `tests/skips.txt`, or the skip cannot be recorded: a test never
/// passes by not running.
#[track_caller]
pub fn skip(feature: &str, why: &str) {
    assert!(
        listed(SKIPS).any(|name| name == feature),
        "`{feature}` is not in tests/skips.txt: only a missing kernel feature named there may skip"
    );
    let test = thread::current().name().unwrap_or("?").to_owned();
    let record = format!("{feature}\t{test}\t{}\n", why.replace(['\n', '\t'], " "));
    eprint!("SKIPPED {record}");
    if let Some(path) = std::env::var_os("WEIR_SKIPS") {
        let done = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(record.as_bytes()));
        if let Err(err) = done {
            panic!("cannot record a skip in {}: {err}", path.to_string_lossy());
        }
    }
}

/// The names in a list of skips.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::{SKIPS, listed, skip};

    #[test]
    fn comments_are_not_features() {
        let names: Vec<&str> = listed("# a comment\n\nsctp  sockets\n").collect();
        assert_eq!(names, ["sctp"]);
        assert!(listed(SKIPS).next().is_some());
    }

    #[test]
    #[should_panic(expected = "is not in tests/skips.txt")]
    fn a_skip_for_an_unlisted_reason_fails() {
        skip("no-root", "not root");
    }
}
