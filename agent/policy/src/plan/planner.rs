//! How a plan is made. `docs/policy.md` says why it is right.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use weir_abi::policy::{ClassId, DecisionKey, GroupId, IdKind, PolicySlot, RuleId};

use super::Plan;
use super::ids::Ids;
use super::moves::{Move, moves};
use super::sizes::check_sizes;
use super::slots::{SlotChange, slots};
use super::tables::{TableId, Tables};
use crate::actual::Actual;
use crate::desired::Desired;
use crate::established::Established;
use crate::hash::{ContentHasher, Key};
use crate::limits::{CapacityError, Limits};
use crate::write::Write;

pub(super) struct Planner<'a> {
    actual: &'a Actual,
    limits: &'a Limits,
    established: Established,
    ids: Ids<'a>,
    tables: Tables<'a>,
    rules: Vec<Write>,
    /// The kernel's number of each desired class.
    classes: Vec<ClassId>,
    /// The compiled tables, group by group.
    rows: Vec<TableId>,
    /// Groups that a slot is in.
    old: BTreeSet<GroupId>,
    /// Groups that a slot is to be in, with their index in `Desired` and their content.
    new: BTreeMap<GroupId, (usize, Key)>,
    /// Classes that an address has.
    reachable: HashSet<ClassId>,
    slots: Vec<SlotChange>,
    moves: Vec<Move>,
    /// Rows that nothing refers to yet, or that are what they were.
    fresh: BTreeMap<DecisionKey, TableId>,
    /// Rows in use that are not what they ought to be.
    repairs: BTreeMap<DecisionKey, TableId>,
    /// Groups before and after of which some verdict changes.
    changed: BTreeSet<GroupId>,
    /// Stand-ins for groups of `changed` that a slot is to join.
    aliases: BTreeMap<GroupId, GroupId>,
}

/// How the addresses of one class get to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route {
    /// At once: no verdict of the old groups changes by it.
    Direct,
    /// After the flip, in one step.
    Late,
    /// At once to a class of its own, with old verdicts for old and new ones for new groups, and
    /// from there after the flip; whether that changes verdicts.
    Via(ClassId, bool),
}

impl<'a> Planner<'a> {
    pub fn new(
        actual: &'a Actual,
        desired: &'a Desired,
        limits: &'a Limits,
        established: Established,
    ) -> Self {
        let mut ids = Ids::new(actual);
        let mut tables = Tables::new(actual, limits);
        let mut rules = Vec::new();
        let numbers = rule_numbers(actual, desired, &mut ids, &mut rules);
        let number = |key: &Key| numbers.get(key).copied().unwrap_or_default();
        let rows = desired
            .rows
            .iter()
            .map(|table| tables.of_table(table, number))
            .collect();
        let groups: Vec<GroupId> = desired
            .groups
            .iter()
            .map(|key| GroupId(ids.number(IdKind::Group, *key)))
            .collect();
        let of_class = |(i, key): (usize, &Key)| match i {
            0 => ClassId::WORLD,
            _ => ClassId(ids.number(IdKind::Class, *key)),
        };
        let classes: Vec<ClassId> = desired.classes.iter().enumerate().map(of_class).collect();
        let moves = moves(actual, desired, &classes);
        let indexed = groups.iter().zip(&desired.groups).enumerate();
        Self {
            actual,
            limits,
            established,
            ids,
            tables,
            rules,
            classes,
            rows,
            old: actual.groups_in_use().collect(),
            new: indexed.map(|(i, (id, key))| (*id, (i, *key))).collect(),
            reachable: actual.classes_in_use().collect(),
            slots: slots(actual, desired, &groups),
            moves,
            fresh: BTreeMap::new(),
            repairs: BTreeMap::new(),
            changed: BTreeSet::new(),
            aliases: BTreeMap::new(),
        }
    }

    /// The row as it is in the kernel.
    fn current(&mut self, group: GroupId, class: ClassId) -> TableId {
        match self.actual.decisions.get(&DecisionKey { group, class }) {
            Some(decision) => self.tables.of_row(*decision),
            None => self.tables.no_row(),
        }
    }

