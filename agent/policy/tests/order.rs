//! Only the objects count: whatever events led to them, in whatever order and however many were
//! taken in at once, the kernel's tables end up the same, to the last entry.

use serde_json::json;
use weir_policy::{
    Actual, Established, Event, Index, Limits, LocalEndpoint, ObjectName, Plan, PodRef,
    plan_changes, plan_within, sweep,
};
use weir_worlds::shrink::shrink;
use weir_worlds::tables::{Content, Tables};
use weir_worlds::{Coverage, NODE, Rng, World};

const SEEDS: u64 = 250;

/// An agent and its kernel.
struct Agent {
    index: Index,
    /// What it compiled last is in force.
    known: bool,
    actual: Actual,
    tables: Tables,
}

impl Agent {
    fn new() -> Self {
        Self {
            index: Index::new(NODE),
            known: false,
            actual: Actual::default(),
            tables: Tables::default(),
        }
    }

    fn take_in(&mut self, events: &[Event]) {
        for event in events {
            let _ = self.index.apply(event.clone());
        }
    }

    fn perform<'a>(&mut self, writes: impl Iterator<Item = &'a weir_policy::Write>) {
        for write in writes {
            self.actual.apply(write);
            self.tables.apply(write);
        }
    }

    fn bring_up_to_date(&mut self) -> Plan {
        let _ = self.index.compile();
        let make = if self.known {
            plan_changes
        } else {
            plan_within
        };
        let limits = Limits::default();
        let plan = make(
            &self.actual,
            self.index.desired(),
            &limits,
            Established::Apply,
        );
        let plan = plan.expect("it fits");
        self.perform(plan.writes());
        self.index.settled();
        self.known = true;
        plan
    }

    /// Takes events in `at_once` at a time.
    fn live_through(&mut self, events: &[Event], at_once: usize) {
        for some in events.chunks(at_once) {
            self.take_in(some);
            self.bring_up_to_date();
        }
    }

    /// What is in the kernel once all is done and swept.
    fn end(mut self) -> Content {
        self.bring_up_to_date();
        self.actual.settle();
        let writes = sweep(&self.actual, self.index.desired());
        self.perform(writes.iter());
        self.known = false;
        assert!(self.bring_up_to_date().is_empty(), "swept too much");
        self.tables.content()
    }
}

/// Endpoints whose pod is not there as they know it keep the policy that they had last, which
/// depends on the past by design: they are left out.
fn without_orphans(mut world: World) -> World {
    let pods = world.pods.clone();
    world.endpoints.retain(|_, endpoint| {
        endpoint.pod.as_ref().is_none_or(|known| {
            let name = (known.name.namespace.clone(), known.name.name.clone());
            pods.contains_key(&name)
        })
    });
    world
}

/// Worlds one after the other, the last one without orphans.
fn walk(rng: &mut Rng) -> Vec<World> {
    let mut coverage = Coverage::default();
    let mut worlds = vec![World::random(rng, &mut coverage)];
    for _ in 0..2 + rng.below(3) {
        let mut next = worlds[worlds.len() - 1].clone();
        next.mutate(rng, &mut coverage);
        worlds.push(next);
    }
    let end = worlds.len() - 1;
    worlds[end] = without_orphans(worlds[end].clone());
    worlds
}

/// The events from nothing through all worlds.
fn scenario(worlds: &[World], rng: &mut Rng) -> Vec<Vec<Event>> {
    let mut last = World::default();
    let mut steps = Vec::new();
    for world in worlds {
        steps.push(world.events_from(&last, rng));
        last = world.clone();
    }
    steps
}

/// The same end, reached in other ways: a name for each way, and how it went.
fn ways(worlds: &[World], rng: &mut Rng) -> Vec<(&'static str, Agent)> {
    let steps = scenario(worlds, rng);
    let all = steps.concat();
    let end = &worlds[worlds.len() - 1];
    let direct = end.events_in_order(&World::default());
    let mut ways = Vec::new();
    let mut way = |name, events: &[Event], at_once| {
        let mut agent = Agent::new();
        agent.live_through(events, at_once);
        ways.push((name, agent));
    };
    way("event by event", &all, 1);
    way("three at a time", &all, 3);
    way("all at once", &all, all.len());
    way("without the detours", &direct, direct.len());
    let reversed: Vec<Event> = direct.iter().rev().cloned().collect();
    way("reversed", &reversed, reversed.len());
    way("reversed, event by event", &reversed, 1);
    let mut shuffled = direct.clone();
    rng.shuffle(&mut shuffled);
    way("shuffled", &shuffled, 1 + rng.below(5));
    let duplicated: Vec<Event> = all.iter().flat_map(|e| [e.clone(), e.clone()]).collect();
    way("each event twice", &duplicated, 1 + rng.below(4));
    let again = [&all[..], &direct[..]].concat();
    way("told everything again", &again, 1 + rng.below(6));
    // To another world and back, object by object.
    let mut other = end.clone();
    for _ in 0..3 {
        other.mutate(rng, &mut Coverage::default());
    }
    let there = other.events_from(end, rng);
    let back = end.events_from(&other, rng);
    way("after a detour", &[&direct[..], &there, &back].concat(), 2);
    // Everything goes and comes again.
    let gone = World::default().events_from(end, rng);
    let born_again = [&direct[..], &gone, &shuffled].concat();
    way("after nothing was left", &born_again, 4);
    ways
}

