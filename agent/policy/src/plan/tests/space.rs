//! What is freed, used again, and too much.

use weir_abi::policy::{ClassId, GroupId, IdKind, Interval};

use super::*;
use crate::hash::id_key;

#[test]
fn what_nothing_refers_to_is_swept_but_only_when_the_plan_is_done() {
    let mut actual = Actual::default();
    let big = desired(&[deny(), ports()], &[(1, 1)], &[]);
    let small = desired(&[deny()], &[], &[]);
    perform(&mut actual, &big);
    assert_eq!(sweep(&actual, &big), []);
    assert_eq!(sweep(&actual, &small), []);
    perform(&mut actual, &small);
    let class = id_key(IdKind::Class, key(101));
    let rule = id_key(IdKind::Rule, key(2));
    let foreign = id_key(IdKind::Set, key(9));
    actual.apply(&Write::PutId {
        key: foreign,
        id: 1,
    });
    let swept = sweep(&actual, &small);
    let row = weir_abi::policy::DecisionKey {
        group: GroupId::FIRST_DYNAMIC,
        class: ClassId(actual.ids[&class]),
    };
    let id = weir_abi::policy::RuleId(actual.ids[&rule]);
    assert_eq!(
        swept,
        [
            Write::DeleteDecision { key: row },
            Write::DeleteRule { id },
            Write::DeleteId { key: class },
            Write::DeleteId { key: rule },
        ]
    );
    for write in &swept {
        actual.apply(write);
    }
    assert_eq!(sweep(&actual, &small), []);
    assert!(plan(&actual, &small).unwrap().is_empty());
    assert_eq!(actual.ids.get(&foreign), Some(&1));
}

#[test]
fn freed_places_and_numbers_are_used_again_only_when_settled() {
    let mut actual = Actual::default();
    let limits = Limits {
        intervals: 4,
        ..Limits::default()
    };
    perform(&mut actual, &desired(&[deny(), ports()], &[(1, 1)], &[]));
    let small = desired(&[deny()], &[], &[]);
    perform(&mut actual, &small);
    for write in sweep(&actual, &small) {
        actual.apply(&write);
    }
    let other = desired(
        &[deny(), table(&[(0, true, 3), (7, false, 1)])],
        &[(1, 1)],
        &[],
    );
    let error = plan_within(&actual, &other, &limits, Established::Apply).unwrap_err();
    assert_eq!((error.map, error.size, error.needed), ("INTERVALS", 4, 5));
    let new_class = |plan: &Plan| {
        plan.writes().find_map(|w| match w {
            Write::PutPeer { class, .. } => Some(class.0),
            _ => None,
        })
    };
    let resting = actual.resting_ids.clone();
    assert!(!resting.is_empty());
    let class = new_class(&plan(&actual, &other).unwrap()).unwrap();
    assert!(!resting.contains(&(IdKind::Class as u32, class)));
    actual.settle();
    let plan = plan_within(&actual, &other, &limits, Established::Apply).unwrap();
    let at: Vec<_> = plan
        .writes()
        .filter_map(|w| match w {
            Write::PutInterval {
                at,
                interval: Interval { start, .. },
            } => Some((*at, *start)),
            _ => None,
        })
        .collect();
    assert_eq!(at, [(0, 0), (1, 7)]);
}

#[test]
fn intervals_go_into_the_first_gap_that_holds_them() {
    let mut actual = Actual::default();
    let two = |rule| table(&[(0, true, rule), (5, false, 1)]);
    perform(
        &mut actual,
        &desired(
            &[deny(), two(3), ports(), two(4)],
            &[(1, 1), (2, 2), (3, 3)],
            &[],
        ),
    );
    let small = desired(&[deny(), ports()], &[(2, 1)], &[]);
    // Where the classes got other keys, rows are new; only the middle table stays.
    perform(&mut actual, &small);
    for write in sweep(&actual, &small) {
        actual.apply(&write);
    }
    actual.settle();
    let only: Vec<_> = std::iter::once(2..5).collect();
    assert_eq!(actual.interval_ranges(), only);
    let next = desired(
        &[deny(), ports(), two(5), two(6)],
        &[(2, 1), (4, 2), (5, 3)],
        &[],
    );
    perform(&mut actual, &next);
    assert_eq!(actual.interval_ranges(), [0..2, 2..5, 5..7]);
}

