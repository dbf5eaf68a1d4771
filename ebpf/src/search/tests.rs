use super::*;
use weir_abi::policy::RuleId;

/// A table of intervals with these starts, whose verdicts are numbered.
fn table(starts: &[u32]) -> Vec<Interval> {
    let numbered = |(i, &start): (usize, &u32)| Interval {
        start,
        verdict: RuleVerdict::allow(RuleId(100 + i as u32)),
    };
    starts.iter().enumerate().map(numbered).collect()
}

/// Which interval of the table, placed at `at`, the search finds.
fn find(starts: &[u32], at: u32, key: u32) -> Option<u32> {
    let table = table(starts);
    let decision = Decision {
        at,
        len: table.len() as u32,
    };
    let get = |index: u32| {
        let inside = index.checked_sub(at).expect("no interval before the table");
        table.get(inside as usize).copied()
    };
    verdict(&decision, key, get).map(|v| v.rule().0 - 100)
}

#[test]
fn the_last_interval_that_starts_at_or_before_the_key_decides() {
    for len in [1u32, 2, 3, 4, 5, 8, 17, 100] {
        let starts: Vec<u32> = (0..len).map(|i| i * 10).collect();
        for key in 0..len * 10 + 5 {
            let right = (key / 10).min(len - 1);
            assert_eq!(find(&starts, 7, key), Some(right), "key {key} of {len}");
        }
        assert_eq!(find(&starts, 0, u32::MAX), Some(len - 1));
    }
}

#[test]
fn the_largest_table_is_searched_to_its_ends() {
    let starts: Vec<u32> = (0..Decision::MAX_LEN).map(|i| i * 3).collect();
    let last = Decision::MAX_LEN - 1;
    for i in [0, 1, 2, last / 2, last - 1, last] {
        assert_eq!(find(&starts, 0, i * 3), Some(i));
        assert_eq!(find(&starts, 0, i * 3 + 2), Some(i));
    }
}

#[test]
fn a_table_that_cannot_be_read_has_no_verdict() {
    let decision = Decision { at: 5, len: 4 };
    assert_eq!(verdict(&decision, 1, |_| None), None);
}
