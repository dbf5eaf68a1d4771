//! Which writes a change makes, and what is told of it.

use std::net::IpAddr;
use std::time::Duration;

use super::*;

const GRACE: Duration = Duration::from_secs(5);

#[test]
fn a_restarted_agent_finds_the_same_numbers() {
    let slices = [slice("a", "a", &[("10.1.0.1", 'r'), ("10.1.0.2", 'r')])];
    let services = [service("a", &["10.96.0.1"])];
    let actual = programmed(&index(&services, &slices));
    let again = plan(
        &restarted(&actual),
        index(&services, &slices).desired(),
        None,
    );
    assert_eq!(again.writes().count(), 0);
    assert_eq!(again.garbage, []);
}

#[test]
fn a_backend_more_is_one_backend_one_set_and_one_write_that_moves_the_frontend() {
    let mut index = index(
        &[service("a", &["10.96.0.1"])],
        &[slice("a", "a", &[("10.1.0.1", 'r')])],
    );
    let actual = programmed(&index);
    index.apply_slice(&slice("a", "a", &[("10.1.0.1", 'r'), ("10.1.0.2", 'r')]));
    let plan = plan(&actual, index.desired(), None);
    let [ServiceWrite::PutBackend(..), ServiceWrite::PutSet(_, slots)] = &plan.build[..] else {
        panic!("{:?}", plan.build);
    };
    assert_eq!(slots.len(), 2);
    assert!(
        matches!(plan.flip[..], [ServiceWrite::PutService(..)]),
        "{:?}",
        plan.flip
    );
    assert_eq!(plan.retire, []);
    assert_eq!(plan.garbage.len(), 1);
}

#[test]
fn a_number_and_a_range_of_slots_are_given_again_only_after_the_grace_period() {
    let mut index = index(
        &[service("a", &["10.96.0.1"])],
        &[slice("a", "a", &[("10.1.0.1", 'r')])],
    );
    let mut actual = programmed(&index);
    let numbers = |actual: &ServiceActual| {
        let first = actual.services.values().find(|s| s.count > 0);
        let id = actual.backends().next().map(|(id, _)| id.0);
        (id.unwrap_or_default(), first.map_or(0, |s| s.set.0))
    };
    assert_eq!(numbers(&actual), (1, 1));
    let mut collector = Collector::default();
    let mut change_to = |actual: &mut ServiceActual, address: &str, now| {
        index.apply_slice(&slice("a", "a", &[(address, 'r')]));
        let change = plan(actual, index.desired(), None);
        change.writes().for_each(|write| actual.apply(write));
        collector.forget(&change);
        collector.note(now, &change);
        assert_eq!(collector.due(now + GRACE / 2, GRACE, actual), []);
        let writes = collector.due(now + GRACE, GRACE, actual);
        writes.iter().for_each(|write| actual.apply(write));
        assert!(!writes.is_empty());
    };
    change_to(&mut actual, "10.1.0.2", Duration::ZERO);
    assert_eq!(numbers(&actual), (2, 2));
    change_to(&mut actual, "10.1.0.3", 2 * GRACE);
    assert_eq!(numbers(&actual), (1, 1));
    assert_eq!((actual.backends().count(), used_slots(&actual)), (1, 1));
}

#[test]
fn what_a_killed_agent_left_is_collected_and_not_used_before() {
    let mut index = index(
        &[service("a", &["10.96.0.1"])],
        &[slice("a", "a", &[("10.1.0.1", 'r')])],
    );
    let mut actual = programmed(&index);
    index.apply_slice(&slice("a", "a", &[("10.1.0.1", 'r'), ("10.1.0.2", 'r')]));
    let change = plan(&actual, index.desired(), None);
    change.build.iter().for_each(|write| actual.apply(write));
    // Killed: the new set stands in slots 2 and 3, and nothing refers to it.
    let mut actual = restarted(&actual);
    let change = plan(&actual, index.desired(), None);
    let Some(ServiceWrite::PutSet(set, _)) = change.build.first() else {
        panic!("{:?}", change.build);
    };
    assert_eq!(set.0, 4);
    let mut collector = Collector::default();
    collector.forget(&change);
    collector.note(Duration::ZERO, &change);
    change.writes().for_each(|write| actual.apply(write));
    let writes = collector.due(GRACE, GRACE, &actual);
    writes.iter().for_each(|write| actual.apply(write));
    assert_eq!(used_slots(&actual), 2);
    assert_eq!(plan(&actual, index.desired(), None).garbage, []);
}

#[test]
fn a_plan_tells_how_large_the_maps_must_be_for_it_sets_that_are_replaced_included() {
    let mut index = index(
        &[service("a", &["10.96.0.1"])],
        &[slice("a", "a", &[("10.1.0.1", 'r')])],
    );
    let needs = |services, slots, backends| Needs {
        services,
        slots,
        backends,
    };
    let first = plan(&ServiceActual::default(), index.desired(), None);
    assert_eq!(first.needs, needs(2, 2, 2));
    let actual = programmed(&index);
    index.settled();
    index.apply_service(&service("b", &["10.96.0.2"]));
    index.apply_slice(&slice("a", "a", &[("10.1.0.1", 'r'), ("10.1.0.2", 'r')]));
    let second = plan(&actual, index.desired(), index.changed());
    assert_eq!(second.needs, needs(4, 4, 3));
}

#[test]
fn a_backend_that_takes_nothing_any_more_is_told_of_once_when_it_is_not_ready_and_when_it_is_gone()
{
    let mut index = index(
        &[service("a", &["10.96.0.1"])],
        &[slice("a", "a", &[("10.1.0.1", 'r'), ("10.1.0.2", 'r')])],
    );
    let mut actual = programmed(&index);
    index.settled();
    let two: IpAddr = "10.1.0.2".parse().unwrap();
    for (state, deleted) in [
        ('t', None),
        ('n', Some(false)),
        ('-', Some(true)),
        ('-', None),
    ] {
        let mut endpoints = vec![("10.1.0.1", 'r'), ("10.1.0.2", state)];
        endpoints.retain(|(_, state)| *state != '-');
        index.apply_slice(&slice("a", "a", &endpoints));
        let change = plan(&actual, index.desired(), index.changed());
        let told: Vec<bool> = change.retired.iter().map(|r| r.deleted).collect();
        assert_eq!(told, Vec::from_iter(deleted), "{state}");
        assert!(change.retired.iter().all(|r| r.backend.addr.to_ip() == two));
        change.writes().for_each(|write| actual.apply(write));
        index.settled();
    }
}

#[test]
fn a_backend_drains_while_it_serves_is_removed_when_it_is_gone_and_comes_back_active() {
    use weir_abi::service::BackendState;

    let mut index = index(
        &[service("a", &["10.96.0.1"])],
        &[slice("a", "a", &[("10.1.0.1", 'r'), ("10.1.0.2", 'r')])],
    );
    let mut actual = programmed(&index);
    for (state, wanted) in [
        ('t', BackendState::Draining),
        ('n', BackendState::Removed),
        ('t', BackendState::Draining),
        ('r', BackendState::Active),
    ] {
        index.apply_slice(&slice("a", "a", &[("10.1.0.1", 'r'), ("10.1.0.2", state)]));
        plan(&actual.clone(), index.desired(), None)
            .writes()
            .for_each(|write| actual.apply(write));
        let two: IpAddr = "10.1.0.2".parse().unwrap();
        let backend = actual
            .backends()
            .find(|(_, b)| b.addr.to_ip() == two)
            .unwrap();
        assert_eq!(backend.1.state, wanted as u32, "{state}");
    }
}
