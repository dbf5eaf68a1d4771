use std::sync::Arc;

use weir_abi::Addr;
use weir_abi::policy::{ClassId, GroupId, IdKind, Interval, LpmKey, PolicySlot, RuleVerdict};

use super::*;
use crate::desired::Subject;
use crate::flatten::{Cell, Table};
use crate::hash::{Key, id_key};
use crate::rule::RuleName;
use crate::{Direction, EPOCH_PENDING};

fn key(n: u8) -> Key {
    [n; 16]
}

/// A table of cells (start, allow), each by a rule of its own number.
fn table(cells: &[(u32, bool, u8)]) -> Arc<Table> {
    let cell = |(start, allow, rule): &(u32, bool, u8)| Cell {
        start: *start,
        allow: *allow,
        rule: Arc::new(RuleName {
            key: key(*rule),
            text: format!("\"rule {rule}\""),
        }),
    };
    Arc::new(cells.iter().map(cell).collect())
}

fn v4(a: u8) -> Addr {
    Addr::from_v4([10, 0, 0, a])
}

fn prefix(a: u8, len: u8) -> LpmKey {
    LpmKey::prefix(Addr::from_v4([10, a, 0, 0]), len)
}

/// One group; the rows of its classes (class 0 is the world), and who has which class.
fn desired(rows: &[Arc<Table>], peers: &[(u8, u32)], cidrs: &[(LpmKey, u32)]) -> Desired {
    let mut desired = Desired {
        groups: vec![key(1)],
        classes: (0..rows.len()).map(|i| key(100 + i as u8)).collect(),
        rows: rows.to_vec(),
        peers: peers.iter().map(|(a, class)| (v4(*a), *class)).collect(),
        ..Desired::default()
    };
    for (prefix, class) in cidrs {
        desired.cidrs.insert(*prefix, *class);
    }
    desired.slots.insert(0, [Subject::Group(0), Subject::Open]);
    desired
}

fn perform(actual: &mut Actual, desired: &Desired) -> Plan {
    let plan = plan(actual, desired).unwrap();
    for write in plan.writes() {
        actual.apply(write);
    }
    assert!(super::plan(actual, desired).unwrap().is_empty());
    plan
}

fn deny() -> Arc<Table> {
    table(&[(0, false, 1)])
}

fn allow() -> Arc<Table> {
    table(&[(0, true, 2)])
}

fn ports() -> Arc<Table> {
    table(&[(0, false, 1), (10, true, 2), (20, false, 1)])
}

fn verdict(actual: &Actual, peer: Addr) -> RuleVerdict {
    actual
        .verdict(0, Direction::Ingress, peer, weir_abi::Proto(0), 15)
        .verdict
}

#[test]
fn from_nothing_everything_a_slot_refers_to_is_written_before_it() {
    let mut actual = Actual::default();
    let plan = perform(&mut actual, &desired(&[deny(), ports()], &[(1, 1)], &[]));
    let place = |want: fn(&Write) -> bool| plan.writes().position(want).unwrap();
    let last = |want: fn(&Write) -> bool| {
        plan.writes().count()
            - 1
            - plan
                .writes()
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .position(want)
                .unwrap()
    };
    assert!(
        last(|w| matches!(w, Write::PutId { .. })) < place(|w| matches!(w, Write::PutRule { .. }))
    );
    assert!(
        last(|w| matches!(w, Write::PutRule { .. }))
            < place(|w| matches!(w, Write::PutDecision { .. }))
    );
    assert!(
        last(|w| matches!(w, Write::PutInterval { .. }))
            < place(|w| matches!(w, Write::PutDecision { .. }))
    );
    assert!(
        last(|w| matches!(w, Write::PutDecision { .. }))
            < place(|w| matches!(w, Write::PutPeer { .. }))
    );
    assert!(
        last(|w| matches!(w, Write::PutPeer { .. }))
            < place(|w| matches!(w, Write::SetGroups { .. }))
    );
    assert_eq!(
        plan.flip,
        [Write::SetGroups {
            slot: 0,
            groups: PolicySlot::pack(GroupId::FIRST_DYNAMIC, GroupId::OPEN),
        }]
    );
    assert_eq!(plan.follow, [Write::SetEpoch { slot: 0, epoch: 1 }]);
    assert_eq!(plan.shrink, []);
    assert_eq!(plan.phases().map(<[Write]>::len)[1..], [1, 1, 0]);
    assert!(verdict(&actual, v4(1)).allowed() && !verdict(&actual, v4(2)).allowed());
}

#[test]
fn equal_tables_are_stored_once_and_single_verdicts_not_at_all() {
    let mut actual = Actual::default();
    let plan = perform(
        &mut actual,
        &desired(&[deny(), ports(), ports()], &[(1, 1), (2, 2)], &[]),
    );
    let intervals = plan
        .writes()
        .filter(|w| matches!(w, Write::PutInterval { .. }))
        .count();
    assert_eq!(intervals, 3);
    // Nor again when a restarted agent, with another copy of the content, adds a row.
    let more = desired(
        &[deny(), ports(), ports(), ports()],
        &[(1, 1), (2, 2), (3, 3)],
        &[],
    );
    let plan = perform(&mut actual, &more);
    assert!(
        plan.writes()
            .all(|w| !matches!(w, Write::PutInterval { .. } | Write::PutRule { .. }))
    );
}

