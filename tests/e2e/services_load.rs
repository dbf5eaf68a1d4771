//! Services under load: a rolling update, and endpoints that change all the time. No request may fail,
//! and nothing may be left behind.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_abi::map;
use weir_api::service::ServiceInfo;
use weir_lab::control::{Control, RunningLoad};
use weir_lab::{Backend, Lab, Load, Pod, Proto, Requests};
use weir_tests::maps;

use crate::services_world::{
    FAMILIES, NODE_PORT, PORT, World, answer, ask, client, eventually, node_port, server, vip,
};

/// Milliseconds between the requests of one load.
const EVERY: u64 = 20;
/// How long a pod that has been told to end goes on serving, as its grace period lets it.
const GRACE: Duration = Duration::from_millis(400);
/// How long anything here may take at most.
const LIMIT: Duration = Duration::from_secs(300);

/// Loads with what to call them.
struct Loads(Vec<(String, RunningLoad)>);

impl Loads {
    fn start(ways: &[(&str, &Arc<Control>, IpAddr, u16, Requests)]) -> Self {
        let start = |(name, control, address, port, requests): &(&str, &Arc<Control>, _, _, _)| {
            // The first packet of all may have to wait until neighbours have found each other.
            let first = control.probe(ask(*address, *port, Proto::Tcp)).unwrap();
            answer(&first, *address, name);
            let load = Load {
                target: SocketAddr::new(*address, *port),
                requests: *requests,
                every_ms: EVERY,
                count: u64::MAX,
                limit_ms: u64::try_from(LIMIT.as_millis()).unwrap(),
            };
            let name = format!("{name} to {address} {requests:?}");
            (name, control.load(load).unwrap())
        };
        Self(ways.iter().map(start).collect())
    }

    /// Ends them; every request must have been answered. Who answered how many.
    fn stop(self) -> BTreeMap<String, u64> {
        let mut by: BTreeMap<String, u64> = BTreeMap::new();
        let mut failed = Vec::new();
        for (name, load) in self.0 {
            let report = load.stop().unwrap();
            assert!(report.sent > 20, "{name}: only {} requests", report.sent);
            if report.answered != report.sent || !report.errors.is_empty() {
                failed.push(format!("{name}: {report:?}"));
            }
            for (from, count) in report.by {
                *by.entry(from).or_default() += count;
            }
        }
        assert_eq!(failed, Vec::<String>::new());
        by
    }
}

/// Where a load comes in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    ClusterIp,
    NodePort,
}

/// Short requests and kept connections, by pods with and without socket hooks through the ClusterIP,
/// by a client outside through a node port.
fn loads(world: &World, pods: &[Arc<Pod>; 2], by: &[By]) -> Loads {
    let mut ways = Vec::new();
    for v4 in FAMILIES {
        for requests in [Requests::Short, Requests::KeepAlive] {
            if by.contains(&By::ClusterIp) {
                for (name, pod) in [("socket hook", &pods[0]), ("packet path", &pods[1])] {
                    ways.push((name, &pod.control, vip(v4), PORT, requests));
                }
            }
            if by.contains(&By::NodePort) {
                let node = world.node(0, v4);
                ways.push(("outside", &world.outside.control, node, NODE_PORT, requests));
            }
        }
    }
    Loads::start(&ways)
}

fn clients(world: &World) -> [Arc<Pod>; 2] {
    [("covered", true), ("uncovered", false)]
        .map(|(name, covered)| client(&world.lab, name, 0, covered))
}

/// Lets the loads go on for a while: time is what a grace period is made of.
fn go_on(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn a_rolling_update_fails_no_request_and_no_kept_connection_through_a_cluster_ip() {
    rolling_update(By::ClusterIp);
}

#[test]
fn a_rolling_update_fails_no_request_and_no_kept_connection_through_a_node_port() {
    rolling_update(By::NodePort);
}

fn rolling_update(by: By) {
    let world = World::new(2, node_port(), &[0, 1]);
    let pods = clients(&world);
    let loads = loads(&world, &pods, &[by]);
    let mut serving: Vec<Arc<Pod>> = world.backends.clone();
    go_on(GRACE);
    for number in 0..serving.len() * 2 {
        // A new pod is ready; an old one is told to end, and serves until its grace period is over.
        let new = server(&world.lab, &format!("v2-{number}"), number % 2);
        let old = serving.remove(0);
        serving.push(new);
        let mut backends: Vec<Backend<'_>> =
            serving.iter().map(|pod| Backend::ready(pod)).collect();
        backends.push(Backend::ready(&old));
        world.spec.set_backends(&world.lab, &backends).unwrap();
        go_on(GRACE / 4);
        backends.pop();
        backends.push(Backend::draining(&old));
        world.spec.set_backends(&world.lab, &backends).unwrap();
        go_on(GRACE);
        old.control.drain().unwrap();
        go_on(GRACE);
        backends.pop();
        world.spec.set_backends(&world.lab, &backends).unwrap();
        world.lab.remove_pod(&old).unwrap();
    }
    go_on(GRACE);
    let by = loads.stop();
    for pod in &serving {
        assert!(
            by.contains_key(&pod.key()),
            "{} answered nobody: {by:?}",
            pod.key()
        );
    }
}

/// Services whose endpoints change, besides the one that is under load.
const CHURNED: usize = 20;
/// Endpoint changes in a second: 10,000 in a minute.
const PER_SECOND: u32 = 167;

/// Seconds of churn: `WEIR_CHURN_SECONDS`, 120 for all that is promised.
fn churn_time() -> Duration {
    let asked = std::env::var("WEIR_CHURN_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok());
    Duration::from_secs(asked.unwrap_or(20))
}

fn churned(i: usize, change: usize) -> [Value; 2] {
    let name = format!("churn-{i}");
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": name},
        "spec": {
            "type": "NodePort", "clusterIP": format!("10.96.9.{}", i + 1),
            "clusterIPs": [format!("10.96.9.{}", i + 1)], "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "nodePort": 31000 + i, "protocol": "TCP"}],
        },
    });
    let endpoints: Vec<Value> = (0..4)
        .map(|e| {
            let moved = if e == change % 4 {
                change
            } else {
                change / 4 * 4
            };
            json!({
                "addresses": [format!("10.244.77.{}", (moved * 4 + e) % 250 + 1)],
                "conditions": {"ready": !(change + e).is_multiple_of(7)},
                "nodeName": "n9",
                "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("{name}-{e}"),
                    "uid": format!("{moved}-{e}")},
            })
        })
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": name,
            "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    });
    [service, slice]
}

