//! What can go once nothing refers to it.

use std::collections::{BTreeSet, HashSet};

use weir_abi::policy::{ClassId, DecisionKey, GroupId, IdKey, IdKind, RuleId, RuleVerdict};

use crate::actual::Actual;
use crate::write::Write;

/// Deletes rows of groups and classes that are not in use and rows that say what the default does,
/// then names and numbers that no row left has.
pub(super) fn unused(actual: &Actual) -> Vec<Write> {
    let usage = &actual.usage;
    let is_unused = |key: &DecisionKey| !usage.groups.has(key.group) || !usage.reaches(key.class);
    let mut rules: HashSet<RuleId> = HashSet::new();
    let mut rows = BTreeSet::new();
    for (key, decision) in &actual.decisions {
        if is_unused(key) || is_default(actual, *key) {
            rows.insert(*key);
        } else if decision.len == 0 {
            rules.insert(RuleVerdict(decision.at).rule());
        } else {
            rules.extend(actual.region(*decision).iter().map(|i| i.verdict.rule()));
        }
    }
    let names: BTreeSet<RuleId> = actual
        .rules
        .keys()
        .filter(|rule| !rules.contains(rule))
        .copied()
        .collect();
    let has = |kind: IdKind, key: &IdKey| key.kind == kind as u32;
    let is_free = |(key, id): &(&IdKey, &u32)| {
        (has(IdKind::Group, key) && !usage.groups.has(GroupId(**id)))
            || (has(IdKind::Class, key) && !usage.reaches(ClassId(**id)))
            || (has(IdKind::Base, key) && !usage.reaches(ClassId(**id)))
            || (has(IdKind::Rule, key) && !rules.contains(&RuleId(**id)))
    };
    let ids = actual.ids.iter().filter(is_free).map(|(key, _)| *key);
    let ids: BTreeSet<IdKey> = ids.collect();
    let rows = rows.into_iter().map(|key| Write::DeleteDecision { key });
    let names = names.into_iter().map(|id| Write::DeleteRule { id });
    let ids = ids.into_iter().map(|key| Write::DeleteId { key });
    rows.chain(names).chain(ids).collect()
}

/// Whether a row of a class of its own is that of its base.
fn is_default(actual: &Actual, key: DecisionKey) -> bool {
    let DecisionKey { group, class } = key;
    class.own() != 0 && actual.decisions.get(&key).copied() == actual.row(group, class.base())
}
