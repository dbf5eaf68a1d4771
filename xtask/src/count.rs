//! Passed, failed, skipped.

use std::fmt;
use std::ops::AddAssign;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Ran and held.
    pub passed: usize,
    /// Ran and did not hold, or died.
    pub failed: usize,
    /// Did not run, for a reason that the repository lists.
    pub skipped: usize,
}

impl Count {
    /// One check, by whether it held.
    pub fn one(held: bool) -> Self {
        if held {
            Self {
                passed: 1,
                ..Self::default()
            }
        } else {
            Self {
                failed: 1,
                ..Self::default()
            }
        }
    }

    /// What libtest's summary line says; `None` for any other line. An ignored test is a failure:
    /// nothing skips but by `tests/skips.txt`.
    pub fn of_libtest(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let mut count = Self::default();
        for part in rest.split("; ") {
            let Some((number, what)) = part.split_once(' ') else {
                continue;
            };
            match (number.parse::<usize>(), what) {
                (Ok(n), "passed") => count.passed = n,
                (Ok(n), "failed" | "ignored") => count.failed += n,
                _ => {}
            }
        }
        Some(count)
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn libtest_summary_is_read() {
        let line = "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; \
                    2 filtered out; finished in 0.01s";
        assert_eq!(
            Count::of_libtest(line),
            Some(Count {
                passed: 3,
                failed: 1,
                skipped: 0
            })
        );
        assert_eq!(Count::of_libtest("test a ... ok"), None);
    }

    #[test]
    fn an_ignored_test_counts_as_failed() {
        let line = "test result: ok. 3 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; \
                    finished in 0.00s";
        assert_eq!(
            Count::of_libtest(line),
            Some(Count {
                passed: 3,
                failed: 2,
                skipped: 0
            })
        );
    }
}
