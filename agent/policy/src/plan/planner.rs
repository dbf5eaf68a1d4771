//! How a plan is made. `docs/policy.md` says why it is right.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weir_abi::policy::{ClassId, DecisionKey, GroupId, IdKind, RuleId};

use super::Plan;
use super::ids::Ids;
use super::moves::{Move, Places, moves};
use super::routes::Route;
use super::sizes::check_sizes;
use super::slots::{SlotChange, slots};
use super::tables::{TableId, Tables};
use crate::Established;
use crate::actual::Actual;
use crate::desired::{Desired, WORLD};
use crate::hash::Key;
use crate::limits::{CapacityError, Limits};
use crate::rule::RuleName;
use crate::slab::Number;
use crate::write::Write;

/// How much a plan looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extent {
    /// Everything.
    Whole,
    /// What [`crate::desired::Touched`] names; all else is known to be in force.
    Touched,
}

/// Rows by the class and group that have them.
pub(super) type Rows = BTreeMap<DecisionKey, TableId>;

pub(super) struct Planner<'a> {
    pub actual: &'a Actual,
    pub desired: &'a Desired,
    limits: &'a Limits,
    established: Established,
    extent: Extent,
    pub ids: Ids<'a>,
    pub tables: Tables<'a>,
    /// New names of rules, and the kernel's numbers of those met.
    rules: Vec<Write>,
    rule_numbers: HashMap<Key, RuleId>,
    class_numbers: HashMap<Number, ClassId>,
    /// The kernel's numbers of the groups that a slot is to be in, and back.
    pub groups: HashMap<Number, GroupId>,
    pub new: BTreeMap<GroupId, Number>,
    pub slots: Vec<SlotChange>,
    moves: Vec<Move>,
    /// Rows that nothing refers to yet, or that are what they were.
    pub fresh: Rows,
    /// Rows in use that are not what they ought to be.
    pub repairs: Rows,
    /// Groups before and after of which some verdict changes.
    pub changed: BTreeSet<GroupId>,
    /// Stand-ins for groups of `changed` that a slot is to join.
    pub aliases: BTreeMap<GroupId, GroupId>,
    /// Groups of before for which rows of a class are copied.
    pub copied: BTreeSet<(ClassId, GroupId)>,
    /// Classes that addresses move to before the flip.
    pub entered: BTreeSet<ClassId>,
}

impl<'a> Planner<'a> {
    pub fn new(
        actual: &'a Actual,
        desired: &'a Desired,
        limits: &'a Limits,
        established: Established,
        extent: Extent,
    ) -> Self {
        Self {
            actual,
            desired,
            limits,
            established,
            extent,
            ids: Ids::new(actual),
            tables: Tables::new(actual, limits),
            rules: Vec::new(),
            rule_numbers: HashMap::new(),
            class_numbers: HashMap::new(),
            groups: HashMap::new(),
            new: BTreeMap::new(),
            slots: Vec::new(),
            moves: Vec::new(),
            fresh: Rows::new(),
            repairs: Rows::new(),
            changed: BTreeSet::new(),
            aliases: BTreeMap::new(),
            copied: BTreeSet::new(),
            entered: BTreeSet::new(),
        }
    }

    /// The kernel's number of a class.
    pub fn class_id(&mut self, class: Number) -> Result<ClassId, CapacityError> {
        if class == WORLD {
            return Ok(ClassId::WORLD);
        }
        if let Some(id) = self.class_numbers.get(&class) {
            return Ok(*id);
        }
        let desired = self.desired;
        let Some(found) = desired.classes.get(class) else {
            return Ok(ClassId::WORLD);
        };
        let id = match found.base {
            None => self.ids.base(found.key)?,
            Some(base) => {
                let base = self.class_id(base)?;
                self.ids.class(found.key, base)?
            }
        };
        self.class_numbers.insert(class, id);
        Ok(id)
    }

    /// The row as it is in the kernel.
    pub fn current(&mut self, group: GroupId, class: ClassId) -> TableId {
        match self.actual.row(group, class) {
            Some(decision) => self.tables.of_row(decision),
            None => self.tables.no_row(),
        }
    }

    /// The row as it is compiled.
    pub fn wanted(&mut self, group: Number, class: Number) -> Result<TableId, CapacityError> {
        let desired = self.desired;
        let Some(table) = desired.row(group, class) else {
            return Ok(self.tables.no_row());
        };
        let Self {
            actual,
            ids,
            rules,
            rule_numbers,
            tables,
            ..
        } = self;
        tables.of_table(table, |name: &RuleName| {
            if let Some(id) = rule_numbers.get(&name.key) {
                return Ok(*id);
            }
            let id = RuleId(ids.number(IdKind::Rule, name.key)?);
            if actual.rule(id) != Some(&name.text) {
                let text = name.text.clone();
                rules.push(Write::PutRule { id, text });
            }
            rule_numbers.insert(name.key, id);
            Ok(id)
        })
    }

