//! Wherever a list of writes is cut off, each (endpoint, address) has the verdicts of before or
//! those of after; and a new plan, made from what the kernel then holds by an agent that remembers
//! nothing, goes on from there in the same way.
#![allow(clippy::unwrap_used, reason = "a test's helpers may stop the test")]

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use weir_abi::policy::{ClassId, GroupId, PolicySlot, RuleId};
use weir_abi::{Addr, Proto};
use weir_policy::{
    Actual, Direction, EPOCH_PENDING, Established, Index, Limits, Plan, Write, plan_changes,
    plan_within, sweep_within,
};
use weir_worlds::{Coverage, NODE, PORTS, Rng, World, from_nothing};

const SEEDS: u64 = 400;
const STEPS: usize = 5;

const SLOTS: [u32; 11] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 99];

/// Verdicts on all of [`PORTS`], with the names of the rules, under one number.
type Row = usize;
/// A row for every (slot, direction, address), in the order of [`Reader::cell`].
type Snapshot = Vec<Row>;

/// Turns rows into numbers: equal verdicts by rules of equal names are equal rows, whatever the
/// rules' ids.
#[derive(Default)]
struct Reader {
    rows: HashMap<Vec<(bool, String)>, Row>,
    known: HashMap<(GroupId, ClassId), Row>,
    addresses: Vec<Addr>,
}

impl Reader {
    fn new(addresses: &BTreeSet<IpAddr>) -> Self {
        Self {
            addresses: addresses.iter().map(|addr| Addr::from(*addr)).collect(),
            ..Self::default()
        }
    }

    fn row(&mut self, actual: &Actual, slot: u32, direction: Direction, addr: Addr) -> Row {
        let at = |proto, port| actual.verdict(slot, direction, addr, proto, port);
        let ports = PORTS
            .iter()
            .copied()
            .chain([(Proto::ICMPV6, 0), (Proto(47), 0)]);
        let verdicts = ports.map(|(proto, port)| {
            let verdict = at(proto, port).verdict;
            let name = match verdict.rule() {
                rule if rule < RuleId::FIRST_DYNAMIC => format!("{rule:?}"),
                rule => actual
                    .rule(rule)
                    .expect("a rule in use has a name")
                    .to_owned(),
            };
            (verdict.allowed(), name)
        });
        let next = self.rows.len();
        *self.rows.entry(verdicts.collect()).or_insert(next)
    }

    fn read(&mut self, actual: &Actual) -> Snapshot {
        let addresses = self.addresses.clone();
        let class = |addr| {
            actual
                .verdict(0, Direction::Ingress, addr, Proto::TCP, 80)
                .class
        };
        let classes: Vec<ClassId> = addresses.iter().map(|addr| class(*addr)).collect();
        let mut snapshot = Vec::new();
        for slot in SLOTS {
            let (ingress, egress) = PolicySlot::unpack(actual.slot(slot).groups);
            for (direction, group) in Direction::ALL.into_iter().zip([ingress, egress]) {
                for (addr, class) in addresses.iter().zip(&classes) {
                    let known = self.known.get(&(group, *class)).copied();
                    let row = known.unwrap_or_else(|| self.row(actual, slot, direction, *addr));
                    self.known.insert((group, *class), row);
                    snapshot.push(row);
                }
            }
        }
        snapshot
    }

    /// What the place in a snapshot stands for.
    fn cell(&self, i: usize) -> (u32, Direction, Addr) {
        let count = self.addresses.len();
        let slot = SLOTS[i / (2 * count)];
        (
            slot,
            Direction::ALL[i / count % 2],
            self.addresses[i % count],
        )
    }

    /// All cells of a kernel other than the one read before.
    fn read_other(&mut self, actual: &Actual) -> Snapshot {
        self.known.clear();
        let snapshot = self.read(actual);
        self.known.clear();
        snapshot
    }
}

/// One kernel that lives through many changes.
struct Kernel {
    actual: Actual,
    reader: Reader,
    now: Snapshot,
    /// Slots of which a verdict has changed and the epoch not yet since.
    stale: BTreeSet<u32>,
    checks: usize,
}

impl Kernel {
    fn new(reader: Reader) -> Self {
        let mut this = Self {
            actual: Actual::default(),
            reader,
            now: Snapshot::new(),
            stale: BTreeSet::new(),
            checks: 0,
        };
        this.now = this.reader.read(&this.actual);
        this
    }

