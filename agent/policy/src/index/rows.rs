//! The table of every (group, class).

use std::collections::HashMap;
use std::sync::Arc;

use crate::class::{Classes, Signature};
use crate::flatten::{Matched, Table, flatten};
use crate::group::Group;
use crate::port::PortSet;
use crate::scope::Scope;

/// The tables of all groups for all classes, group by group.
pub(super) fn rows(groups: &[Arc<Group>], scope: &Scope, classes: &Classes) -> Vec<Arc<Table>> {
    let mut rows = Vec::with_capacity(groups.len() * classes.signatures.len());
    for group in groups {
        let rules = GroupRows::new(group, scope);
        // Most classes match the same rules as some other.
        let mut known: HashMap<Vec<(usize, Named)>, Arc<Table>> = HashMap::new();
        for signature in &classes.signatures {
            let matched = rules.matched(signature);
            let table = match known.get(&matched) {
                Some(table) => Arc::clone(table),
                None => {
                    let table = Arc::new(rules.table(&matched));
                    known.insert(matched, Arc::clone(&table));
                    table
                }
            };
            rows.push(table);
        }
    }
    rows
}

/// The rules of a group, by the numbers of a scope.
struct GroupRows<'a> {
    group: &'a Group,
    /// For each rule: sorted numbers of its peers, none for everyone; and of its port names.
    rules: Vec<(Option<Vec<u32>>, Vec<u32>)>,
}

impl<'a> GroupRows<'a> {
    fn new(group: &'a Group, scope: &Scope) -> Self {
        let rule = |rule: &crate::group::GroupRule| {
            let names = rule
                .named
                .iter()
                .filter_map(|name| scope.index_of(name))
                .collect();
            (scope.numbers(rule.peers.as_deref()), names)
        };
        Self {
            group,
            rules: group.rules.iter().map(rule).collect(),
        }
    }

    /// The rules that match a class, each with the ports that its names stand for (0: none).
    fn matched(&self, signature: &Signature) -> Vec<(usize, Named)> {
        let matches = |i: usize, peers: &Option<Vec<u32>>| match peers {
            None => true,
            Some(peers) => {
                let has = |peer: &u32| signature.peers.binary_search(peer).is_ok();
                peers.iter().any(has)
                    || (signature.unknown_pod && self.group.rules[i].matches_unknown_pods())
            }
        };
        let rules = self.rules.iter().enumerate();
        let matching = rules.filter(|(i, (peers, _))| matches(*i, peers));
        matching
            .map(|(i, (_, names))| {
                let rule = &self.group.rules[i];
                if signature.unknown_pod && !names.is_empty() && rule.matches_unknown_pods() {
                    return (i, Named::Any);
                }
                let found = names.iter().map(|name| signature.port(*name).unwrap_or(0));
                (i, Named::Found(found.collect()))
            })
            .collect()
    }

    fn table(&self, matched: &[(usize, Named)]) -> Table {
        let mut matches = Vec::new();
        for (i, named) in matched {
            let rule = &self.group.rules[*i];
            let ports = match named {
                Named::Any => PortSet::everything(),
                Named::Found(found) => {
                    let found = rule.named.iter().zip(found).filter(|(_, port)| **port != 0);
                    let ranges = found.map(|(name, port)| name.range(*port));
                    rule.numeric.union(&PortSet::new(ranges.collect()))
                }
            };
            matches.push(Matched {
                tier: rule.tier,
                action: rule.action,
                ports,
                rule: &rule.name,
            });
        }
        flatten(&matches, self.group.isolated.as_ref())
    }
}

/// What the named ports of a rule are for a class.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Named {
    /// Numbers, 0 for a name that is not there.
    Found(Vec<u16>),
    /// The peers are pods that nobody knows: any port may have the name.
    Any,
}
