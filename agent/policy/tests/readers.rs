//! A program looks at one map after the other while the agent writes: between two phases the agent
//! waits longer than that takes, within a phase anything may happen in between. Whatever it sees
//! of a phase adds up to the verdicts of before or of after.
#![allow(clippy::unwrap_used, reason = "a test's helpers may stop the test")]

use std::collections::HashMap;

use weir_abi::Addr;
use weir_abi::policy::{
    ClassId, Decision, DecisionKey, GroupId, Interval, LpmKey, PolicySlot, RuleId, RuleVerdict,
};
use weir_policy::{Actual, Established, Index, Limits, Lpm, Write, plan_changes, plan_within};
use weir_worlds::{Coverage, NODE, PORTS, Rng, World};

const SEEDS: u64 = 200;
const STEPS: usize = 6;
const READERS: usize = 150;

/// The maps as a program sees them.
#[derive(Clone, Default)]
struct Maps {
    rules: HashMap<RuleId, String>,
    intervals: HashMap<u32, Interval>,
    decisions: HashMap<DecisionKey, Decision>,
    peers: HashMap<Addr, ClassId>,
    cidrs: Lpm<ClassId>,
    slots: HashMap<u32, PolicySlot>,
}

impl Maps {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::PutId { .. } | Write::DeleteId { .. } => {}
            Write::PutRule { id, text } => drop(self.rules.insert(*id, text.clone())),
            Write::DeleteRule { id } => drop(self.rules.remove(id)),
            Write::PutInterval { at, interval } => drop(self.intervals.insert(*at, *interval)),
            Write::PutDecision { key, decision } => drop(self.decisions.insert(*key, *decision)),
            Write::DeleteDecision { key } => drop(self.decisions.remove(key)),
            Write::PutPeer { addr, class } => drop(self.peers.insert(*addr, *class)),
            Write::DeletePeer { addr } => drop(self.peers.remove(addr)),
            Write::PutCidr { key, class } => self.cidrs.insert(*key, *class),
            Write::DeleteCidr { key } => drop(self.cidrs.remove(key)),
            Write::SetGroups { slot, groups } => {
                self.slots.entry(*slot).or_default().groups = *groups
            }
            Write::SetEpoch { slot, epoch } => self.slots.entry(*slot).or_default().epoch = *epoch,
        }
    }

    fn epoch(&self, slot: u32) -> u32 {
        self.slots.get(&slot).map_or(0, |slot| slot.epoch as u32)
    }

    /// Verdicts with the names of what decides.
    fn row(&self, found: Option<Decision>) -> Row {
        let search = |key: u32| match found {
            None => RuleVerdict::default(),
            Some(Decision { at, len: 0 }) => RuleVerdict(at),
            Some(Decision { at, len }) => {
                let table = (at..at + len).map_while(|i| self.intervals.get(&i));
                let last = table.take_while(|interval| interval.start <= key).last();
                last.map_or(RuleVerdict::default(), |interval| interval.verdict)
            }
        };
        let verdicts = PORTS.iter().map(|(proto, port)| {
            let verdict = search(Interval::key(*proto, *port));
            (verdict.allowed(), self.name(verdict.rule()))
        });
        verdicts.collect()
    }

    fn name(&self, rule: RuleId) -> String {
        match rule {
            rule if rule < RuleId::FIRST_DYNAMIC => format!("{rule:?}"),
            rule => self
                .rules
                .get(&rule)
                .cloned()
                .unwrap_or_else(|| "no name".to_owned()),
        }
    }
}

/// By port: is it allowed, and by what.
type Row = Vec<(bool, String)>;

/// Where a program is with its lookup; the order is that of `ebpf/src/policy.rs`.
#[derive(Clone, Debug)]
enum At {
    Epoch,
    Groups,
    Peers(GroupId),
    Cidrs(GroupId),
    /// The classes that are still to be asked.
    Rows(GroupId, Vec<ClassId>),
    Done(Row),
}

/// A program in the middle of a lookup.
#[derive(Clone, Debug)]
struct Program {
    slot: u32,
    ingress: bool,
    addr: Addr,
    epoch: u32,
    at: At,
}

