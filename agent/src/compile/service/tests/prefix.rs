//! Wherever the writes stop, a frontend has its old or its new backends.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use weir_abi::{Addr, Proto};

use super::select::{From, Rules, Seen, rules, seen};
use super::*;
use crate::state::{Change, Object};

const ADDRESSES: [&str; 3] = ["10.96.0.1", "10.96.0.2", "fd96::1"];
/// External addresses, one of them a ClusterIP of who claims it; both Services may have them.
const EXTERNAL: [&str; 3] = ["192.0.2.1", "2001:db8::1", "10.96.0.2"];
/// Where NodePorts and HostPorts stand.
const NODE_WIDE: [&str; 2] = ["0.0.0.0", "::"];
const PORTS: [u16; 5] = [80, 81, 82, 30080, 30081];
const GRACE: Duration = Duration::from_secs(5);

/// One Service of a random cluster.
#[derive(Clone, Debug)]
struct Random {
    /// Which of [`ADDRESSES`] it claims.
    addresses: [bool; 3],
    /// Whether it has port 81 as well as 80.
    second_port: bool,
    /// For each of four pods and each family: its state (`-` is absent), which life it has, and whether
    /// it is on this node.
    pods: [(char, u8, bool); 4],
    /// NodePort 30080 (and 30081), external IPs, load balancer.
    kinds: [bool; 3],
    /// Internal and external traffic policy Local, affinity.
    rules: [bool; 3],
    /// Source ranges: none, one, none that is valid.
    ranges: u8,
    /// A Pod with HostPort 30080, and one at an address.
    host_ports: [bool; 2],
}

fn random_service() -> impl Strategy<Value = Random> {
    let pod = (
        prop::sample::select(vec!['-', 'r', 'r', 't', 'n']),
        0..2u8,
        any::<bool>(),
    );
    (
        any::<[bool; 3]>(),
        any::<bool>(),
        [pod.clone(), pod.clone(), pod.clone(), pod],
        any::<[bool; 3]>(),
        any::<[bool; 3]>(),
        0..3u8,
        any::<[bool; 2]>(),
    )
        .prop_map(
            |(addresses, second_port, pods, kinds, rules, ranges, host_ports)| Random {
                addresses,
                second_port,
                pods,
                kinds,
                rules,
                ranges,
                host_ports,
            },
        )
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
        objects.push(Object::Service(Box::new(random_object(&name, random))));
        objects.extend(host_port_pods(&name, random));
        for v6 in [false, true] {
            let mut endpoints = Vec::new();
            let pods = random.pods.iter().enumerate();
            for (pod, (state, life, here)) in pods.filter(|(_, (state, ..))| *state != '-') {
                let address = if v6 {
                    format!("fd01::{pod}:1")
                } else {
                    format!("10.1.0.{pod}")
                };
                let mut endpoint = endpoint(&address, *state);
                endpoint["targetRef"]["uid"] = json!(format!("{address}-{life}"));
                endpoint["nodeName"] = json!(if *here { "n1" } else { "n2" });
                endpoints.push(endpoint);
            }
            let ports = json!([{"name": "web", "port": 8080}, {"name": "more", "port": 8081}]);
            let slice = slice_with(&format!("{name}-{v6}"), &name, ports, json!(endpoints));
            objects.push(Object::EndpointSlice(Box::new(slice)));
        }
    }
    objects
}