    pub fn plan(mut self) -> Result<Plan, CapacityError> {
        self.number_groups()?;
        self.find_moves()?;
        self.slots = slots(self.actual, self.desired, &self.groups);
        self.fill_rows()?;
        let moves = self.moves.iter().filter(|m| m.from != m.to);
        let pairs: BTreeMap<(ClassId, ClassId), Number> =
            moves.map(|m| ((m.from, m.to), m.class)).collect();
        for ((from, to), class) in &pairs {
            self.find_changed(*from, *to, *class)?;
        }
        let flips = self.slots.iter().any(SlotChange::flips);
        self.make_aliases()?;
        let mut routes = BTreeMap::new();
        for ((from, to), class) in pairs {
            let route = if self.move_at_once(from, to, class)? {
                Route::Direct
            } else if flips {
                self.transition(from, to, class)?
            } else {
                Route::Late
            };
            routes.insert((from, to), route);
        }
        self.write(&routes)
    }

    fn number_groups(&mut self) -> Result<(), CapacityError> {
        for (number, group) in self.desired.groups.iter() {
            let id = GroupId(self.ids.number(IdKind::Group, group.key)?);
            self.groups.insert(number, id);
            self.new.insert(id, number);
        }
        Ok(())
    }

    fn find_moves(&mut self) -> Result<(), CapacityError> {
        let (actual, desired) = (self.actual, self.desired);
        let places = match self.extent {
            Extent::Whole => Places::all(actual, desired),
            Extent::Touched => Places {
                peers: desired.touched.peers.clone(),
                cidrs: desired.touched.cidrs.clone(),
            },
        };
        self.moves = moves(actual, desired, &places, |class| self.class_id(class))?;
        Ok(())
    }

    /// Decides of every row that a new group or class has how it comes to be.
    fn fill_rows(&mut self) -> Result<(), CapacityError> {
        for (group, class) in self.pairs()? {
            let Some(id) = self.groups.get(&group).copied() else {
                continue;
            };
            let key = DecisionKey {
                group: id,
                class: self.class_id(class)?,
            };
            let wanted = self.wanted(group, class)?;
            let usage = &self.actual.usage;
            if !usage.groups.has(key.group) || !usage.reaches(key.class) {
                self.fresh.insert(key, wanted);
            } else if self.current(key.group, key.class) != wanted {
                self.repairs.insert(key, wanted);
                self.changed.insert(key.group);
            }
        }
        let bases = self.repairs.keys().map(|key| key.class);
        let bases = bases.filter(|class| class.own() == 0 && *class != ClassId::WORLD);
        let bases: BTreeSet<ClassId> = bases.collect();
        match bases.is_empty() {
            true => Ok(()),
            false => self.keep_apart(&bases),
        }
    }

    /// The (group, class) to look at: those that have a row now or are to have one.
    fn pairs(&mut self) -> Result<BTreeSet<(Number, Number)>, CapacityError> {
        let desired = self.desired;
        let mut pairs = BTreeSet::new();
        let touched = |group: &Number| match self.extent {
            Extent::Whole => true,
            Extent::Touched => desired.touched.groups.contains(group),
        };
        let groups: Vec<Number> = self.groups.keys().copied().filter(touched).collect();
        for group in &groups {
            let rows = desired.groups.get(*group).into_iter();
            pairs.extend(rows.flat_map(|g| g.rows.keys().map(|class| (*group, *class))));
        }
        // A number that content has had before may still have rows of then.
        let numbered = groups
            .iter()
            .filter_map(|group| Some((*group, *self.groups.get(group)?)));
        let numbered: Vec<(Number, GroupId)> = numbered.collect();
        pairs.extend(self.left_rows(&numbered)?);
        if self.extent == Extent::Touched {
            for class in &desired.touched.classes {
                let id = self.class_id(*class)?;
                let left = self.actual.usage.groups_of.of(id);
                let left = left.filter_map(|group| self.new.get(&group).copied());
                let of_class = desired.classes.get(*class).into_iter();
                let all = of_class.flat_map(|c| c.groups.iter().copied()).chain(left);
                pairs.extend(all.map(|group| (group, *class)));
            }
        }
        Ok(pairs)
    }

