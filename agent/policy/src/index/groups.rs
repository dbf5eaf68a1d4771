//! The groups that endpoints are in, and the tables of their rows.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::class::Signature;
use crate::desired::{Desired, DesiredGroup};
use crate::flatten::{Matched, Table, flatten};
use crate::group::{Group, GroupRule};
use crate::hash::Key;
use crate::port::{PortName, PortSet};
use crate::scope::{Scope, is_wide};
use crate::slab::Number;
use crate::usage::Sets;

/// The groups in use; a number is that of the group in [`Desired`].
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    number: HashMap<Key, Number>,
    known: HashMap<Number, Entry>,
    /// Groups by what their rules name.
    of_peer: Sets<Number, Number>,
    of_name: Sets<Number, Number>,
    unknown: BTreeSet<Number>,
    /// Those that are new.
    pub added: BTreeSet<Number>,
}

#[derive(Clone, Debug)]
struct Entry {
    group: Arc<Group>,
    /// Slots that are in it, each direction by itself.
    uses: u32,
    rows: GroupRows,
}

impl Groups {
    /// A slot is in this group: its number.
    pub fn take(&mut self, group: Group, scope: &mut Scope, desired: &mut Desired) -> Number {
        if let Some(number) = self.number.get(&group.key) {
            if let Some(entry) = self.known.get_mut(number) {
                entry.uses += 1;
            }
            return *number;
        }
        scope.add(&group);
        let rows = GroupRows::new(&group, scope);
        let number = desired.groups.insert(DesiredGroup {
            key: group.key,
            rows: HashMap::new(),
        });
        desired.touched.groups.insert(number);
        self.added.insert(number);
        self.number.insert(group.key, number);
        for peer in rows.peers() {
            self.of_peer.add(peer, number);
        }
        for name in rows.names() {
            self.of_name.add(name, number);
        }
        if group.rules.iter().any(GroupRule::matches_unknown_pods) {
            self.unknown.insert(number);
        }
        let entry = Entry {
            group: Arc::new(group),
            uses: 1,
            rows,
        };
        self.known.insert(number, entry);
        number
    }

    /// One more slot is in a group that there is.
    pub fn join_again(&mut self, number: Number) {
        if let Some(entry) = self.known.get_mut(&number) {
            entry.uses += 1;
        }
    }

    /// A slot is in this group no more.
    pub fn give_back(&mut self, number: Number, scope: &mut Scope, desired: &mut Desired) {
        let Some(entry) = self.known.get_mut(&number) else {
            return;
        };
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        let Some(Entry { group, rows, .. }) = self.known.remove(&number) else {
            return;
        };
        self.added.remove(&number);
        self.number.remove(&group.key);
        for peer in rows.peers() {
            self.of_peer.remove(peer, number);
        }
        for name in rows.names() {
            self.of_name.remove(name, number);
        }
        self.unknown.remove(&number);
        scope.remove(&group);
        desired.remove_group(number);
    }

    /// The table of a group for a signature.
    pub fn table(&mut self, group: Number, signature: &Signature) -> Option<Arc<Table>> {
        let Entry { group, rows, .. } = self.known.get_mut(&group)?;
        Some(rows.table(group, signature))
    }

    /// The peers that a group's rules name, but for those of which bases are made; its port names;
    /// and whether it matches pods that nobody knows.
    pub fn narrow(&self, group: Number, scope: &Scope) -> (Vec<Number>, Vec<Number>, bool) {
        let Some(entry) = self.known.get(&group) else {
            return Default::default();
        };
        let is_narrow = |peer: &Number| !scope.peer(*peer).is_some_and(is_wide);
        let peers = entry.rows.peers().filter(is_narrow).collect();
        let names = entry.rows.names().collect();
        (peers, names, self.unknown.contains(&group))
    }

    /// The groups that may tell a signature from its base; of a base, from the world.
    pub fn telling(&self, signature: &Signature, peers: &[Number]) -> BTreeSet<Number> {
        let by_peer = peers.iter().flat_map(|peer| self.of_peer.of(*peer));
        let by_name = signature
            .ports
            .iter()
            .flat_map(|(name, _)| self.of_name.of(*name));
        let unknown = self.unknown.iter().filter(|_| signature.unknown_pod);
        by_peer.chain(by_name).chain(unknown.copied()).collect()
    }
}

/// The rules of a group, by the numbers of the scope, and the tables made of them.
#[derive(Clone, Debug)]
struct GroupRows {
    /// For each rule: sorted numbers of its peers, none for everyone; and of its port names.
    rules: Vec<(Option<Vec<Number>>, Vec<Number>)>,
    /// By the rules that match.
    tables: HashMap<Vec<(usize, Named)>, Arc<Table>>,
}

/// What the named ports of a rule are for a class.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Named {
    /// Numbers, 0 for a name that is not there.
    Found(Vec<u16>),
    /// The peers are pods that nobody knows: any port may have the name.
    Any,
}

/// Tables that are kept of each group: most classes match the same rules as some other.
const MOST_TABLES: usize = 1024;

impl GroupRows {
    fn new(group: &Group, scope: &Scope) -> Self {
        let rule = |rule: &GroupRule| {
            let names = rule.named.iter().filter_map(|name| scope.name(name));
            (scope.numbers(rule.peers.as_deref()), names.collect())
        };
        Self {
            rules: group.rules.iter().map(rule).collect(),
            tables: HashMap::new(),
        }
    }

    fn peers(&self) -> impl Iterator<Item = Number> {
        let peers = self.rules.iter().filter_map(|(peers, _)| peers.as_ref());
        peers.flatten().copied()
    }

    fn names(&self) -> impl Iterator<Item = Number> {
        self.rules
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
    }

    fn table(&mut self, group: &Group, signature: &Signature) -> Arc<Table> {
        let matched = self.matched(group, signature);
        if let Some(table) = self.tables.get(&matched) {
            return Arc::clone(table);
        }
        if self.tables.len() >= MOST_TABLES {
            self.tables.clear();
        }
        let table = Arc::new(flattened(group, &matched));
        self.tables.insert(matched, Arc::clone(&table));
        table
    }

    /// The rules that match a signature, each with what its names stand for.
    fn matched(&self, group: &Group, signature: &Signature) -> Vec<(usize, Named)> {
        let mut matched = Vec::new();
        for (i, ((peers, names), rule)) in self.rules.iter().zip(&group.rules).enumerate() {
            let unknown = signature.unknown_pod && rule.matches_unknown_pods();
            let matches = match peers {
                None => true,
                Some(peers) => unknown || peers.iter().any(|peer| signature.has(*peer)),
            };
            if !matches {
                continue;
            }
            if unknown && !names.is_empty() {
                matched.push((i, Named::Any));
                continue;
            }
            let found = names.iter().map(|name| signature.port(*name).unwrap_or(0));
            matched.push((i, Named::Found(found.collect())));
        }
        matched
    }
}

fn flattened(group: &Group, matched: &[(usize, Named)]) -> Table {
    let mut matches = Vec::new();
    for (i, named) in matched {
        let rule = &group.rules[*i];
        let ports = match named {
            // Not what has no ports.
            Named::Any => {
                let any = rule.named.iter().map(PortName::any).collect();
                rule.numeric.union(&PortSet::new(any))
            }
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
    flatten(&matches, group.isolated.as_ref())
}