    fn write(&mut self, write: &Write) {
        if let Write::SetEpoch { slot, epoch } = write {
            let before = self.actual.slot(*slot).epoch;
            assert!(*epoch as u32 >= before as u32, "epochs rise");
            if epoch & EPOCH_PENDING == 0 && *epoch as u32 != before as u32 {
                self.stale.remove(slot);
            }
        }
        self.actual.apply(write);
        match write {
            Write::PutDecision { key, .. } | Write::DeleteDecision { key } => {
                self.reader.known.remove(&(key.group, key.class));
            }
            Write::PutInterval { .. } | Write::PutRule { .. } | Write::DeleteRule { .. } => {
                self.reader.known.clear();
            }
            _ => {}
        }
        if matches!(write, Write::PutId { .. } | Write::DeleteId { .. }) {
            return;
        }
        let now = self.reader.read(&self.actual);
        for i in (0..now.len()).filter(|i| self.now[*i] != now[*i]) {
            self.stale.insert(self.reader.cell(i).0);
        }
        self.now = now;
        // Whoever comes after a crash finds which epochs are to rise.
        for slot in &self.stale {
            let marked = self.actual.slot(*slot).epoch & EPOCH_PENDING != 0;
            assert!(
                marked,
                "after {write:?}: slot {slot} is stale and not marked"
            );
        }
    }

    /// Performs `writes`; after each the verdicts are those of one of `allowed`.
    fn perform<'a>(
        &mut self,
        writes: impl Iterator<Item = &'a Write>,
        allowed: &[&Snapshot],
        context: &str,
    ) {
        for (i, write) in writes.enumerate() {
            self.write(write);
            self.checks += 1;
            for (cell, row) in self.now.iter().enumerate() {
                assert!(
                    allowed.iter().any(|snapshot| snapshot[cell] == *row),
                    "{context}: after write {i}, {write:?}, {:?} is neither old nor new",
                    self.reader.cell(cell)
                );
            }
        }
    }
}

fn is_neutral(write: &Write) -> bool {
    !matches!(write, Write::SetGroups { .. })
}

/// An agent, and what it knows.
struct Agent {
    index: Index,
    established: Established,
    /// What it compiled last is in force.
    known: bool,
}

impl Agent {
    /// One that knows nothing yet.
    fn new() -> Self {
        Self {
            index: Index::new(NODE),
            established: Established::Apply,
            known: false,
        }
    }

    fn plan(&self, kernel: &Kernel) -> Plan {
        if !self.known {
            return self.whole_plan(kernel);
        }
        let desired = self.index.desired();
        plan_changes(
            &kernel.actual,
            desired,
            &Limits::default(),
            self.established,
        )
        .unwrap()
    }

    /// Made from all that there is, whatever is known.
    fn whole_plan(&self, kernel: &Kernel) -> Plan {
        let desired = self.index.desired();
        plan_within(
            &kernel.actual,
            desired,
            &Limits::default(),
            self.established,
        )
        .unwrap()
    }

    fn sweep(&self, kernel: &Kernel) -> Vec<Write> {
        let desired = self.index.desired();
        sweep_within(
            &kernel.actual,
            desired,
            &Limits::default(),
            self.established,
        )
    }

    /// Another one, which knows only the objects.
    fn restart(&mut self, world: &World, rng: &mut Rng) {
        self.index = world.index(rng);
        self.known = false;
        self.established = match rng.percent(30) {
            true => Established::Keep,
            false => Established::Apply,
        };
    }
}

fn raises_epoch(write: &Write) -> bool {
    matches!(write, Write::SetEpoch { epoch, .. } if epoch & EPOCH_PENDING == 0)
}

/// One change of the world: the kernel gets there, on the way perhaps cut off several times.
fn change(kernel: &mut Kernel, world: &World, agent: &mut Agent, rng: &mut Rng, context: &str) {
    let mut target = kernel
        .reader
        .read_other(&from_nothing(agent.index.compile()));
    let mut old = kernel.now.clone();
    loop {
        let plan = agent.plan(kernel);
        let keeps = agent.established == Established::Keep;
        assert!(plan.extend.iter().all(is_neutral), "{context}");
        let before = kernel.now.clone();
        let writes: Vec<Write> = plan.writes().cloned().collect();
        assert!(!keeps || !writes.iter().any(raises_epoch), "{context}");
        let cut = if rng.percent(45) {
            rng.below(writes.len() + 1)
        } else {
            writes.len()
        };
        let (kept, lost) = writes.split_at(cut);
        kernel.perform(kept.iter(), &[&old, &target], context);
        // Only flip and follow change verdicts.
        if cut == plan.extend.len() {
            assert_eq!(kernel.now, before, "{context}: extend changed verdicts");
        }
        if lost.is_empty() {
            break;
        }
        agent.restart(world, rng);
        let next = kernel
            .reader
            .read_other(&from_nothing(agent.index.compile()));
        if next != target {
            // It has forgotten a pod that is gone, so that this is another change.
            old.clone_from(&kernel.now);
            target = next;
        }
    }
    assert_eq!(
        kernel.now, target,
        "{context}: the end is not what was wanted"
    );
    agent.index.settled();
    agent.known = true;
    check_end(kernel, agent, &target, rng, context);
}

