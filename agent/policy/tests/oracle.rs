//! The compiled tables say what the reference evaluator says, of thousands of random clusters.
#![allow(clippy::unwrap_used, reason = "a test's helpers may stop the test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};
use support::policies::{ALL_FEATURES, Features};
use support::rng::Rng;
use support::world::World;
use support::{PORTS, from_nothing, protocol_for};
use weir_abi::policy::RuleId;
use weir_abi::{Addr, Proto};
use weir_oracle::{End, Evaluator, Protocol, Query, Reason};
use weir_policy::{Actual, Direction};

const WORLDS: u64 = 3000;
const PROBES: usize = 60;

struct Probe {
    slot: u32,
    direction: Direction,
    endpoint: IpAddr,
    peer: IpAddr,
    proto: Proto,
    port: u16,
}

fn oracle_protocol(proto: Proto) -> Protocol {
    match proto {
        Proto::TCP => Protocol::Tcp,
        Proto::UDP => Protocol::Udp,
        Proto::SCTP => Protocol::Sctp,
        _ => Protocol::Icmp,
    }
}

/// The oracle's decision at the endpoint; none if its pod has ended.
fn expected(
    evaluator: &Evaluator<'_>,
    world: &World,
    probe: &Probe,
) -> Option<weir_oracle::Decision> {
    let name = &world.endpoints[&probe.slot].pod.as_ref()?.name;
    let pod = End::Pod {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
    };
    let peer = End::Address(probe.peer);
    let is_ingress = probe.direction == Direction::Ingress;
    let (from, to) = if is_ingress { (peer, pod) } else { (pod, peer) };
    let query = Query {
        from,
        to,
        family: None,
        protocol: oracle_protocol(probe.proto),
        port: (probe.port != 0).then_some(probe.port),
        reply: false,
    };
    match evaluator.evaluate(&query) {
        Ok(answer) => Some(
            if is_ingress {
                answer.ingress
            } else {
                answer.egress
            }
            .decision,
        ),
        Err(weir_oracle::QueryError::EndedPod { .. }) => None,
        Err(other) => panic!("{query:?}: {other}"),
    }
}

/// What the maps say, in the oracle's words.
fn found(actual: &Actual, probe: &Probe) -> (bool, Reason, Value) {
    let peer = Addr::from(probe.peer);
    let verdict = actual
        .verdict(probe.slot, probe.direction, peer, probe.proto, probe.port)
        .verdict;
    if verdict.rule() == RuleId::NOT_SELECTED {
        return (verdict.allowed(), Reason::NotSelected, Value::Null);
    }
    let name = actual.rule(verdict.rule()).expect("every rule has a name");
    let mut name: Value = serde_json::from_str(name).unwrap();
    let direction = name.as_object_mut().unwrap().remove("direction");
    assert_eq!(direction, Some(json!(probe.direction.name())));
    let reason = if name.get("isolatedBy").is_some() {
        Reason::Isolated
    } else {
        Reason::Rule
    };
    (verdict.allowed(), reason, name)
}

fn random_probe(rng: &mut Rng, world: &World, addresses: &[IpAddr]) -> Probe {
    let slots: Vec<_> = world.endpoints.values().collect();
    let endpoint = rng.pick(&slots);
    let own = rng.pick(&endpoint.addresses);
    let same_family: Vec<_> = addresses
        .iter()
        .copied()
        .filter(|a| a.is_ipv4() == own.is_ipv4())
        .collect();
    let peer = if rng.percent(3) {
        own
    } else {
        rng.pick(&same_family)
    };
    let (proto, port) = rng.pick(PORTS);
    Probe {
        slot: endpoint.slot,
        direction: rng.pick(&Direction::ALL),
        endpoint: own,
        peer,
        proto: protocol_for(peer, proto),
        port,
    }
}

#[derive(Default)]
struct Coverage {
    total: u64,
    counts: BTreeMap<String, u64>,
}

impl Coverage {
    fn add(&mut self, name: impl Into<String>) {
        *self.counts.entry(name.into()).or_default() += 1;
    }

