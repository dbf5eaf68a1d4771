//! Flows that keep their verdicts: no epoch rises, but none that ought to is forgotten.

use super::*;

fn keep(actual: &Actual, desired: &Desired) -> Plan {
    plan_within(actual, desired, &Limits::default(), Established::Keep).unwrap()
}

/// Performs the plan of an agent that keeps, which is then done.
fn perform_keep(actual: &mut Actual, desired: &Desired) -> Plan {
    let plan = keep(actual, desired);
    for write in plan.writes() {
        actual.apply(write);
    }
    assert!(keep(actual, desired).is_empty());
    plan
}

fn epochs(plan: &Plan) -> Vec<&Write> {
    plan.writes()
        .filter(|w| matches!(w, Write::SetEpoch { .. }))
        .collect()
}

/// A kernel with one isolated endpoint, at epoch 1, and nothing pending.
fn settled() -> Actual {
    let mut actual = Actual::default();
    perform(&mut actual, &desired(&[deny(), allow()], &[(1, 1)], &[]));
    assert_eq!(actual.slot(0).epoch, 1);
    actual
}

#[test]
fn keep_marks_the_endpoint_before_its_verdicts_change_and_raises_nothing() {
    let mark = Write::SetEpoch {
        slot: 0,
        epoch: 1 | EPOCH_PENDING,
    };
    let without_peer = desired(&[deny()], &[], &[]);
    let mut open = without_peer.clone();
    open.slots.insert(0, [Subject::Open; 2]);
    for next in [without_peer, open] {
        let mut actual = settled();
        let plan = perform_keep(&mut actual, &next);
        assert_eq!(epochs(&plan), [&mark]);
        assert!(plan.extend.contains(&mark));
        assert_eq!(actual.slot(0).epoch, 1 | EPOCH_PENDING);
        // What is new is judged by the new policy at once.
        let is_open = next.slots[&0] == [Subject::Open; 2];
        assert_eq!(verdict(&actual, v4(1)).allowed(), is_open);
    }
}

#[test]
fn keep_leaves_a_mark_that_is_there_and_has_nothing_to_do_because_of_it() {
    let mut actual = settled();
    let without_peer = desired(&[deny()], &[], &[]);
    perform_keep(&mut actual, &without_peer);
    // Another change, and none at all.
    let again = perform_keep(&mut actual, &desired(&[deny(), allow()], &[(1, 1)], &[]));
    assert!(!again.is_empty() && epochs(&again).is_empty());
    assert_eq!(actual.slot(0).epoch, 1 | EPOCH_PENDING);
}

#[test]
fn keep_puts_no_mark_where_no_verdict_changes() {
    let mut actual = settled();
    let plan = perform_keep(
        &mut actual,
        &desired(&[deny(), allow(), deny()], &[(1, 1), (3, 2)], &[]),
    );
    assert!(!plan.is_empty() && epochs(&plan).is_empty());
    assert_eq!(actual.slot(0).epoch, 1);
}

#[test]
fn apply_after_keep_raises_the_epochs_that_were_left() {
    let mut actual = settled();
    let without_peer = desired(&[deny()], &[], &[]);
    perform_keep(&mut actual, &without_peer);
    let plan = perform(&mut actual, &without_peer);
    assert_eq!(
        plan.writes().collect::<Vec<_>>(),
        [&Write::SetEpoch { slot: 0, epoch: 2 }]
    );
}

#[test]
fn keep_raises_no_epoch_that_an_apply_left_pending() {
    let mut actual = settled();
    let epoch = 1 | EPOCH_PENDING;
    actual.apply(&Write::SetEpoch { slot: 0, epoch });
    let same = desired(&[deny(), allow()], &[(1, 1)], &[]);
    assert!(keep(&actual, &same).is_empty());
}

#[test]
fn what_keep_leaves_behind_is_swept_although_marks_are_left() {
    let mut actual = settled();
    let without_peer = desired(&[deny()], &[], &[]);
    perform_keep(&mut actual, &without_peer);
    let sweep = |actual: &Actual, established| {
        sweep_within(actual, &without_peer, &Limits::default(), established)
    };
    // An agent that applies has epochs to raise first.
    assert_eq!(sweep(&actual, Established::Apply), []);
    let swept = sweep(&actual, Established::Keep);
    assert!(
        swept
            .iter()
            .any(|w| matches!(w, Write::DeleteDecision { .. }))
    );
}