    /// The row as it is compiled.
    fn wanted(&self, group: usize, class: usize) -> TableId {
        self.rows[group * self.classes.len() + class]
    }

    pub fn plan(mut self) -> Result<Plan, CapacityError> {
        let index: HashMap<ClassId, usize> = self
            .classes
            .iter()
            .enumerate()
            .map(|(i, class)| (*class, i))
            .collect();
        self.fill_rows();
        let pairs: BTreeSet<(ClassId, ClassId)> = self
            .moves
            .iter()
            .map(|m| (m.from, m.to))
            .filter(|(from, to)| from != to)
            .collect();
        self.find_changed(&pairs, &index);
        let flips = self.slots.iter().any(SlotChange::flips);
        self.make_aliases();
        let mut routes = BTreeMap::new();
        for (from, to) in pairs {
            let route = if self.move_at_once(from, to, index[&to]) {
                Route::Direct
            } else if flips {
                self.transition(from, index[&to])
            } else {
                Route::Late
            };
            routes.insert((from, to), route);
        }
        self.write(&routes)
    }

    /// Decides of every row of a new group how it comes to be.
    fn fill_rows(&mut self) {
        let (new, classes) = (self.new.clone(), self.classes.clone());
        for (group, (g, _)) in new {
            let in_use = self.old.contains(&group);
            for (c, class) in classes.iter().enumerate() {
                let key = DecisionKey {
                    group,
                    class: *class,
                };
                let wanted = self.wanted(g, c);
                if !in_use || !self.reachable.contains(class) {
                    self.fresh.insert(key, wanted);
                } else if self.current(group, *class) != wanted {
                    self.repairs.insert(key, wanted);
                    self.changed.insert(group);
                }
            }
        }
    }

    /// Finds the groups, in use before and after, for which an address changes its verdict.
    fn find_changed(
        &mut self,
        pairs: &BTreeSet<(ClassId, ClassId)>,
        index: &HashMap<ClassId, usize>,
    ) {
        for (group, (g, _)) in self.new.clone() {
            if self.old.contains(&group)
                && pairs
                    .iter()
                    .any(|(from, to)| self.current(group, *from) != self.wanted(g, index[to]))
            {
                self.changed.insert(group);
            }
        }
    }

    /// A slot that joins a group whose verdicts are about to change would see the old ones, which
    /// were never its own: it joins a stand-in that has the new ones from the start.
    fn make_aliases(&mut self) {
        let mut joined = BTreeSet::new();
        for change in &self.slots {
            let (ingress, egress) = PolicySlot::unpack(change.old.groups);
            for (old, new) in [(ingress, change.new.0), (egress, change.new.1)] {
                if old != new && self.changed.contains(&new) {
                    joined.insert(new);
                }
            }
        }
        for group in joined {
            let (g, content) = self.new[&group];
            let alias = self.alias_of(content);
            for (c, class) in self.classes.clone().into_iter().enumerate() {
                let wanted = self.wanted(g, c);
                self.fresh.insert(
                    DecisionKey {
                        group: alias,
                        class,
                    },
                    wanted,
                );
            }
            self.aliases.insert(group, alias);
        }
    }

    /// A number, for a stand-in of a group, that no slot is in.
    fn alias_of(&mut self, content: Key) -> GroupId {
        for attempt in 0.. {
            let mut hasher = ContentHasher::new("stand-in");
            let key = hasher.field(&content).number(attempt).finish();
            let known = self.ids.known(IdKind::Group, key);
            if !known.is_some_and(|id| self.old.contains(&GroupId(id))) {
                return GroupId(self.ids.number(IdKind::Group, key));
            }
        }
        GroupId::CLOSED
    }

