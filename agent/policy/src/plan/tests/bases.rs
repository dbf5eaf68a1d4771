//! Rows of bases that are not what they ought to be while packets are judged by them.

use super::*;

/// Group `group` with a row for the world, for a base of key 50, and for a class on it that address 1
/// has.
fn on_base(group: u8, class: u8, rows: [Arc<Table>; 3]) -> Desired {
    let [world, of_base, of_class] = rows;
    let mut desired = desired_group(group, &[world], &[], &[]);
    let base = desired.classes.insert(DesiredClass {
        key: key(50),
        base: None,
        groups: BTreeSet::new(),
    });
    let class = desired.classes.insert(DesiredClass {
        key: key(class),
        base: Some(base),
        groups: BTreeSet::new(),
    });
    desired.set_row(0, base, of_base);
    desired.set_row(0, class, of_class);
    desired.peers.insert(v4(1), class);
    desired
}

#[test]
fn a_base_that_came_with_a_change_that_was_cut_off_is_put_right_without_a_third_verdict() {
    let mut cut_off = Actual::default();
    perform(&mut cut_off, &desired_group(1, &[deny()], &[], &[]));
    // The address stands on the base already, the endpoint is still in its old group.
    let next = on_base(2, 60, [deny(), allow(), ports()]);
    for write in plan(&cut_off, &next).unwrap().extend {
        cut_off.apply(&write);
    }
    let old = verdict(&cut_off, v4(1));
    // Its group comes to know the base, too: with the row that the class had, that of the base, and
    // one of its own.
    for own in [deny(), allow(), table(&[(0, true, 3)])] {
        for class in [60, 61] {
            let mut actual = cut_off.clone();
            let last = on_base(1, class, [deny(), allow(), Arc::clone(&own)]);
            let mut fresh = Actual::default();
            perform(&mut fresh, &last);
            let text = |actual: &Actual| {
                let found = verdict(actual, v4(1));
                (
                    found.allowed(),
                    actual.rule(found.rule()).map(str::to_owned),
                )
            };
            let new = text(&fresh);
            let plan = plan(&actual, &last).unwrap();
            for write in plan.writes() {
                actual.apply(write);
                let now = text(&actual);
                assert!(
                    verdict(&actual, v4(1)) == old || now == new,
                    "after {write:?}: {now:?}"
                );
            }
            assert_eq!(text(&actual), new);
            assert!(super::plan(&actual, &last).unwrap().is_empty());
        }
    }
}

#[test]
fn a_stand_in_has_no_rows_of_when_its_number_was_in_use_before() {
    let mut before = desired(&[deny(), allow()], &[(1, 1)], &[]);
    before.slots.insert(1, [Subject::Open; 2]);
    let mut actual = Actual::default();
    perform(&mut actual, &before);
    // The address gets a class without a row of its own, and another endpoint joins the group.
    let mut after = desired(&[deny(), allow()], &[], &[]);
    let class = after.classes.insert(DesiredClass {
        key: key(60),
        base: Some(WORLD),
        groups: BTreeSet::new(),
    });
    after.peers.insert(v4(1), class);
    after.slots.insert(1, [Subject::Group(0), Subject::Open]);
    let first = plan(&actual, &after).unwrap();
    let joined = first.flip.iter().find_map(|write| match write {
        Write::SetGroups { slot: 1, groups } => Some(PolicySlot::unpack(*groups).0),
        _ => None,
    });
    let key = weir_abi::policy::DecisionKey {
        group: joined.unwrap(),
        class: first.follow.iter().find_map(class_of).unwrap(),
    };
    assert_ne!(key.group, PolicySlot::unpack(actual.slot(0).groups).0);
    // Such a plan was cut off before, and the row was copied when others had left the stand-in.
    let ids = first
        .extend
        .iter()
        .filter(|w| matches!(w, Write::PutId { .. }));
    ids.for_each(|write| actual.apply(write));
    let decision = actual.row(GroupId::FIRST_DYNAMIC, actual.class(v4(1)));
    let decision = decision.unwrap();
    actual.apply(&Write::PutDecision { key, decision });
    let at = |actual: &Actual| {
        let proto = weir_abi::Proto(0);
        actual.verdict(1, Direction::Ingress, v4(1), proto, 15)
    };
    for write in plan(&actual, &after).unwrap().writes() {
        actual.apply(write);
        let found = at(&actual);
        assert!(
            found.verdict == RuleVerdict::NOT_SELECTED || !found.verdict.allowed(),
            "after {write:?}: {found:?}"
        );
    }
    assert!(!at(&actual).verdict.allowed());
}

fn class_of(write: &Write) -> Option<weir_abi::policy::ClassId> {
    match write {
        Write::PutPeer { class, .. } => Some(*class),
        _ => None,
    }
}
