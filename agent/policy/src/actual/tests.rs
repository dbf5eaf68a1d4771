use super::*;

fn interval(start: u32, allow: bool, rule: u32) -> Interval {
    let rule = RuleId(rule);
    let verdict = if allow {
        RuleVerdict::allow(rule)
    } else {
        RuleVerdict::deny(rule)
    };
    Interval { start, verdict }
}

fn row(group: u32, class: u32, at: u32, len: u32) -> Write {
    let (group, class) = (GroupId(group), ClassId(class));
    let key = DecisionKey { group, class };
    let decision = Decision { at, len };
    Write::PutDecision { key, decision }
}

const PEER: Addr = Addr::from_v4([10, 0, 0, 1]);

fn sample() -> Actual {
    let mut actual = Actual::default();
    let groups = PolicySlot::pack(GroupId(16), GroupId::OPEN);
    for write in [
        Write::SetGroups { slot: 3, groups },
        Write::SetEpoch { slot: 3, epoch: 7 },
        Write::PutPeer {
            addr: PEER,
            class: ClassId(17),
        },
        Write::PutCidr {
            key: LpmKey::prefix(Addr::from_v4([10, 0, 0, 0]), 8),
            class: ClassId(18),
        },
        row(16, 17, 4, 3),
        row(16, 0, RuleVerdict::deny(RuleId(70)).0, 0),
        Write::PutInterval {
            at: 4,
            interval: interval(0, false, 70),
        },
        Write::PutInterval {
            at: 5,
            interval: interval(Interval::key(Proto::TCP, 80), true, 71),
        },
        Write::PutInterval {
            at: 6,
            interval: interval(Interval::key(Proto::TCP, 82), false, 70),
        },
        Write::PutRule {
            id: RuleId(71),
            text: "{}".to_owned(),
        },
    ] {
        actual.apply(&write);
    }
    actual
}

use weir_abi::policy::LpmKey;

#[test]
fn a_verdict_is_found_as_the_program_finds_it() {
    let actual = sample();
    let at = |peer, proto, port| actual.verdict(3, Direction::Ingress, peer, proto, port);
    for (port, allowed) in [(79, false), (80, true), (81, true), (82, false)] {
        let found = at(PEER, Proto::TCP, port);
        assert_eq!(found.verdict.allowed(), allowed, "{port}");
        assert_eq!((found.group, found.class), (GroupId(16), ClassId(17)));
    }
    assert_eq!(
        at(PEER, Proto::ICMP, 0).verdict,
        RuleVerdict::deny(RuleId(70))
    );
    assert_eq!(
        at(PEER, Proto(255), u16::MAX).verdict,
        RuleVerdict::deny(RuleId(70))
    );
    // Outside: class 0, an inline row. In the prefix: no row of its own.
    let outside = at(Addr::from_v4([11, 0, 0, 1]), Proto::TCP, 80);
    assert_eq!(
        (outside.class, outside.verdict.rule()),
        (ClassId::WORLD, RuleId(70))
    );
    let in_prefix = at(Addr::from_v4([10, 0, 0, 2]), Proto::TCP, 80);
    assert_eq!(
        (in_prefix.class, in_prefix.verdict),
        (ClassId(18), outside.verdict)
    );
    let egress = actual.verdict(3, Direction::Egress, PEER, Proto::TCP, 80);
    assert_eq!(egress.verdict, RuleVerdict::NOT_SELECTED);
    let unknown_slot = actual.verdict(4, Direction::Egress, PEER, Proto::TCP, 80);
    assert_eq!(unknown_slot.verdict, RuleVerdict::default());
    assert_eq!(actual.slot(3).epoch, 7);
    assert_eq!(actual.rule(RuleId(71)), Some("{}"));
}

#[test]
fn a_row_that_is_missing_is_that_of_the_base_then_that_of_the_world_then_a_denial() {
    let base = ClassId(3 << ClassId::OWN_BITS);
    let class = ClassId::on_base(base, 20);
    let mut actual = sample();
    actual.apply(&Write::PutPeer { addr: PEER, class });
    let verdict = |actual: &Actual| {
        let found = actual.verdict(3, Direction::Ingress, PEER, Proto::TCP, 80);
        found.verdict
    };
    let inline = |rule: u32| RuleVerdict::allow(RuleId(rule));
    assert_eq!(verdict(&actual), RuleVerdict::deny(RuleId(70)));
    actual.apply(&row(16, base.0, inline(80).0, 0));
    assert_eq!(verdict(&actual), inline(80));
    actual.apply(&row(16, class.0, inline(81).0, 0));
    assert_eq!(verdict(&actual), inline(81));
    for (class, left) in [(class, inline(80)), (base, RuleVerdict::deny(RuleId(70)))] {
        let key = DecisionKey {
            group: GroupId(16),
            class,
        };
        actual.apply(&Write::DeleteDecision { key });
        assert_eq!(verdict(&actual), left);
    }
    let key = DecisionKey {
        group: GroupId(16),
        class: ClassId::WORLD,
    };
    actual.apply(&Write::DeleteDecision { key });
    assert_eq!(verdict(&actual), RuleVerdict::default());
}