    /// Whether addresses can change their class before the flip with no change of verdict. Rows
    /// that only groups of before have and that are missing are then copied.
    fn move_at_once(&mut self, from: ClassId, to: ClassId, c: usize) -> bool {
        let mut copies = Vec::new();
        for group in self.old.clone() {
            let now = self.current(group, from);
            let key = DecisionKey { group, class: to };
            let then = if self.reachable.contains(&to) {
                self.current(group, to)
            } else if let Some((g, _)) = self.new.get(&group) {
                self.wanted(*g, c)
            } else if let Some(copied) = self.fresh.get(&key) {
                *copied
            } else {
                copies.push((key, now));
                now
            };
            if now != then {
                return false;
            }
        }
        self.fresh.extend(copies);
        true
    }

    /// A class for the time between: old verdicts for the groups of before, new ones for those
    /// that are only of after.
    fn transition(&mut self, from: ClassId, c: usize) -> Route {
        let mut rows: BTreeMap<GroupId, TableId> = BTreeMap::new();
        let mut changes = false;
        for (group, (g, _)) in &self.new {
            let wanted = self.wanted(*g, c);
            rows.insert(*group, wanted);
            if let Some(alias) = self.aliases.get(group) {
                rows.insert(*alias, wanted);
            }
        }
        for group in self.old.clone() {
            let now = self.current(group, from);
            changes |= rows.insert(group, now).is_some_and(|wanted| wanted != now);
        }
        let mut hasher = ContentHasher::new("transition");
        for (group, table) in &rows {
            self.tables.hash(*table, hasher.number(group.0.into()));
        }
        let class = ClassId(self.ids.number(IdKind::Class, hasher.finish()));
        for (group, table) in rows {
            self.fresh.insert(DecisionKey { group, class }, table);
        }
        Route::Via(class, changes)
    }

    /// The rows that differ from the kernel's, as writes.
    fn row_writes(
        &mut self,
        rows: BTreeMap<DecisionKey, TableId>,
    ) -> Result<Vec<Write>, CapacityError> {
        let mut writes = Vec::new();
        for (key, table) in rows {
            if self.current(key.group, key.class) != table {
                let decision = self.tables.place(table)?;
                writes.push(Write::PutDecision { key, decision });
            }
        }
        Ok(writes)
    }

    fn write(
        mut self,
        routes: &BTreeMap<(ClassId, ClassId), Route>,
    ) -> Result<Plan, CapacityError> {
        let fresh = std::mem::take(&mut self.fresh);
        let fresh = self.row_writes(fresh)?;
        let repairs = std::mem::take(&mut self.repairs);
        let mut plan = Plan {
            follow: self.row_writes(repairs)?,
            ..Plan::default()
        };
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
        let mut deletions = Vec::new();
        for m in &self.moves {
            let route = routes
                .get(&(m.from, m.to))
                .copied()
                .unwrap_or(Route::Direct);
            let (at_once, later) = match route {
                Route::Direct => (Some(m.to), None),
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
            if !m.stays {
                deletions.push(m.delete());
            }
        }
        plan.follow.extend(epochs);
        plan.shrink.extend(deletions);
        check_sizes(self.actual, self.limits, &plan)?;
        Ok(plan)
    }
}

/// The kernel's numbers of all rules that tables name; new names are written.
fn rule_numbers(
    actual: &Actual,
    desired: &Desired,
    ids: &mut Ids<'_>,
    writes: &mut Vec<Write>,
) -> HashMap<Key, RuleId> {
    let mut numbers = HashMap::new();
    let mut seen = HashSet::new();
    for table in desired
        .rows
        .iter()
        .filter(|table| seen.insert(std::sync::Arc::as_ptr(table)))
    {
        for rule in table.iter().filter_map(|cell| cell.rule.as_ref()) {
            numbers.entry(rule.key).or_insert_with(|| {
                let id = RuleId(ids.number(IdKind::Rule, rule.key));
                if actual.rule(id) != Some(&rule.text) {
                    let text = rule.text.clone();
                    writes.push(Write::PutRule { id, text });
                }
                id
            });
        }
    }
    numbers
}