    /// Each of `names` in at least one in a hundred.
    fn check(&self, names: &[&str]) {
        for name in names {
            let count = self.counts.get(*name).copied().unwrap_or(0);
            assert!(
                count * 100 >= self.total,
                "{name}: {count} of {}",
                self.total
            );
        }
    }
}

fn check_probe(
    actual: &Actual,
    evaluator: &Evaluator<'_>,
    world: &World,
    probe: &Probe,
    coverage: &mut Coverage,
) -> Result<(), String> {
    let Some(expected) = expected(evaluator, world, probe) else {
        return Ok(());
    };
    coverage.total += 1;
    coverage.add(expected.reason.to_string());
    coverage.add(expected.verdict.to_string());
    coverage.add(if probe.endpoint.is_ipv4() {
        "IPv4"
    } else {
        "IPv6"
    });
    coverage.add(probe.direction.name());
    coverage.add(oracle_protocol(probe.proto).to_string());
    match expected.reason {
        Reason::Rule | Reason::Isolated | Reason::Pass | Reason::NotSelected => {}
        // The programs answer these before they look at policy.
        Reason::Itself | Reason::OwnNode | Reason::NotSubject | Reason::Reply => return Ok(()),
    }
    let name = match expected.reason {
        Reason::Rule | Reason::Pass => serde_json::to_value(&expected.rule).unwrap(),
        Reason::Isolated => json!({"isolatedBy": expected.isolated_by}),
        _ => Value::Null,
    };
    let expected = (expected.verdict.allowed(), expected.reason, name);
    let found = found(actual, probe);
    if found == expected {
        return Ok(());
    }
    Err(format!(
        "slot {} {:?} {} peer {} {:?} {}:\n   maps {found:?}\n oracle {expected:?}",
        probe.slot, probe.direction, probe.endpoint, probe.peer, probe.proto, probe.port
    ))
}

#[test]
fn tables_agree_with_the_oracle_in_verdict_reason_and_rule() {
    let mut features = Features::default();
    let mut coverage = Coverage::default();
    let mut policies = 0;
    for seed in 0..WORLDS {
        let mut rng = Rng::new(seed);
        let world = World::random(&mut rng, &mut features);
        policies += world.policies.len() as u64;
        let cluster = world.cluster();
        let evaluator = Evaluator::new(&cluster);
        let mut index = world.index(&mut rng);
        let actual = from_nothing(index.compile());
        // Both name what is wrong with the objects, each in its own words.
        let problems: Vec<_> = index.problems().into_iter().map(|p| p.object).collect();
        let messages: Vec<_> = evaluator.messages().into_iter().map(|m| m.object).collect();
        let problems: BTreeSet<_> = problems.into_iter().collect();
        assert_eq!(problems, messages.into_iter().collect(), "seed {seed}");
        let addresses = world.addresses();
        for _ in 0..PROBES {
            let probe = random_probe(&mut rng, &world, &addresses);
            if let Err(difference) = check_probe(&actual, &evaluator, &world, &probe, &mut coverage)
            {
                panic!(
                    "seed {seed}: {difference}\n{}",
                    serde_json::to_string_pretty(&json!({
                        "policies": world.policies.values().collect::<Vec<_>>(),
                        "pods": world.pods.values().collect::<Vec<_>>(),
                        "namespaces": world.namespaces.values().collect::<Vec<_>>(),
                    }))
                    .unwrap()
                );
            }
        }
    }
    coverage.check(&[
        "rule",
        "isolated",
        "not-selected",
        "self",
        "own-node",
        "allow",
        "deny",
        "IPv4",
        "IPv6",
        "ingress",
        "egress",
        "TCP",
        "UDP",
        "SCTP",
        "ICMP",
    ]);
    assert!(
        coverage.total >= WORLDS * PROBES as u64 / 2,
        "{}",
        coverage.total
    );
    for name in ALL_FEATURES {
        let count = features.0.get(name).copied().unwrap_or(0);
        assert!(
            count * 100 >= policies,
            "{name}: {count} in {policies} policies"
        );
    }
}
