mod bases;
mod concurrent;
mod keep;
mod numbers;
mod space;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use weir_abi::Addr;
use weir_abi::policy::{GroupId, LpmKey, PolicySlot, RuleVerdict};

use super::*;
use crate::desired::{DesiredClass, DesiredGroup, Subject, WORLD};
use crate::flatten::{Cell, Table};
use crate::hash::Key;
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
        rule: Some(Arc::new(RuleName {
            key: key(*rule),
            text: format!("\"rule {rule}\""),
        })),
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
    desired_group(1, rows, peers, cidrs)
}

/// The same, of a group with this key.
fn desired_group(
    group: u8,
    rows: &[Arc<Table>],
    peers: &[(u8, u32)],
    cidrs: &[(LpmKey, u32)],
) -> Desired {
    let mut desired = Desired::default();
    desired.groups.insert(DesiredGroup {
        key: key(group),
        rows: HashMap::new(),
    });
    for (i, row) in (0u8..).zip(rows) {
        if i > 0 {
            desired.classes.insert(DesiredClass {
                key: key(100 + i),
                base: Some(WORLD),
                groups: BTreeSet::new(),
            });
        }
        desired.set_row(0, i.into(), Arc::clone(row));
    }
    desired.peers = peers.iter().map(|(a, class)| (v4(*a), *class)).collect();
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
    perform(&mut actual, &Desired::default());
    assert_eq!(
        actual.slot(0),
        PolicySlot {
            groups: 0,
            epoch: 2
        }
    );
}
