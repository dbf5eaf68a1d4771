//! What can go once nothing refers to it.

use std::collections::{BTreeSet, HashSet};

use weir_abi::policy::{ClassId, GroupId, IdKey, IdKind, RuleId, RuleVerdict};

use crate::actual::Actual;
use crate::write::Write;

/// Deletes rows of groups and classes that are not in use, then names and numbers that no row
/// left has.
pub(super) fn unused(actual: &Actual) -> Vec<Write> {
    let groups: HashSet<GroupId> = actual.groups_in_use().collect();
    let classes: HashSet<ClassId> = actual.classes_in_use().collect();
    let mut rules: HashSet<RuleId> = HashSet::new();
    let mut rows = BTreeSet::new();
    for (key, decision) in &actual.decisions {
        if !groups.contains(&key.group) || !classes.contains(&key.class) {
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
    let is_unused = |(key, id): &(&IdKey, &u32)| {
        let kind = key.kind;
        (kind == IdKind::Group as u32 && !groups.contains(&GroupId(**id)))
            || (kind == IdKind::Class as u32 && !classes.contains(&ClassId(**id)))
            || (kind == IdKind::Rule as u32 && !rules.contains(&RuleId(**id)))
    };
    let ids: BTreeSet<IdKey> = actual
        .ids
        .iter()
        .filter(is_unused)
        .map(|(key, _)| *key)
        .collect();
    let rows = rows.into_iter().map(|key| Write::DeleteDecision { key });
    let names = names.into_iter().map(|id| Write::DeleteRule { id });
    let ids = ids.into_iter().map(|key| Write::DeleteId { key });
    rows.chain(names).chain(ids).collect()
}