impl Program {
    fn step(&mut self, maps: &Maps) {
        let open = || {
            At::Done(vec![
                (true, format!("{:?}", RuleId::NOT_SELECTED));
                PORTS.len()
            ])
        };
        let rows =
            |group, class: ClassId| At::Rows(group, vec![ClassId::WORLD, class.base(), class]);
        self.at = match std::mem::replace(&mut self.at, At::Epoch) {
            At::Epoch => {
                self.epoch = maps.epoch(self.slot);
                At::Groups
            }
            At::Groups => {
                let slot = maps.slots.get(&self.slot).copied().unwrap_or_default();
                let (ingress, egress) = PolicySlot::unpack(slot.groups);
                match if self.ingress { ingress } else { egress } {
                    GroupId::OPEN => open(),
                    group => At::Peers(group),
                }
            }
            At::Peers(group) => match maps.peers.get(&self.addr) {
                Some(class) => rows(group, *class),
                None => At::Cidrs(group),
            },
            At::Cidrs(group) => {
                let found = maps.cidrs.longest(&LpmKey::host(self.addr));
                rows(group, found.copied().unwrap_or(ClassId::WORLD))
            }
            At::Rows(group, mut classes) => match classes.pop() {
                None => At::Done(maps.row(None)),
                Some(class) => match maps.decisions.get(&DecisionKey { group, class }) {
                    Some(found) => At::Done(maps.row(Some(*found))),
                    None => At::Rows(group, classes),
                },
            },
            At::Done(row) => At::Done(row),
        };
    }

    fn finish(mut self, maps: &Maps) -> (u32, Row) {
        loop {
            if let At::Done(row) = self.at {
                return (self.epoch, row);
            }
            self.step(maps);
        }
    }
}

/// Programs that begin and end somewhere within one phase.
struct Crowd {
    programs: Vec<Program>,
    slots: Vec<u32>,
    addresses: Vec<Addr>,
}

impl Crowd {
    fn begin(&mut self, rng: &mut Rng) {
        self.programs.push(Program {
            slot: rng.pick(&self.slots),
            ingress: rng.percent(50),
            addr: rng.pick(&self.addresses),
            epoch: 0,
            at: At::Epoch,
        });
    }

    /// Performs a phase under their eyes; what each has found.
    fn watch(&mut self, maps: &mut Maps, phase: &[Write], rng: &mut Rng) -> Vec<(Program, Row)> {
        for _ in 0..READERS {
            self.begin(rng);
        }
        let speed = rng.pick(&[3, 10, 30, 80]);
        for write in phase {
            for program in &mut self.programs {
                if rng.percent(speed) {
                    program.step(maps);
                }
            }
            maps.apply(write);
        }
        let done = self.programs.drain(..).map(|program| {
            let (epoch, row) = program.clone().finish(maps);
            (Program { epoch, ..program }, row)
        });
        done.collect()
    }
}

/// What a program finds that nobody disturbs.
fn undisturbed(program: &Program, maps: &Maps) -> Row {
    let at = At::Epoch;
    Program {
        at,
        ..program.clone()
    }
    .finish(maps)
    .1
}

#[test]
fn what_a_program_sees_of_one_phase_is_old_or_new() {
    let mut coverage = Coverage::default();
    let mut changed = 0;
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed ^ 0x4ead_0000);
        let mut world = World::random(&mut rng, &mut coverage);
        let (mut index, mut known, mut last) = (Index::new(NODE), false, World::default());
        let (mut actual, mut maps) = (Actual::default(), Maps::default());
        for step in 0..STEPS {
            for event in world.events_from(&last, &mut rng) {
                let _ = index.apply(event);
            }
            index.compile();
            let make = if known { plan_changes } else { plan_within };
            let limits = Limits::default();
            let plan = make(&actual, index.desired(), &limits, Established::Apply).unwrap();
            let before = maps.clone();
            let mut after = maps.clone();
            plan.writes().for_each(|write| after.apply(write));
            let mut addresses = world.addresses();
            addresses.extend(last.addresses());
            let mut crowd = Crowd {
                programs: Vec::new(),
                slots: world
                    .endpoints
                    .keys()
                    .chain(last.endpoints.keys())
                    .copied()
                    .collect(),
                addresses: addresses.into_iter().map(Addr::from).collect(),
            };
            for (i, phase) in plan.phases().into_iter().enumerate() {
                for (program, row) in crowd.watch(&mut maps, phase, &mut rng) {
                    let context = || format!("seed {seed} step {step} phase {i}: {program:?}");
                    let old = undisturbed(&program, &before);
                    let new = undisturbed(&program, &after);
                    changed += usize::from(old != new);
                    let raised = program.epoch != before.epoch(program.slot);
                    assert!(
                        row == new || row == old,
                        "{} {old:?} {row:?} {new:?}",
                        context()
                    );
                    assert!(
                        row == new || !raised,
                        "{}: old under the new epoch",
                        context()
                    );
                }
            }
            plan.writes().for_each(|write| actual.apply(write));
            index.settled();
            known = true;
            last = world.clone();
            world.mutate(&mut rng, &mut coverage);
        }
    }
    assert!(changed > 1000, "{changed} changes seen");
}
