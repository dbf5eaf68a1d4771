//! The compiled tables say what the reference evaluator says, of thousands of random clusters.

use std::collections::{BTreeSet, HashSet};

use weir_oracle::{Evaluator, QueryError};
use weir_worlds::judge::{OUTCOMES, Probe};
use weir_worlds::shrink::shrink;
use weir_worlds::{Coverage, Rng, World, cluster_policies, from_nothing, policies, random};

const WORLDS: u64 = 3000;
const PROBES: usize = 60;

/// The difference that a probe finds in a world, if it can be asked there.
fn difference(world: &World, probe: &Probe) -> Option<String> {
    let cluster = world.cluster();
    let evaluator = Evaluator::new(&cluster);
    let actual = from_nothing(world.index(&mut Rng::new(0)).compile());
    let found = probe.difference(&actual, &evaluator, world, &mut Coverage::default());
    found.ok().flatten()
}

/// Fails with the least world in which the probe still finds a difference.
fn fail(context: &str, world: &World, probe: &Probe, first: &str) -> ! {
    let least = shrink(world, |world| difference(world, probe).is_some());
    let left = difference(&least, probe);
    panic!(
        "{context}: {first}\n\nthe least that shows it: {}\n{}\nendpoints {:?}",
        left.unwrap_or_else(|| "only in the order of events above".to_owned()),
        serde_json::to_string_pretty(&least.manifest()).unwrap_or_default(),
        least.endpoints
    );
}

#[test]
fn tables_agree_with_the_oracle_in_verdict_reason_and_rule() {
    let mut coverage = Coverage::default();
    let mut distinct = HashSet::new();
    let (mut policies, mut of_cluster) = (0, 0);
    for seed in 0..WORLDS {
        let mut rng = Rng::new(seed);
        let world = World::random(&mut rng, &mut coverage);
        distinct.insert(world.fingerprint());
        policies += world.policies.len() as u64;
        of_cluster += world.cluster_policies.len() as u64;
        let cluster = world.cluster();
        let evaluator = Evaluator::new(&cluster);
        let mut index = world.index(&mut rng);
        let actual = from_nothing(index.compile());
        // Both name what is wrong with the objects, each in its own words.
        let problems = index.problems().into_iter().map(|p| p.object);
        let messages = evaluator.messages().into_iter().map(|m| m.object);
        let problems: BTreeSet<_> = problems.collect();
        assert_eq!(problems, messages.collect(), "seed {seed}");
        let addresses = world.addresses();
        for _ in 0..PROBES {
            let probe = Probe::random(&mut rng, &world, &addresses);
            match probe.difference(&actual, &evaluator, &world, &mut coverage) {
                Ok(None) | Err(QueryError::EndedPod { .. }) => {}
                Ok(Some(text)) => fail(&format!("seed {seed}"), &world, &probe, &text),
                Err(other) => panic!("seed {seed}: {probe:?}: {other}"),
            }
        }
    }
    let probes = coverage.count("probes");
    // Some hundreds of each are many enough.
    coverage.check(OUTCOMES, probes / 6);
    coverage.check(policies::FEATURES, policies);
    coverage.check(cluster_policies::FEATURES, of_cluster);
    coverage.check(random::FEATURES, WORLDS);
    assert!(distinct.len() >= 2000, "{} worlds differ", distinct.len());
    assert!(probes >= 100_000, "{probes} flows");
}
