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