/// Told a world's objects in order, and in reverse, one by one or at once, next to an agent that
/// starts now.
fn difference(world: &World) -> Option<String> {
    let direct = world.events_in_order(&World::default());
    let reversed: Vec<Event> = direct.iter().rev().cloned().collect();
    let mut fresh = Agent::new();
    fresh.index = world.index(&mut Rng::new(0));
    let fresh = fresh.end();
    let ways = [(&direct, 1), (&reversed, 1), (&reversed, usize::MAX)];
    ways.into_iter().find_map(|(events, at_once)| {
        let mut agent = Agent::new();
        agent.live_through(events, at_once);
        fresh.difference(&agent.end())
    })
}

/// Fails with the least world that ends differently, if the order of its own objects shows it.
fn fail(first: &str, worlds: &[World]) -> ! {
    let end = &worlds[worlds.len() - 1];
    let least = shrink(end, |world| difference(world).is_some());
    panic!(
        "{first}\n\nthe least that shows it: {}\n{}\nendpoints {:?}",
        difference(&least).unwrap_or_else(|| "only the events above".to_owned()),
        serde_json::to_string_pretty(&least.manifest()).unwrap_or_default(),
        least.endpoints
    );
}

#[test]
fn any_sequence_of_events_that_ends_in_the_same_objects_ends_in_the_same_tables() {
    let (mut rows, mut slots, mut peers) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed ^ 0x0dd_0000);
        let worlds = walk(&mut rng);
        let mut agent = Agent::new();
        for step in scenario(&worlds, &mut rng) {
            agent.take_in(&step);
            agent.bring_up_to_date();
        }
        let expected = agent.end();
        rows += expected.rows.len();
        slots += expected.slots.len();
        peers += expected.peers.len();
        for (name, agent) in ways(&worlds, &mut rng) {
            let found = agent.end();
            if let Some(difference) = expected.difference(&found) {
                fail(&format!("seed {seed}, {name}: {difference}"), &worlds);
            }
        }
        // One that starts now, with an empty kernel.
        let mut agent = Agent::new();
        agent.index = worlds[worlds.len() - 1].index(&mut rng);
        let fresh = agent.end();
        assert_eq!(expected.difference(&fresh), None, "seed {seed}, fresh");
    }
    // Otherwise there was nothing to compare.
    assert!(
        rows > 2000 && slots > 500 && peers > 500,
        "{rows} rows, {slots} slots, {peers} peers"
    );
}

#[test]
fn a_restarted_agent_ends_in_the_same_tables_as_one_that_lived_through_it() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed ^ 0x0de_0000);
        let worlds = walk(&mut rng);
        let (mut lived, mut restarted) = (Agent::new(), Agent::new());
        let steps = scenario(&worlds, &mut rng);
        for (step, world) in steps.iter().zip(&worlds) {
            lived.take_in(step);
            lived.bring_up_to_date();
            // It knows what the kernel holds and what the objects are, and nothing else.
            restarted.index = world.index(&mut rng);
            restarted.known = false;
            restarted.bring_up_to_date();
        }
        let (lived, restarted) = (lived.end(), restarted.end());
        assert_eq!(lived.difference(&restarted), None, "seed {seed}");
    }
}

/// Shrunk from a random world: the namespace, which comes last in one of the orders, takes the pod
/// out of the policy's subject.
#[test]
fn nothing_is_left_of_peers_when_a_namespace_ends_the_only_policy_of_its_pod() {
    let mut world = World::default();
    let namespace = json!({"metadata": {"name": "c", "labels": {"team": "red"}}});
    world.namespaces.insert("c".to_owned(), namespace);
    let pod = json!({
        "metadata": {"name": "p5", "namespace": "c", "uid": "uid-5"},
        "spec": {"nodeName": NODE},
    });
    world.pods.insert(("c".to_owned(), "p5".to_owned()), pod);
    let policy = json!({
        "metadata": {"name": "cluster-0"},
        "spec": {
            "tier": "Baseline", "priority": 5,
            "subject": {"namespaces": {"matchExpressions": [
                {"key": "team", "operator": "DoesNotExist"},
            ]}},
            "ingress": [{"action": "Accept", "from": [{"namespaces": {}}]}],
        },
    });
    let name = "cluster-0".to_owned();
    world.cluster_policies.insert(name, policy);
    let endpoint = LocalEndpoint {
        slot: 5,
        pod: Some(PodRef {
            name: ObjectName::new("c", "p5"),
            uid: Some("uid-5".to_owned()),
        }),
        addresses: vec!["10.1.0.15".parse().expect("an address")],
    };
    world.endpoints.insert(5, endpoint);
    assert_eq!(difference(&world), None);
}