#[test]
fn a_row_that_points_past_what_was_read_denies() {
    let mut actual = sample();
    actual.apply(&row(16, 17, 1000, 2));
    let found = actual.verdict(3, Direction::Ingress, PEER, Proto::TCP, 80);
    assert_eq!(found.verdict, RuleVerdict::default());
}

#[test]
fn deletions_take_away_what_was_put() {
    let mut actual = sample();
    let key = DecisionKey {
        group: GroupId(16),
        class: ClassId(17),
    };
    actual.apply(&Write::DeletePeer { addr: PEER });
    assert_eq!(actual.class(PEER), ClassId(18));
    let prefix = LpmKey::prefix(Addr::from_v4([10, 0, 0, 0]), 8);
    actual.apply(&Write::DeleteCidr { key: prefix });
    assert_eq!(actual.class(PEER), ClassId::WORLD);
    actual.apply(&Write::DeleteDecision { key });
    actual.apply(&Write::DeleteRule { id: RuleId(71) });
    assert_eq!(actual.rule(RuleId(71)), None);
    let sizes = actual.sizes().map(|(_, size)| size);
    assert_eq!(sizes, [0, 0, 1, 0, 0]);
}

#[test]
fn the_ranges_to_read_are_those_of_the_rows_each_once() {
    let mut actual = sample();
    actual.apply(&row(16, 18, 4, 3));
    actual.apply(&row(16, 19, 1, 2));
    assert_eq!(actual.interval_ranges(), [1..3, 4..7]);
}

#[test]
fn what_a_row_or_id_leaves_rests_until_settled() {
    let mut actual = sample();
    let key = IdKey {
        kind: IdKind::Class as u32,
        hash: [1; 16],
    };
    actual.apply(&Write::PutId { key, id: 17 });
    actual.apply(&Write::DeleteId { key });
    // The same row again leaves nothing.
    actual.apply(&row(16, 17, 4, 3));
    assert_eq!(actual.resting_regions, []);
    actual.apply(&row(16, 17, 20, 2));
    actual.apply(&row(16, 0, 30, 2));
    assert_eq!(actual.resting_regions, [(4, 3)]);
    let rests = |actual: &Actual, kind: IdKind| actual.resting_ids.contains(&(kind as u32, 17));
    assert!(rests(&actual, IdKind::Class) && !rests(&actual, IdKind::Rule));
    actual.settle();
    assert_eq!(actual.resting_regions, []);
    assert!(!rests(&actual, IdKind::Class));
}

#[test]
fn groups_in_use_are_those_that_have_rows_neither_open_nor_closed() {
    let mut actual = sample();
    let groups = PolicySlot::pack(GroupId::CLOSED, GroupId(17));
    actual.apply(&Write::SetGroups { slot: 4, groups });
    let used = |group: u32| actual.usage.groups.has(GroupId(group));
    let groups: Vec<_> = (0..20).filter(|group| used(*group)).collect();
    assert_eq!(groups, [16, 17]);
    actual.apply(&Write::SetGroups { slot: 4, groups: 0 });
    assert!(!actual.usage.groups.has(GroupId(17)));
}

#[test]
fn a_number_that_only_ids_knows_is_taken_in_its_own_kind() {
    let mut actual = Actual::default();
    for (kind, id) in [(IdKind::Class, 40), (IdKind::Rule, 70)] {
        let key = IdKey {
            kind: kind as u32,
            hash: [1; 16],
        };
        actual.apply(&Write::PutId { key, id });
    }
    for (kind, id) in [(IdKind::Class, 40), (IdKind::Rule, 70), (IdKind::Group, 40)] {
        assert_eq!(actual.is_taken(kind, id), kind != IdKind::Group, "{kind:?}");
        assert!(!actual.is_taken(kind, id + 1), "{kind:?}");
    }
}
