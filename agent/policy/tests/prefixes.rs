//! Wherever a list of writes is cut off, each (endpoint, address) has the verdicts of before or
//! those of after; and a new plan, made from what the kernel then holds by an agent that remembers
//! nothing, goes on from there in the same way.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use support::policies::Features;
use support::rng::Rng;
use support::world::{NODE, World};
use support::{PORTS, from_nothing};
use weir_abi::policy::{ClassId, GroupId, RuleId};
use weir_abi::{Addr, Proto};
use weir_policy::{Actual, Desired, Direction, EPOCH_PENDING, Index, Write, plan, sweep};

const SEEDS: u64 = 400;
const STEPS: usize = 5;

/// Verdicts on all of [`PORTS`], with the names of the rules, under one number.
type Row = usize;
type Cell = (u32, Direction, Addr);
type Snapshot = BTreeMap<Cell, Row>;

/// Turns rows into numbers: equal verdicts by rules of equal names are equal rows, whatever the
/// rules' ids.
#[derive(Default)]
struct Reader {
    rows: HashMap<Vec<(bool, String)>, Row>,
    known: HashMap<(GroupId, ClassId), Row>,
    cells: Vec<Cell>,
}

impl Reader {
    fn new(addresses: &BTreeSet<IpAddr>) -> Self {
        let slots = (0..10).chain([99]);
        let cells = slots.flat_map(|slot| {
            let of_slot = Direction::ALL.into_iter().flat_map(|direction| {
                addresses
                    .iter()
                    .map(move |addr| (direction, Addr::from(*addr)))
            });
            of_slot.map(move |(direction, addr)| (slot, direction, addr))
        });
        Self {
            cells: cells.collect(),
            ..Self::default()
        }
    }

    fn row(&mut self, actual: &Actual, (slot, direction, addr): Cell) -> Row {
        let at = |proto, port| actual.verdict(slot, direction, addr, proto, port);
        let way = at(Proto::TCP, 80);
        if let Some(row) = self.known.get(&(way.group, way.class)) {
            return *row;
        }
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
        let row = *self.rows.entry(verdicts.collect()).or_insert(next);
        self.known.insert((way.group, way.class), row);
        row
    }

    fn read(&mut self, actual: &Actual) -> Snapshot {
        let cells = self.cells.clone();
        cells
            .into_iter()
            .map(|cell| (cell, self.row(actual, cell)))
            .collect()
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
        let now = self.reader.read(&self.actual);
        let changed = now.iter().filter(|(cell, row)| self.now[*cell] != **row);
        self.stale.extend(changed.map(|(cell, _)| cell.0));
        self.now = now;
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
            for (cell, row) in &self.now {
                assert!(
                    allowed.iter().any(|snapshot| snapshot[cell] == *row),
                    "{context}: after write {i}, {write:?}, {cell:?} is neither old nor new"
                );
            }
        }
    }
}

fn is_neutral(write: &Write) -> bool {
    !matches!(write, Write::SetGroups { .. })
}

/// One change of the world: the kernel gets there, on the way perhaps cut off several times.
fn change(kernel: &mut Kernel, world: &World, desired: Desired, rng: &mut Rng, context: &str) {
    let mut desired = desired;
    let mut target = kernel.reader.read_other(&from_nothing(&desired));
    let mut old = kernel.now.clone();
    loop {
        let plan = plan(&kernel.actual, &desired).unwrap();
        assert!(plan.extend.iter().all(is_neutral), "{context}");
        let before = kernel.now.clone();
        let writes: Vec<Write> = plan.writes().cloned().collect();
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
        // An agent that knows only the objects goes on.
        desired = world.index(rng).compile();
        let next = kernel.reader.read_other(&from_nothing(&desired));
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
    assert!(
        kernel.stale.is_empty(),
        "{context}: epochs of {:?} are stale",
        kernel.stale
    );
    assert!(
        plan(&kernel.actual, &desired).unwrap().is_empty(),
        "{context}: not settled"
    );
    if rng.percent(50) {
        kernel.actual.settle();
        let writes = sweep(&kernel.actual, &desired);
        kernel.perform(writes.iter(), &[&target], context);
        assert!(
            plan(&kernel.actual, &desired).unwrap().is_empty(),
            "{context}: swept too much"
        );
        assert_eq!(
            sweep(&kernel.actual, &desired),
            [],
            "{context}: swept too little"
        );
    }
}

#[test]
fn every_prefix_of_every_plan_gives_old_or_new_verdicts() {
    let mut features = Features::default();
    let mut checks = 0;
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed ^ 0x5eed_0000);
        let mut worlds = vec![World::random(&mut rng, &mut features)];
        for _ in 1..STEPS {
            let mut next = worlds.last().unwrap().clone();
            next.mutate(&mut rng, &mut features);
            worlds.push(next);
        }
        let addresses = worlds.iter().flat_map(World::addresses).collect();
        let mut kernel = Kernel::new(Reader::new(&addresses));
        let mut index = Index::new(NODE);
        let mut last = World::default();
        for (step, world) in worlds.iter().enumerate() {
            for event in world.events_from(&last, &mut rng) {
                let _ = index.apply(event);
                if rng.percent(5) {
                    index.compile();
                }
            }
            if rng.percent(30) {
                index = world.index(&mut rng);
            }
            let context = format!("seed {seed} step {step}");
            change(&mut kernel, world, index.compile(), &mut rng, &context);
            last = world.clone();
        }
        checks += kernel.checks;
    }
    assert!(checks > 50_000, "{checks} prefixes");
}
