//! Wherever the writes stop, a frontend has its old or its new backends.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use weir_abi::{Addr, Proto};

use super::select::{Seen, seen};
use super::*;
use crate::state::{Change, Object};

const ADDRESSES: [&str; 3] = ["10.96.0.1", "10.96.0.2", "fd96::1"];
const PORTS: [u16; 3] = [80, 81, 82];
const GRACE: Duration = Duration::from_secs(5);

/// One Service of a random cluster.
#[derive(Clone, Debug)]
struct Random {
    /// Which of [`ADDRESSES`] it claims.
    addresses: [bool; 3],
    /// Whether it has port 81 as well as 80.
    second_port: bool,
    /// For each of four pods and each family: its state (`-` is absent), and which life it has.
    pods: [(char, u8); 4],
}

fn random_service() -> impl Strategy<Value = Random> {
    let pod = (prop::sample::select(vec!['-', 'r', 'r', 't', 'n']), 0..2u8);
    (
        any::<[bool; 3]>(),
        any::<bool>(),
        [pod.clone(), pod.clone(), pod.clone(), pod],
    )
        .prop_map(|(addresses, second_port, pods)| Random {
            addresses,
            second_port,
            pods,
        })
}

fn random_cluster() -> impl Strategy<Value = Vec<Option<Random>>> {
    prop::collection::vec(prop::option::weighted(0.8, random_service()), 2)
}

/// The objects of such a cluster.
fn objects(services: &[Option<Random>]) -> Vec<Object> {
    let mut objects = Vec::new();
    for (number, random) in services.iter().enumerate() {
        let Some(random) = random else { continue };
        let name = format!("s{number}");
        let chosen = ADDRESSES.iter().zip(random.addresses).filter(|(_, on)| *on);
        let addresses: Vec<_> = chosen.map(|(a, _)| *a).collect();
        let mut ports = vec![json!({"name": "web", "port": 80})];
        if random.second_port {
            ports.push(json!({"name": "more", "port": 81}));
        }
        let service = service_with(&name, json!({"clusterIPs": addresses, "ports": ports}));
        objects.push(Object::Service(Box::new(service)));
        for v6 in [false, true] {
            let mut endpoints = Vec::new();
            let pods = random.pods.iter().enumerate();
            for (pod, (state, life)) in pods.filter(|(_, (state, _))| *state != '-') {
                let address = if v6 {
                    format!("fd01::{pod}:1")
                } else {
                    format!("10.1.0.{pod}")
                };
                let mut endpoint = endpoint(&address, *state);
                endpoint["targetRef"]["uid"] = json!(format!("{address}-{life}"));
                endpoints.push(endpoint);
            }
            let ports = json!([{"name": "web", "port": 8080}, {"name": "more", "port": 8081}]);
            let slice = slice_with(&format!("{name}-{v6}"), &name, ports, json!(endpoints));
            objects.push(Object::EndpointSlice(Box::new(slice)));
        }
    }
    objects
}

/// The index of such a cluster.
fn cluster(services: &[Option<Random>]) -> ServiceIndex {
    let mut index = ServiceIndex::default();
    for object in objects(services) {
        index.apply(&Change::Apply(object));
    }
    index
}

type Picture = BTreeMap<(Addr, u16), Seen>;

/// What all frontends lead to.
fn picture(actual: &ServiceActual) -> Picture {
    let mut picture = Picture::new();
    for address in ADDRESSES {
        let addr: Addr = address.parse::<IpAddr>().unwrap().into();
        for port in PORTS {
            picture.insert((addr, port), seen(actual, addr, port, Proto::TCP));
        }
    }
    picture
}

/// Performs the writes up to `stop`, comparing after each.
fn perform(
    actual: &mut ServiceActual,
    writes: &[ServiceWrite],
    stop: usize,
) -> Result<(), TestCaseError> {
    let old = picture(actual);
    let mut end = actual.clone();
    writes.iter().for_each(|write| end.apply(write));
    let new = picture(&end);
    for write in &writes[..stop] {
        actual.apply(write);
        for (frontend, now) in &picture(actual) {
            prop_assert!(
                *now == old[frontend] || *now == new[frontend],
                "after {write:?}: {frontend:?} is {now:?}\nold {:?}\nnew {:?}",
                old[frontend],
                new[frontend]
            );
        }
    }
    Ok(())
}

/// The mirror that a restarted agent makes of the same maps.
fn restarted(actual: &ServiceActual) -> ServiceActual {
    let mut slots = actual.slots().to_vec();
    // The map ends elsewhere.
    slots.resize(slots.len() + 7, weir_abi::service::Slot::default());
    ServiceActual::new(actual.services.clone(), slots, actual.backends())
}

