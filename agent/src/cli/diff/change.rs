//! Which verdicts change, unit by unit.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::blocks::{Block, blocks};
use crate::cli::reach::{Causes, Compiled, PortSet, Tables, Unit};

/// What becomes of a flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Turn {
    Denied,
    Allowed,
}

/// Ports of one flow that turn alike.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Stretch {
    pub ports: PortSet,
    pub after: Causes,
    /// None where it is not asked for: then stretches that differ in it only are one.
    pub before: Option<Causes>,
}

/// Which ports turn, and over which family (0: IPv4, 1: IPv6); none: over each that both ends have.
pub(super) type Effect = (Option<usize>, Rc<[Stretch]>);

/// Ends between which the same changes. Each of `from` to each of `to`, but for a pod to itself and a
/// node to its own pods.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub turn: Turn,
    pub from: Vec<usize>,
    pub to: Vec<usize>,
    pub pairs: usize,
    pub effects: Vec<Effect>,
}

/// All that changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub all: Vec<Change>,
    /// Pairs of ends that were compared.
    pub compared: usize,
    /// Those where something changes.
    pub changed: usize,
}

/// How much to tell apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Detail {
    /// What decides after the change.
    After,
    /// And what decided before.
    Both,
}

/// Pairs of a source and a target.
type Pairs = Vec<(usize, usize)>;
/// The stretches of one flow that turn to denied, and to allowed.
type Turned = [Rc<[Stretch]>; 2];
/// The tables of a flow before (egress, ingress) and after.
type Judged = [(u32, u32); 2];

struct Comparer<'a> {
    tables: &'a mut Tables,
    detail: Detail,
    known: HashMap<Judged, Turned>,
}

/// Compares two worlds, `[before, after]`, over all pairs of units.
pub(super) fn changes(
    units: &[Unit],
    worlds: &mut [Compiled; 2],
    tables: &mut Tables,
    detail: Detail,
) -> Changes {
    let mut comparer = Comparer {
        tables,
        detail,
        known: HashMap::new(),
    };
    let mut changes = Changes::default();
    let mut alike: BTreeMap<(Turn, Vec<Effect>), Pairs> = BTreeMap::new();
    for (from, source) in units.iter().enumerate() {
        for (to, target) in units.iter().enumerate() {
            let pairs = source.pairs_to(target);
            if pairs == 0 {
                continue;
            }
            changes.compared += pairs;
            let effects = comparer.pair(source, target, worlds);
            let mut any = false;
            for (turn, effects) in [Turn::Denied, Turn::Allowed].into_iter().zip(effects) {
                if !effects.is_empty() {
                    any = true;
                    alike.entry((turn, effects)).or_default().push((from, to));
                }
            }
            changes.changed += if any { pairs } else { 0 };
        }
    }
    for ((turn, effects), pairs) in alike {
        let lone = |unit: usize| units[unit].is_pods() && units[unit].members.len() == 1;
        for Block { from, to } in blocks(&pairs, lone) {
            let ends = from.iter().flat_map(|f| to.iter().map(move |t| (f, t)));
            changes.all.push(Change {
                turn,
                pairs: ends.map(|(f, t)| units[*f].pairs_to(&units[*t])).sum(),
                from,
                to,
                effects: effects.clone(),
            });
        }
    }
    changes
        .all
        .sort_by(|a, b| (a.turn, &a.to, &a.from).cmp(&(b.turn, &b.to, &b.from)));
    changes
}

impl Comparer<'_> {
    /// What turns between two units: to denied, and to allowed.
    fn pair(&mut self, from: &Unit, to: &Unit, worlds: &mut [Compiled; 2]) -> [Vec<Effect>; 2] {
        let mut found: [[Option<Rc<[Stretch]>>; 2]; 2] = Default::default();
        for family in [0, 1] {
            let mut of = |world: usize| {
                worlds[world].tables(&from.views[world], &to.views[world], family, self.tables)
            };
            // An address that comes or goes is no verdict that changes.
            let (Some(before), Some(after)) = (of(0), of(1)) else {
                continue;
            };
            let turned = if before == after {
                Default::default()
            } else {
                self.turned([before, after])
            };
            for (found, stretches) in found.iter_mut().zip(turned) {
                found[family] = Some(stretches);
            }
        }
        found.map(|[v4, v6]| match (v4, v6) {
            (Some(v4), Some(v6)) if v4 == v6 => effect(None, v4),
            (Some(v4), Some(v6)) => {
                let mut both = effect(Some(0), v4);
                both.extend(effect(Some(1), v6));
                both
            }
            (Some(one), None) | (None, Some(one)) => effect(None, one),
            (None, None) => Vec::new(),
        })
    }

    fn turned(&mut self, judged: Judged) -> Turned {
        if let Some(known) = self.known.get(&judged) {
            return known.clone();
        }
        let [before, after] = judged;
        let before = self.tables.flow(before.0, before.1);
        let after = self.tables.flow(after.0, after.1);
        let mut found: [BTreeMap<(Causes, Option<Causes>), PortSet>; 2] = Default::default();
        let (mut b, mut a) = (0, 0);
        while let (Some(old), Some(new)) = (before.get(b), after.get(a)) {
            let (start, end) = (old.0.max(new.0), old.1.min(new.1));
            let turn = match (old.2.allow(), new.2.allow()) {
                (true, false) => Some(0),
                (false, true) => Some(1),
                _ => None,
            };
            if let Some(turn) = turn {
                let key = match self.detail {
                    Detail::Both => (new.2, Some(old.2)),
                    Detail::After => (new.2.decisive(), None),
                };
                let ports = found[turn].entry(key).or_default();
                ports.push(start, end);
            }
            b += usize::from(old.1 == end);
            a += usize::from(new.1 == end);
        }
        let turned = found.map(|stretches| {
            let stretch = |((after, before), ports)| Stretch {
                ports,
                after,
                before,
            };
            stretches
                .into_iter()
                .map(stretch)
                .collect::<Rc<[Stretch]>>()
        });
        self.known.insert(judged, turned.clone());
        turned
    }
}

fn effect(family: Option<usize>, stretches: Rc<[Stretch]>) -> Vec<Effect> {
    if stretches.is_empty() {
        return Vec::new();
    }
    vec![(family, stretches)]
}