fn random_object(name: &str, random: &Random) -> Service {
    let chosen = ADDRESSES.iter().zip(random.addresses).filter(|(_, on)| *on);
    let addresses: Vec<_> = chosen.map(|(a, _)| *a).collect();
    let [node_port, external, balancer] = random.kinds;
    let [internal_local, external_local, affinity] = random.rules;
    let policy = |local| if local { "Local" } else { "Cluster" };
    let mut ports = vec![json!({"name": "web", "port": 80})];
    if random.second_port {
        ports.push(json!({"name": "more", "port": 81}));
    }
    if node_port || balancer {
        for port in &mut ports {
            port["nodePort"] = json!(30000 + port["port"].as_u64().unwrap());
        }
    }
    let kind = match (balancer, node_port) {
        (true, _) => "LoadBalancer",
        (_, true) => "NodePort",
        _ => "ClusterIP",
    };
    let mut spec = json!({
        "type": kind,
        "clusterIPs": addresses,
        "ports": ports,
        "internalTrafficPolicy": policy(internal_local),
        "externalTrafficPolicy": policy(external_local),
        "sessionAffinity": if affinity { "ClientIP" } else { "None" },
    });
    if external {
        spec["externalIPs"] = json!(EXTERNAL);
    }
    match random.ranges {
        1 => spec["loadBalancerSourceRanges"] = json!(["198.51.100.0/24", "2001:db8:1::/48"]),
        2 => spec["loadBalancerSourceRanges"] = json!(["nonsense"]),
        _ => {}
    }
    let mut service = service_with(name, spec);
    let ingress = json!({"loadBalancer": {"ingress": [{"ip": EXTERNAL[0]}, {"ip": EXTERNAL[1]}]}});
    service.status = serde_json::from_value(ingress).unwrap();
    service
}

fn host_port_pods(name: &str, random: &Random) -> Vec<Object> {
    let addresses = [json!(""), json!(EXTERNAL[0])];
    let chosen = addresses.iter().zip(random.host_ports).enumerate();
    let pods = chosen.filter(|(_, (_, on))| *on).map(|(n, (address, _))| {
        let pod = json!({
            "metadata": {"name": format!("{name}-{n}"), "uid": format!("{}", random.ranges)},
            "spec": {"nodeName": "n1", "containers": [{
                "name": "c",
                "ports": [{"containerPort": 8080, "hostPort": 30080, "hostIP": address}],
            }]},
            "status": {"podIPs": [{"ip": format!("10.1.9.{n}")}, {"ip": format!("fd01::9:{n}")}]},
        });
        Object::Pod(Box::new(serde_json::from_value(pod).unwrap()))
    });
    pods.collect()
}

/// The index of such a cluster.
fn cluster(services: &[Option<Random>]) -> ServiceIndex {
    let mut index = on_node("n1");
    for object in objects(services) {
        index.apply(&Change::Apply(object));
    }
    index
}

type Picture = BTreeMap<(Addr, u16, From), (Seen, Rules)>;

/// What all frontends lead to.
fn picture(actual: &ServiceActual) -> Picture {
    let mut picture = Picture::new();
    for address in ADDRESSES.iter().chain(&EXTERNAL).chain(&NODE_WIDE) {
        let addr: Addr = address.parse::<IpAddr>().unwrap().into();
        for port in PORTS {
            for from in [From::Cluster, From::Outside] {
                let seen = seen(actual, addr, port, Proto::TCP, from);
                let rules = rules(actual, addr, port, from);
                picture.insert((addr, port, from), (seen, rules));
            }
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

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
            collector.forget(&change);
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
        collector.forget(&plan(&actual, &desired, None));
        collector.note(now, &plan(&actual, &desired, None));
        let collected = collector.due(now + GRACE, GRACE, &actual);
        perform(&mut actual, &collected, collected.len())?;
        prop_assert_eq!(plan(&actual, &desired, None).garbage, vec![]);
        prop_assert_eq!(actual.set_count(), desired.sets.len());
        prop_assert_eq!(used_slots(&actual), desired.sets.values().map(|s| s.len()).sum::<usize>());
        prop_assert!(actual.backends().count() <= desired.backends.len());
        prop_assert_eq!(&actual.services.len(), &desired.frontends.len());
        prop_assert_eq!(actual.source_ranges().count(), desired.ranges.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_of_what_has_changed_leaves_nothing_for_a_plan_of_everything(
        steps in prop::collection::vec(random_cluster(), 1..8),
        late in any::<[bool; 8]>(),
    ) {
        let mut index = on_node("n1");
        let mut actual = ServiceActual::default();
        let mut collector = Collector::default();
        let mut now = Duration::ZERO;
        for (step, late) in steps.iter().zip(late) {
            turn_into(&mut index, step);
            let change = plan(&actual, index.desired(), index.changed());
            collector.forget(&change);
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
            all.forget(&rest);
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
        for (answer, _) in picture(&programmed(&cluster(&random))).into_values() {
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
        counts.iter().all(|n| n * 40 > total),
        "{counts:?}: each more than 2.5 %"
    );
}