#[test]
fn what_does_not_fit_is_refused_before_any_write_and_named() {
    let full = desired(&[deny(), ports()], &[(1, 1), (2, 1)], &[(prefix(0, 8), 1)]);
    let actual = Actual::default();
    let fits = Limits {
        intervals: 3,
        peers: 2,
        cidrs: 1,
        decisions: 2,
        rules: 2,
        ids: 4,
    };
    let plan = plan_within(&actual, &full, &fits, Established::Apply).unwrap();
    for (map, needed) in plan.needs(&actual) {
        assert_eq!(needed, fits.of(map) as usize, "{map}");
    }
    for (name, limits) in [
        (
            "INTERVALS",
            Limits {
                intervals: 2,
                ..fits
            },
        ),
        ("PEERS", Limits { peers: 1, ..fits }),
        ("CIDRS", Limits { cidrs: 0, ..fits }),
        (
            "DECISIONS",
            Limits {
                decisions: 1,
                ..fits
            },
        ),
        ("RULES", Limits { rules: 1, ..fits }),
        ("IDS", Limits { ids: 3, ..fits }),
    ] {
        let error = plan_within(&actual, &full, &limits, Established::Apply).unwrap_err();
        assert_eq!(error.map, name);
        assert_eq!(error.needed, error.size as usize + 1, "{name}");
    }
    // What is there already is not counted twice.
    let mut actual = actual;
    perform(&mut actual, &full);
    plan_within(&actual, &full, &fits, Established::Apply).unwrap();
    let more = desired(&[deny(), ports()], &[(1, 1), (3, 1)], &[(prefix(0, 8), 1)]);
    let error = plan_within(&actual, &more, &fits, Established::Apply).unwrap_err();
    assert_eq!(
        (error.map, error.needed),
        ("PEERS", 3),
        "the old entry goes last"
    );
}

#[test]
fn what_a_storm_of_changes_has_left_goes_when_it_is_in_the_way_of_the_next() {
    for map in ["DECISIONS", "RULES", "IDS", "INTERVALS"] {
        let mut limits = Limits::default();
        match map {
            "DECISIONS" => limits.decisions = 12,
            "RULES" => limits.rules = 12,
            "IDS" => limits.ids = 24,
            _ => limits.intervals = 12,
        }
        // No two versions have a group, a rule or a table in common.
        let version = |n: u8| {
            let rows = [
                table(&[(0, false, n), (9, true, n)]),
                table(&[(0, true, n)]),
            ];
            desired_group(n, &rows, &[(1, 1)], &[])
        };
        let mut actual = Actual::default();
        let stuck = (1..100).find(|n| {
            match plan_within(&actual, &version(*n), &limits, Established::Apply) {
                Ok(plan) => {
                    plan.writes().for_each(|write| actual.apply(write));
                    false
                }
                Err(error) => {
                    assert_eq!(error.map, map);
                    true
                }
            }
        });
        let next = version(stuck.unwrap());
        let now = verdict(&actual, v4(1));
        // After a while what is in the way is deleted, after another its places are free.
        for _ in 0..2 {
            actual.settle();
            for write in sweep_within(&actual, &next, &limits, Established::Apply) {
                actual.apply(&write);
            }
        }
        assert_eq!(verdict(&actual, v4(1)), now, "{map}");
        let plan = plan_within(&actual, &next, &limits, Established::Apply);
        assert!(plan.is_ok(), "{map}: {plan:?}");
    }
}