    /// The classes of today for which the kernel has rows of these groups.
    pub fn left_rows(
        &mut self,
        groups: &[(Number, GroupId)],
    ) -> Result<Vec<(Number, Number)>, CapacityError> {
        let desired = self.desired;
        let left = groups.iter().flat_map(|(group, id)| {
            let classes = self.actual.usage.classes_of.of(*id);
            classes.map(move |class| (*group, class))
        });
        let left: Vec<(Number, ClassId)> = left.collect();
        if left.is_empty() {
            return Ok(Vec::new());
        }
        let mut numbers = HashMap::new();
        for (class, _) in desired.classes.iter() {
            numbers.insert(self.class_id(class)?, class);
        }
        let known = |(group, class)| Some((group, *numbers.get(&class)?));
        Ok(left.into_iter().filter_map(known).collect())
    }

    /// The rows that differ from the kernel's, as writes.
    fn row_writes(&mut self, rows: &Rows) -> Result<Vec<Write>, CapacityError> {
        let mut writes = Vec::new();
        for (key, table) in rows {
            let now = self.actual.decisions.get(key).copied();
            let now = now.map(|decision| self.tables.of_row(decision));
            let is_there = match now {
                Some(now) => now == *table,
                None => {
                    let class = key.class.base();
                    let base = DecisionKey { class, ..*key };
                    // No default to go by if it is put right later.
                    !self.repairs.contains_key(&base)
                        && self.default_row(rows, *key) == Some(*table)
                }
            };
            if !is_there {
                let decision = self.tables.place(*table)?;
                writes.push(Write::PutDecision {
                    key: *key,
                    decision,
                });
            }
        }
        Ok(writes)
    }

    /// What holds, once `rows` are written, where there is no row of this key.
    pub fn default_row(&mut self, rows: &Rows, key: DecisionKey) -> Option<TableId> {
        let DecisionKey { group, class } = key;
        let base = (class.own() != 0).then(|| class.base());
        let classes = base
            .into_iter()
            .chain((class != ClassId::WORLD).then_some(ClassId::WORLD));
        for class in classes {
            let key = DecisionKey { group, class };
            if let Some(table) = rows.get(&key) {
                return Some(*table);
            }
            if let Some(decision) = self.actual.decisions.get(&key).copied() {
                return Some(self.tables.of_row(decision));
            }
        }
        None
    }

    fn write(
        mut self,
        routes: &BTreeMap<(ClassId, ClassId), Route>,
    ) -> Result<Plan, CapacityError> {
        let fresh = std::mem::take(&mut self.fresh);
        let fresh = self.row_writes(&fresh)?;
        let repairs = std::mem::take(&mut self.repairs);
        let mut plan = Plan {
            follow: self.row_writes(&repairs)?,
            ..Plan::default()
        };
        // A base's row last: what stands on it must not go by it in between.
        plan.follow.reverse();
        plan.extend.append(&mut self.ids.writes);
        plan.extend.append(&mut self.rules);
        plan.extend.append(&mut self.tables.writes);
        plan.extend.extend(fresh);
        let mut epochs = Vec::new();
        for change in &self.slots {
            change.write(
                &self.aliases,
                &self.changed,
                self.established,
                &mut plan,
                &mut epochs,
            );
        }
        self.write_moves(routes, &mut plan);
        plan.follow.extend(epochs);
        let gone = self.moves.iter().filter(|m| !m.stays);
        plan.shrink.extend(gone.map(Move::delete));
        check_sizes(self.actual, self.limits, &plan)?;
        Ok(plan)
    }

    fn write_moves(&self, routes: &BTreeMap<(ClassId, ClassId), Route>, plan: &mut Plan) {
        let route = |m: &Move| routes.get(&(m.from, m.to)).copied();
        let late_prefix = |m: &Move| !m.is_peer() && route(m) == Some(Route::Late);
        let prefixes_change = self.moves.iter().any(late_prefix);
        for m in &self.moves {
            let (at_once, later) = match route(m).unwrap_or(Route::Direct) {
                Route::Direct => (Some(m.to), None),
                // A program that found no entry asks for the prefix next: that must not be changed
                // within the same phase.
                Route::Late if prefixes_change && !m.present && m.is_peer() => {
                    (Some(m.from), Some((m.to, true)))
                }
                Route::Late => (None, Some((m.to, true))),
                Route::Via(class, changes) => (Some(class), Some((m.to, changes))),
            };
            if let Some(class) = at_once
                && (!m.present || class != m.from)
            {
                plan.extend.push(m.put(class));
            }
            match later {
                Some((class, true)) => plan.follow.push(m.put(class)),
                Some((class, false)) => plan.shrink.push(m.put(class)),
                None => {}
            }
        }
    }
}