#[test]
fn a_peers_change_without_a_flip_is_one_write_and_then_the_epoch() {
    let mut actual = Actual::default();
    perform(&mut actual, &desired(&[deny(), allow()], &[(1, 1)], &[]));
    let class = actual.class(v4(1));
    let plan = perform(
        &mut actual,
        &desired(&[deny(), allow()], &[(1, 1), (2, 1)], &[]),
    );
    assert_eq!(
        plan.extend,
        [Write::SetEpoch {
            slot: 0,
            epoch: 1 | EPOCH_PENDING
        }]
    );
    assert_eq!(plan.flip, []);
    assert_eq!(
        plan.follow,
        [
            Write::PutPeer { addr: v4(2), class },
            Write::SetEpoch { slot: 0, epoch: 2 },
        ]
    );
    // One that changes no verdict raises no epoch.
    let plan = perform(
        &mut actual,
        &desired(&[deny(), allow(), deny()], &[(1, 1), (2, 1), (3, 2)], &[]),
    );
    assert!(plan.writes().all(|w| !matches!(w, Write::SetEpoch { .. })));
    assert_eq!(plan.follow, []);
}

#[test]
fn longer_prefixes_are_changed_before_those_that_hold_them() {
    let mut actual = Actual::default();
    perform(&mut actual, &desired(&[deny()], &[], &[]));
    let other = table(&[(0, true, 3)]);
    let nested = [(prefix(0, 8), 1), (prefix(1, 16), 2)];
    let plan = perform(
        &mut actual,
        &desired(&[deny(), allow(), other], &[], &nested),
    );
    let order: Vec<_> = plan
        .follow
        .iter()
        .filter_map(|w| {
            if let Write::PutCidr { key, .. } = w {
                Some(*key)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(order, [prefix(1, 16), prefix(0, 8)]);
}

#[test]
fn a_wrong_row_in_use_is_put_right_and_the_epoch_raised() {
    let mut actual = Actual::default();
    let desired = desired(&[deny(), ports()], &[(1, 1)], &[]);
    perform(&mut actual, &desired);
    let (group, class) = (GroupId::FIRST_DYNAMIC, actual.class(v4(1)));
    let row = weir_abi::policy::DecisionKey { group, class };
    let good = actual.decisions[&row];
    for damage in [
        Write::DeleteDecision { key: row },
        Write::PutDecision {
            key: row,
            decision: weir_abi::policy::Decision { at: 99, len: 0 },
        },
    ] {
        actual.apply(&damage);
        let epoch = actual.slot(0).epoch;
        let plan = perform(&mut actual, &desired);
        assert_eq!(plan.flip, []);
        assert_eq!(actual.slot(0).epoch, epoch + 1);
        if let Write::DeleteDecision { .. } = damage {
            assert!(verdict(&actual, v4(1)).allowed());
        }
    }
    assert!(actual.decisions[&row].len == good.len && verdict(&actual, v4(1)).allowed());
}

#[test]
fn a_lost_rule_name_is_written_again() {
    let mut actual = Actual::default();
    let desired = desired(&[deny()], &[], &[]);
    perform(&mut actual, &desired);
    let id = verdict(&actual, v4(1)).rule();
    actual.apply(&Write::DeleteRule { id });
    let plan = perform(&mut actual, &desired);
    assert_eq!(
        plan.extend,
        [Write::PutRule {
            id,
            text: "\"rule 1\"".to_owned()
        }]
    );
}

#[test]
fn an_epoch_left_pending_is_raised_and_epochs_wrap() {
    let mut actual = Actual::default();
    let desired = desired(&[deny()], &[], &[]);
    perform(&mut actual, &desired);
    let epoch = u64::from(u32::MAX) | EPOCH_PENDING;
    actual.apply(&Write::SetEpoch { slot: 0, epoch });
    let plan = perform(&mut actual, &desired);
    assert_eq!(
        plan.writes().collect::<Vec<_>>(),
        [&Write::SetEpoch { slot: 0, epoch: 0 }]
    );
}

#[test]
fn a_slot_that_is_gone_is_closed() {
    let mut actual = Actual::default();
    perform(&mut actual, &desired(&[deny()], &[], &[]));
    perform(
        &mut actual,
        &Desired {
            classes: vec![key(100)],
            ..Desired::default()
        },
    );
    assert_eq!(
        actual.slot(0),
        PolicySlot {
            groups: 0,
            epoch: 2
        }
    );
}

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
    let error = plan_within(&actual, &other, &limits).unwrap_err();
    assert_eq!((error.map, error.size, error.needed), ("INTERVALS", 4, 5));
    let resting = actual.taken_ids(IdKind::Class).collect::<Vec<_>>();
    let new_class = |plan: &Plan| {
        plan.writes().find_map(|w| match w {
            Write::PutPeer { class, .. } => Some(class.0),
            _ => None,
        })
    };
    assert!(!resting.contains(&new_class(&plan(&actual, &other).unwrap()).unwrap()));
    actual.settle();
    let plan = plan_within(&actual, &other, &limits).unwrap();
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
    assert_eq!(actual.interval_ranges(), [2..5]);
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
    plan_within(&actual, &full, &fits).unwrap();
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
        let error = plan_within(&actual, &full, &limits).unwrap_err();
        assert_eq!(error.map, name);
        assert_eq!(error.needed, error.size as usize + 1, "{name}");
    }
    // What is there already is not counted twice.
    let mut actual = actual;
    perform(&mut actual, &full);
    plan_within(&actual, &full, &fits).unwrap();
    let more = desired(&[deny(), ports()], &[(1, 1), (3, 1)], &[(prefix(0, 8), 1)]);
    let error = plan_within(&actual, &more, &fits).unwrap_err();
    assert_eq!(
        (error.map, error.needed),
        ("PEERS", 3),
        "the old entry goes last"
    );
}