/// How many slots are in use.
fn used_slots(actual: &ServiceActual) -> usize {
    let used = |slot: &&weir_abi::service::Slot| **slot != weir_abi::service::Slot::default();
    actual.slots().iter().filter(used).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_prefix_of_the_writes_gives_each_frontend_its_old_or_its_new_backends(
        steps in prop::collection::vec(
            (random_cluster(), any::<prop::sample::Index>(), any::<bool>(), any::<bool>()),
            1..7,
        ),
    ) {
        let mut actual = ServiceActual::default();
        let mut collector = Collector::default();
        let mut now = Duration::ZERO;
        let mut desired = Desired::default();
        for (random, stop, killed, late) in steps {
            let index = cluster(&random);
            desired = index.desired().clone();
            let change = plan(&actual, &desired, None);
            collector.note(now, &change);
            let mut writes: Vec<_> = change.writes().cloned().collect();
            if late {
                now += GRACE;
                let mut after = actual.clone();
                writes.iter().for_each(|write| after.apply(write));
                writes.extend(collector.due(now, GRACE, &after));
            }
            let stop = if killed { stop.index(writes.len() + 1) } else { writes.len() };
            perform(&mut actual, &writes, stop)?;
            if killed {
                actual = restarted(&actual);
                collector = Collector::default();
            }
        }
        // The next start completes the change, and a second one has nothing to do.
        let writes: Vec<_> = plan(&actual, &desired, None).writes().cloned().collect();
        perform(&mut actual, &writes, writes.len())?;
        let mut fresh = ServiceActual::default();
        let from_nothing = plan(&fresh, &desired, None);
        from_nothing.writes().for_each(|write| fresh.apply(write));
        prop_assert_eq!(picture(&actual), picture(&fresh));
        prop_assert_eq!(plan(&restarted(&actual), &desired, None).writes().count(), 0);
        // After the grace period nothing is left over.
        collector.note(now, &plan(&actual, &desired, None));
        let collected = collector.due(now + GRACE, GRACE, &actual);
        perform(&mut actual, &collected, collected.len())?;
        prop_assert_eq!(plan(&actual, &desired, None).garbage, vec![]);
        prop_assert_eq!(actual.set_count(), desired.sets.len());
        prop_assert_eq!(used_slots(&actual), desired.sets.values().map(|s| s.len()).sum::<usize>());
        prop_assert!(actual.backends().count() <= desired.backends.len());
        prop_assert_eq!(&actual.services.len(), &desired.frontends.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_of_what_has_changed_leaves_nothing_for_a_plan_of_everything(
        steps in prop::collection::vec(random_cluster(), 1..8),
        late in any::<[bool; 8]>(),
    ) {
        let mut index = ServiceIndex::default();
        let mut actual = ServiceActual::default();
        let mut collector = Collector::default();
        let mut now = Duration::ZERO;
        for (step, late) in steps.iter().zip(late) {
            turn_into(&mut index, step);
            let change = plan(&actual, index.desired(), Some(index.changed()));
            collector.note(now, &change);
            change.writes().for_each(|write| actual.apply(write));
            index.settled();
            if late {
                now += GRACE;
                let writes = collector.due(now, GRACE, &actual);
                writes.iter().for_each(|write| actual.apply(write));
            }
            let rest = plan(&actual, index.desired(), None);
            prop_assert_eq!(rest.writes().collect::<Vec<_>>(), Vec::<&ServiceWrite>::new());
            // What is garbage now will be collected, and nothing else.
            let mut all = Collector::default();
            all.note(Duration::ZERO, &rest);
            let (mut mine, mut theirs) = (actual.clone(), actual.clone());
            let far = now + 2 * GRACE;
            let mut copy = collector.clone();
            copy.due(far, GRACE, &actual).iter().for_each(|write| mine.apply(write));
            all.due(far, GRACE, &actual).iter().for_each(|write| theirs.apply(write));
            prop_assert_eq!(mine, theirs);
        }
    }
}

/// Makes an index that of another cluster, object by object.
fn turn_into(index: &mut ServiceIndex, services: &[Option<Random>]) {
    let new = objects(services);
    for key in index.object_keys() {
        if !new.iter().any(|object| object.key() == key) {
            index.apply(&Change::Delete(key));
        }
    }
    for object in new {
        index.apply(&Change::Apply(object));
    }
}

#[test]
fn the_random_clusters_show_every_kind_of_answer() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut counts = [0u32; 4];
    for _ in 0..200 {
        let random = random_cluster().new_tree(&mut runner).unwrap().current();
        for answer in picture(&programmed(&cluster(&random))).into_values() {
            counts[match answer {
                Seen::NotAService => 0,
                Seen::Refused => 1,
                Seen::Backends(all) if all.len() == 1 => 2,
                Seen::Backends(_) => 3,
            }] += 1;
        }
    }
    let total: u32 = counts.iter().sum();
    assert!(
        counts.iter().all(|n| n * 20 > total),
        "{counts:?}: each more than 5 %"
    );
}

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
    index.apply_service(&service("b", &["10.96.0.2"]));
    index.apply_slice(&slice("a", "a", &[("10.1.0.1", 'r'), ("10.1.0.2", 'r')]));
    let second = plan(&actual, index.desired(), Some(index.changed()));
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
        let change = plan(&actual, index.desired(), Some(index.changed()));
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