/// How many entries each of the service maps of a node holds.
fn entries(lab: &Lab, node: usize) -> BTreeMap<String, usize> {
    let pins = lab.nodes[node].path("/sys/fs/bpf/weir");
    let layout = std::fs::read_dir(&pins).unwrap().find_map(|entry| {
        let maps = entry.unwrap().path().join("maps");
        maps.is_dir().then_some(maps)
    });
    let snapshot = maps::pinned(&layout.unwrap()).unwrap();
    let of_services = [map::SERVICES, map::SLOTS, map::BACKENDS, map::SOURCE_RANGES];
    snapshot
        .into_iter()
        .filter(|(name, _)| of_services.contains(&name.as_str()))
        .map(|(name, content)| (name, content.len()))
        .collect()
}

/// Waits until a node's agent finds all frontends programmed.
fn await_programmed(lab: &Lab, services: usize) {
    for node in &lab.nodes {
        eventually(|| {
            let list: Vec<ServiceInfo> = node
                .client()
                .get("/v1/services")
                .map_err(|e| e.to_string())?;
            let late = list
                .iter()
                .flat_map(|s| &s.frontends)
                .find(|f| !f.programmed);
            match late {
                None if list.len() == services => Ok(()),
                late => Err(format!("{}: {} Services, {late:?}", node.name, list.len())),
            }
        });
    }
}

#[test]
fn endpoints_that_change_all_the_time_fail_no_request_and_leave_no_entry() {
    let world = World::new(2, node_port(), &[0, 1]);
    let pods = clients(&world);
    let before: Vec<_> = [0, 1].map(|node| entries(&world.lab, node)).to_vec();
    for i in 0..CHURNED {
        churned(i, 0).iter().for_each(|object| world.apply(object));
    }
    await_programmed(&world.lab, CHURNED + 1);
    let loads = loads(&world, &pods, &[By::ClusterIp, By::NodePort]);
    let time = churn_time();
    let start = Instant::now();
    let mut changes = 0_u32;
    while start.elapsed() < time {
        let due = start + Duration::from_secs(1) / PER_SECOND * changes;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let change = changes as usize;
        if change.is_multiple_of(50) {
            // The Service under load changes, too: one of its two backends comes and goes.
            let mut backends = vec![Backend::ready(&world.backends[0])];
            if change.is_multiple_of(100) {
                backends.push(Backend::ready(&world.backends[1]));
            } else {
                backends.push(Backend::draining(&world.backends[1]));
            }
            world.spec.set_backends(&world.lab, &backends).unwrap();
        } else {
            world.apply(&churned(change % CHURNED, change)[1]);
        }
        changes += 1;
    }
    let took = start.elapsed();
    world.serve(&[0, 1]);
    let by = loads.stop();
    let rate = f64::from(changes) / took.as_secs_f64() * 60.0;
    println!("{changes} changes in {took:.1?}, {rate:.0} a minute; answers: {by:?}");
    assert!(rate > 9000.0, "only {rate:.0} changes a minute");
    for i in 0..CHURNED {
        let name = format!("churn-{i}");
        world
            .lab
            .cluster
            .delete("Service", Some("default"), &name)
            .unwrap();
        world
            .lab
            .cluster
            .delete("EndpointSlice", Some("default"), &name)
            .unwrap();
    }
    await_programmed(&world.lab, 1);
    // What nothing refers to is deleted after a grace period.
    for (node, before) in before.iter().enumerate() {
        eventually(|| {
            let now = entries(&world.lab, node);
            (now == *before)
                .then_some(())
                .ok_or_else(|| format!("node {}: {before:?} before, now {now:?}", node + 1))
        });
    }
}
