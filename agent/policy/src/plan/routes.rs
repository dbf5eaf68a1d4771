//! How the addresses of one class get to another.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::policy::{ClassId, DecisionKey, GroupId, IdKind, PolicySlot};

use super::planner::Planner;
use super::tables::TableId;
use crate::hash::{ContentHasher, Key};
use crate::limits::CapacityError;
use crate::slab::Number;

/// How the addresses of one class get to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route {
    /// At once: no verdict of the old groups changes by it.
    Direct,
    /// After the flip, in one step.
    Late,
    /// At once to a class of its own, with old verdicts for old and new ones for new groups, and
    /// from there after the flip; whether that changes verdicts.
    Via(ClassId, bool),
}

impl Planner<'_> {
    /// The groups, of before or after, whose rows of `from` as they are and of `to` (`class`), as they
    /// are and as they are to be, are not all the world's, or all the one base's that they share.
    fn groups_about(&self, from: ClassId, to: ClassId, class: Number) -> BTreeSet<GroupId> {
        let mut kernel = vec![from, to];
        let mut compiled = vec![class];
        if from.base() != to.base() {
            kernel.extend([from.base(), to.base()]);
            compiled.push(self.desired.base(class));
        }
        let usage = &self.actual.usage;
        let mut groups: BTreeSet<GroupId> = kernel
            .into_iter()
            .filter(|class| *class != ClassId::WORLD)
            .flat_map(|class| usage.groups_of.of(class))
            .collect();
        let compiled = compiled
            .into_iter()
            .filter(|class| *class != crate::desired::WORLD)
            .filter_map(|class| self.desired.classes.get(class))
            .flat_map(|class| &class.groups);
        groups.extend(compiled.filter_map(|group| self.groups.get(group).copied()));
        groups
    }

    /// A base's row that is put right in follow is no default before that: whatever stands on these
    /// bases, and is not to change with them, gets a row of its own.
    pub fn keep_apart(&mut self, bases: &BTreeSet<ClassId>) -> Result<(), CapacityError> {
        let desired = self.desired;
        let mut compiled = BTreeMap::new();
        for (number, class) in desired.classes.iter() {
            if class.base.is_some() {
                let id = self.class_id(number)?;
                compiled.extend(bases.contains(&id.base()).then_some((id, number)));
            }
        }
        let usage = &self.actual.usage;
        let used = usage.classes.iter();
        let mut classes: BTreeSet<ClassId> = used.filter(|c| bases.contains(&c.base())).collect();
        classes.extend(compiled.keys());
        let wrong: Vec<_> = self.repairs.iter().map(|(key, row)| (*key, *row)).collect();
        for (DecisionKey { group, class: base }, repaired) in wrong {
            let Some(number) = self.new.get(&group).copied() else {
                continue;
            };
            for class in classes.iter().filter(|c| c.base() == base && **c != base) {
                let key = DecisionKey {
                    group,
                    class: *class,
                };
                let wanted = match compiled.get(class) {
                    Some(class) => Some(self.wanted(number, *class)?),
                    None => None,
                };
                let row = if usage.reaches(*class) {
                    let now = self.current(group, *class);
                    // Else it changes with its base, or by a row of its own before that.
                    let stays = wanted.is_none_or(|wanted| wanted == now);
                    Some(now).filter(|now| stays && *now != repaired)
                } else {
                    wanted
                };
                if let Some(row) = row {
                    self.fresh.insert(key, row);
                }
            }
        }
        Ok(())
    }

    /// Finds the groups, in use before and after, for which these addresses change their verdict.
    pub fn find_changed(
        &mut self,
        from: ClassId,
        to: ClassId,
        class: Number,
    ) -> Result<(), CapacityError> {
        for group in self.groups_about(from, to, class) {
            let Some(number) = self.new.get(&group).copied() else {
                continue;
            };
            if self.actual.usage.groups.has(group)
                && self.current(group, from) != self.wanted(number, class)?
            {
                self.changed.insert(group);
            }
        }
        Ok(())
    }

    /// A slot that joins a group whose verdicts are about to change would see the old ones, which
    /// were never its own: it joins a stand-in that has the new ones from the start.
    pub fn make_aliases(&mut self) -> Result<(), CapacityError> {
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
            let Some(number) = self.new.get(&group).copied() else {
                continue;
            };
            let desired = self.desired;
            let Some(compiled) = desired.groups.get(number) else {
                continue;
            };
            let alias = self.alias_of(compiled.key)?;
            // A number that was in use before may have rows that were copied for it then.
            let left = self.left_rows(&[(number, alias)])?;
            let left = left.into_iter().map(|(_, class)| class);
            let classes: BTreeSet<Number> = compiled.rows.keys().copied().chain(left).collect();
            for class in &classes {
                let key = DecisionKey {
                    group: alias,
                    class: self.class_id(*class)?,
                };
                let wanted = self.wanted(number, *class)?;
                self.fresh.insert(key, wanted);
            }
            self.aliases.insert(group, alias);
        }
        Ok(())
    }

    /// A number, for a stand-in of a group, that no slot is in.
    fn alias_of(&mut self, content: Key) -> Result<GroupId, CapacityError> {
        for attempt in 0.. {
            let mut hasher = ContentHasher::new("stand-in");
            let key = hasher.field(&content).number(attempt).finish();
            let known = self.ids.known(IdKind::Group, key);
            if !known.is_some_and(|id| self.actual.usage.groups.has(GroupId(id))) {
                return Ok(GroupId(self.ids.number(IdKind::Group, key)?));
            }
        }
        Ok(GroupId::CLOSED)
    }

    /// Whether addresses can change their class before the flip with no change of verdict. Rows
    /// that only groups of before have and that are missing are then copied.
    pub fn move_at_once(
        &mut self,
        from: ClassId,
        to: ClassId,
        class: Number,
    ) -> Result<bool, CapacityError> {
        let mut groups = self.groups_about(from, to, class);
        let copied = self
            .copied
            .range((to, GroupId(0))..=(to, GroupId(u32::MAX)));
        groups.extend(copied.map(|(_, group)| *group));
        let mut copies = Vec::new();
        for group in groups {
            if !self.actual.usage.groups.has(group) {
                continue;
            }
            let now = self.current(group, from);
            let key = DecisionKey { group, class: to };
            let then = if self.actual.usage.reaches(to) {
                self.current(group, to)
            } else if let Some(number) = self.new.get(&group).copied() {
                self.wanted(number, class)?
            } else if let Some(copied) = self.fresh.get(&key) {
                *copied
            } else if self.entered.contains(&to) {
                // Others have moved there already, by what holds without a row.
                let fresh = std::mem::take(&mut self.fresh);
                let default = self.default_row(&fresh, key);
                self.fresh = fresh;
                default.unwrap_or_else(|| self.tables.no_row())
            } else {
                copies.push((key, now));
                now
            };
            if now != then {
                return Ok(false);
            }
        }
        self.copied
            .extend(copies.iter().map(|(key, _)| (to, key.group)));
        self.fresh.extend(copies);
        self.entered.insert(to);
        Ok(true)
    }

    /// A class for the time between: old verdicts for the groups of before, new ones for those
    /// that are only of after.
    pub fn transition(
        &mut self,
        from: ClassId,
        to: ClassId,
        class: Number,
    ) -> Result<Route, CapacityError> {
        let mut rows: BTreeMap<GroupId, TableId> = BTreeMap::new();
        let mut changes = false;
        for group in self.groups_about(from, to, class) {
            let number = self.new.get(&group).copied();
            let wanted = match number {
                Some(number) => Some(self.wanted(number, class)?),
                None => None,
            };
            if let (Some(alias), Some(wanted)) = (self.aliases.get(&group), wanted) {
                rows.insert(*alias, wanted);
            }
            if self.actual.usage.groups.has(group) {
                let now = self.current(group, from);
                changes |= wanted.is_some_and(|wanted| wanted != now);
                rows.insert(group, now);
            } else if let Some(wanted) = wanted {
                rows.insert(group, wanted);
            }
        }
        let base = to.base();
        let own_rows = self.without_defaults(rows, base);
        let mut hasher = ContentHasher::new("transition");
        hasher.number(base.0.into());
        for (group, table) in &own_rows {
            self.tables.hash(*table, hasher.number(group.0.into()));
        }
        let class = self.ids.class(hasher.finish(), base)?;
        for (group, table) in own_rows {
            self.fresh.insert(DecisionKey { group, class }, table);
        }
        Ok(Route::Via(class, changes))
    }

    /// The rows that are not what a class on `base` has by itself.
    fn without_defaults(
        &mut self,
        mut rows: BTreeMap<GroupId, TableId>,
        base: ClassId,
    ) -> BTreeMap<GroupId, TableId> {
        let fresh = std::mem::take(&mut self.fresh);
        rows.retain(|group, table| {
            let row = DecisionKey {
                group: *group,
                class: base,
            };
            let own = match fresh.get(&row) {
                Some(own) => Some(*own),
                None => self
                    .actual
                    .decisions
                    .get(&row)
                    .map(|d| self.tables.of_row(*d)),
            };
            self.repairs.contains_key(&row)
                || own.or_else(|| self.default_row(&fresh, row)) != Some(*table)
        });
        self.fresh = fresh;
        rows
    }
}
