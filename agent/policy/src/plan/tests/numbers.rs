//! Which numbers content gets, and what counts against the sizes of maps.

use weir_abi::policy::{ClassId, Decision, DecisionKey, GroupId, IdKind, RuleId};

use super::*;
use crate::hash::id_key;
use crate::plan::ids::Ids;

const LAST: u32 = (1 << ClassId::OWN_BITS) - 1;

fn put_class(actual: &mut Actual, hash: u8, id: u32) {
    let key = id_key(IdKind::Class, key(hash));
    actual.apply(&Write::PutId { key, id });
}

#[test]
fn new_numbers_follow_the_greatest_and_old_content_keeps_its_own() {
    let mut actual = Actual::default();
    put_class(&mut actual, 1, 16);
    put_class(&mut actual, 2, 20);
    let mut ids = Ids::new(&actual);
    assert_eq!(ids.known(IdKind::Class, key(2)), Some(20));
    assert_eq!(ids.known(IdKind::Group, key(2)), None);
    assert_eq!(ids.number(IdKind::Class, key(1)).unwrap(), 16);
    assert_eq!(ids.number(IdKind::Class, key(3)).unwrap(), 21);
    assert_eq!(ids.number(IdKind::Class, key(4)).unwrap(), 22);
    assert_eq!(ids.number(IdKind::Class, key(3)).unwrap(), 21);
    assert_eq!(
        ids.number(IdKind::Group, key(3)).unwrap(),
        GroupId::FIRST_DYNAMIC.0
    );
    assert_eq!(
        ids.number(IdKind::Rule, key(3)).unwrap(),
        RuleId::FIRST_DYNAMIC.0
    );
    assert_eq!(ids.writes.len(), 4);
}

#[test]
fn numbers_begin_again_after_the_last_one_and_pass_over_those_in_use() {
    let mut actual = Actual::default();
    put_class(&mut actual, 1, 16);
    put_class(&mut actual, 2, 18);
    put_class(&mut actual, 3, LAST - 1);
    let mut ids = Ids::new(&actual);
    let next: Vec<_> = (10..13)
        .map(|hash| ids.number(IdKind::Class, key(hash)).unwrap())
        .collect();
    assert_eq!(next, [LAST, 17, 19]);
    // Where the last one itself is taken, they begin again at once.
    let mut actual = Actual::default();
    put_class(&mut actual, 1, LAST);
    put_class(&mut actual, 2, 30);
    let mut ids = Ids::new(&actual);
    assert_eq!(ids.number(IdKind::Class, key(10)).unwrap(), 16);
}

#[test]
fn a_number_that_a_row_or_name_still_has_is_not_given_away() {
    let mut actual = Actual::default();
    let key_of_row = DecisionKey {
        group: GroupId(33),
        class: ClassId(44),
    };
    actual.apply(&Write::PutDecision {
        key: key_of_row,
        decision: Decision::default(),
    });
    actual.apply(&Write::PutRule {
        id: RuleId(77),
        text: String::new(),
    });
    let mut ids = Ids::new(&actual);
    assert_eq!(ids.number(IdKind::Group, key(1)).unwrap(), 34);
    assert_eq!(ids.number(IdKind::Class, key(1)).unwrap(), 45);
    assert_eq!(ids.number(IdKind::Rule, key(1)).unwrap(), 78);
}

#[test]
fn entries_that_are_written_over_need_no_room_in_full_maps() {
    let rows = [deny(), ports(), allow()];
    let before = desired(&rows, &[(1, 1), (2, 2)], &[(prefix(0, 8), 1)]);
    let mut actual = Actual::default();
    perform(&mut actual, &before);
    let size = |i: usize| actual.sizes()[i].1 as u32;
    let full = Limits {
        intervals: 3,
        peers: size(0),
        cidrs: size(1),
        decisions: size(2),
        rules: size(3),
        ids: size(4),
    };
    // Peers and prefixes get other classes.
    let after = desired(&rows, &[(1, 2), (2, 1)], &[(prefix(0, 8), 2)]);
    assert!(
        !plan_within(&actual, &after, &full, Established::Apply)
            .unwrap()
            .is_empty()
    );
    // A row and a name have to be put right.
    let mut damaged = actual.clone();
    let row = DecisionKey {
        group: GroupId::FIRST_DYNAMIC,
        class: actual.class(v4(2)),
    };
    let id = verdict(&actual, v4(2)).rule();
    damaged.apply(&Write::PutDecision {
        key: row,
        decision: Decision { at: 99, len: 0 },
    });
    damaged.apply(&Write::PutRule {
        id,
        text: "x".to_owned(),
    });
    assert!(
        !plan_within(&damaged, &before, &full, Established::Apply)
            .unwrap()
            .is_empty()
    );
}