/// All is done, and perhaps swept.
fn check_end(kernel: &mut Kernel, agent: &Agent, end: &Snapshot, rng: &mut Rng, context: &str) {
    let stale = &kernel.stale;
    assert!(
        agent.established == Established::Keep || stale.is_empty(),
        "{context}: epochs of {stale:?} are stale"
    );
    let left = agent.whole_plan(kernel);
    assert!(left.is_empty(), "{context}: not settled: {left:?}");
    if rng.percent(50) {
        kernel.actual.settle();
        let writes = agent.sweep(kernel);
        kernel.perform(writes.iter(), &[end], context);
        let left = agent.whole_plan(kernel);
        assert!(left.is_empty(), "{context}: swept too much: {left:?}");
        assert_eq!(agent.sweep(kernel), [], "{context}: swept too little");
    }
}

/// A world, and what it becomes step by step.
fn history(rng: &mut Rng, coverage: &mut Coverage) -> Vec<World> {
    let mut worlds = vec![World::random(rng, coverage)];
    for _ in 1..STEPS {
        let mut next = worlds.last().unwrap().clone();
        next.mutate(rng, coverage);
        worlds.push(next);
    }
    worlds
}

#[test]
fn every_prefix_of_every_plan_gives_old_or_new_verdicts() {
    let mut coverage = Coverage::default();
    let mut checks = 0;
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed ^ 0x5eed_0000);
        let worlds = history(&mut rng, &mut coverage);
        let addresses = worlds.iter().flat_map(World::addresses).collect();
        let mut kernel = Kernel::new(Reader::new(&addresses));
        let mut agent = Agent::new();
        let mut last = World::default();
        for (step, world) in worlds.iter().enumerate() {
            for event in world.events_from(&last, &mut rng) {
                let _ = agent.index.apply(event);
                if rng.percent(5) {
                    let _ = agent.index.compile();
                }
            }
            if rng.percent(30) {
                agent.restart(world, &mut rng);
            }
            let context = format!("seed {seed} step {step}");
            change(&mut kernel, world, &mut agent, &mut rng, &context);
            last = world.clone();
        }
        checks += kernel.checks;
    }
    println!("{checks} prefixes");
    assert!(checks > 50_000, "{checks} prefixes");
}

/// Another change comes while one is cut off: old is then, of each (endpoint, address), what held when
/// the last plan was made.
#[test]
fn a_plan_that_is_cut_off_by_another_change_gives_old_or_new_verdicts() {
    let mut coverage = Coverage::default();
    let mut cuts = 0;
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed ^ 0xcafe_0000);
        let worlds = history(&mut rng, &mut coverage);
        let addresses = worlds.iter().flat_map(World::addresses).collect();
        let mut kernel = Kernel::new(Reader::new(&addresses));
        let mut agent = Agent::new();
        let mut last = World::default();
        for step in 0..4 * STEPS {
            // Neighbours, so that the same objects come and go.
            let world = &worlds[rng.below(STEPS)];
            for event in world.events_from(&last, &mut rng) {
                let _ = agent.index.apply(event);
            }
            last = world.clone();
            if rng.percent(20) {
                agent.restart(world, &mut rng);
            }
            let context = format!("seed {seed} step {step}");
            let end = from_nothing(agent.index.compile());
            let target = kernel.reader.read_other(&end);
            let old = kernel.now.clone();
            let writes: Vec<Write> = agent.plan(&kernel).writes().cloned().collect();
            let cut = match rng.percent(60) {
                true => rng.below(writes.len() + 1),
                false => writes.len(),
            };
            kernel.perform(writes[..cut].iter(), &[&old, &target], &context);
            if cut < writes.len() {
                cuts += 1;
                agent.known = false;
                continue;
            }
            assert_eq!(kernel.now, target, "{context}: not what was wanted");
            agent.index.settled();
            agent.known = true;
            check_end(&mut kernel, &agent, &target, &mut rng, &context);
        }
    }
    assert!(cuts > 1000, "{cuts} cuts");
}
