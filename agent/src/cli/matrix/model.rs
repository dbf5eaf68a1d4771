//! The matrix as data: ends, and for each pair of them the ports that pass.

use std::collections::BTreeMap;

use weir_abi::Proto;

use crate::cli::reach::{Census, Compiled, PortSet, Tables, Unit};

/// Most names in the label of ends that were put together.
const MOST_NAMES: usize = 3;

/// Whether cells tell the ports that the target declares, or all exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exactness {
    Declared,
    Exact,
}

/// One or more units: both a row and a column.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub label: String,
    /// Empty for nodes, addresses outside, and ends of several namespaces.
    pub namespace: String,
    /// Whether it is of the namespace that was asked for.
    pub asked: bool,
    pub members: Vec<String>,
    /// The container ports of its pods.
    pub declared: PortSet,
}

/// The ports that pass from one end to another over IPv4 and IPv6; none where an end does not have
/// the family.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Passing([Option<PortSet>; 2]);

/// How much passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Amount {
    /// Every port of every protocol.
    All,
    /// Just the ports that the target declares.
    Declared,
    Some,
    None,
}

/// Who reaches whom.
#[derive(Debug)]
pub(super) struct Matrix {
    pub ends: Vec<End>,
    /// By source and target; no entry where policies do not judge.
    cells: BTreeMap<(usize, usize), Passing>,
}

impl Passing {
    /// What passes, by family; one entry without a name if it is the same for both.
    pub fn families(&self) -> Vec<(Option<&'static str>, &PortSet)> {
        match &self.0 {
            [Some(v4), Some(v6)] if v4 != v6 => vec![(Some("IPv4"), v4), (Some("IPv6"), v6)],
            [v4, v6] => v4.iter().chain(v6).take(1).map(|set| (None, set)).collect(),
        }
    }

    fn is_none(&self) -> bool {
        self.0.iter().flatten().all(PortSet::is_empty)
    }

    pub fn amount(&self, to: &End) -> Amount {
        let mut amounts = self.0.iter().flatten().map(|set| amount(set, &to.declared));
        let first = amounts.next().unwrap_or(Amount::None);
        if amounts.all(|amount| amount == first) {
            first
        } else {
            Amount::Some
        }
    }

    /// In words: `all`, `none`, `80,443/TCP`, `80/TCP+` where also undeclared ports pass.
    pub fn words(&self, to: &End, exactness: Exactness) -> String {
        let parts = self.families().into_iter().map(|(family, set)| {
            let family = family.map(|f| format!("{f} ")).unwrap_or_default();
            format!("{family}{}", words(set, &to.declared, exactness))
        });
        parts.collect::<Vec<_>>().join("; ")
    }
}

fn amount(set: &PortSet, declared: &PortSet) -> Amount {
    if set.is_everything() {
        Amount::All
    } else if set.is_empty() {
        Amount::None
    } else if set == declared {
        Amount::Declared
    } else {
        Amount::Some
    }
}

fn words(set: &PortSet, declared: &PortSet, exactness: Exactness) -> String {
    let known = set.and(declared);
    if exactness == Exactness::Exact || set.is_everything() || known.is_empty() {
        return set.words();
    }
    let more = if known == *set { "" } else { "+" };
    known.words() + more
}

impl Matrix {
    /// Of all units, or of one namespace's and of those elsewhere that reach it or that it reaches.
    pub fn of(
        census: &Census,
        units: &[Unit],
        compiled: &mut Compiled,
        tables: &mut Tables,
        namespace: Option<&str>,
    ) -> Self {
        let asked =
            |unit: &Unit| namespace.is_none_or(|wanted| unit.is_pods() && unit.namespace == wanted);
        let mut cells = BTreeMap::new();
        for (from, source) in units.iter().enumerate() {
            for (to, target) in units.iter().enumerate() {
                if source.pairs_to(target) > 0 && (asked(source) || asked(target)) {
                    let passing = passing(source, target, compiled, tables);
                    cells.insert((from, to), passing);
                }
            }
        }
        let mut ends: Vec<(Vec<usize>, bool)> = Vec::new();
        let mut alike: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        let of_namespace: Vec<usize> = (0..units.len()).filter(|u| asked(&units[*u])).collect();
        for (number, unit) in units.iter().enumerate() {
            if asked(unit) {
                ends.push((vec![number], true));
                continue;
            }
            let cell = |from, to| cells.get(&(from, to)).cloned().unwrap_or_default();
            let row: Vec<[Passing; 2]> = of_namespace
                .iter()
                .map(|other| [cell(number, *other), cell(*other, number)])
                .collect();
            // Who neither reaches the namespace nor is reached from it is none of its business.
            if row.iter().flatten().any(|passing| !passing.is_none()) {
                alike
                    .entry((!unit.is_pods(), row))
                    .or_default()
                    .push(number);
            }
        }
        let mut elsewhere: Vec<Vec<usize>> = alike.into_values().collect();
        elsewhere.sort();
        ends.extend(elsewhere.into_iter().map(|units| (units, false)));
        let mut matrix = Self {
            cells: BTreeMap::new(),
            ends: Vec::new(),
        };
        for (from, (sources, _)) in ends.iter().enumerate() {
            for (to, (targets, _)) in ends.iter().enumerate() {
                // Those that were put together have equal cells; one without may be among them.
                let all = sources
                    .iter()
                    .flat_map(|s| targets.iter().map(move |t| (*s, *t)));
                if let Some(passing) = all.filter_map(|pair| cells.get(&pair)).next() {
                    matrix.cells.insert((from, to), passing.clone());
                }
            }
        }
        let ends = ends.into_iter();
        matrix.ends = ends
            .map(|(numbers, asked)| end(census, units, &numbers, asked))
            .collect();
        matrix
    }

    /// What passes; none where policies do not judge: a pod and itself, ends that are no pods, and
    /// ends outside the namespace asked for.
    pub fn cell(&self, from: usize, to: usize) -> Option<&Passing> {
        self.cells.get(&(from, to))
    }

    /// Every pair that is judged: source, target, what passes.
    pub fn cells(&self) -> impl Iterator<Item = (&End, &End, &Passing)> {
        let cells = self.cells.iter();
        cells.map(|((from, to), passing)| (&self.ends[*from], &self.ends[*to], passing))
    }
}

fn passing(from: &Unit, to: &Unit, compiled: &mut Compiled, tables: &mut Tables) -> Passing {
    Passing([0, 1].map(|family| {
        let judged = compiled.tables(&from.views[0], &to.views[0], family, tables);
        judged.map(|(egress, ingress)| tables.allowed(egress, ingress))
    }))
}

fn end(census: &Census, units: &[Unit], numbers: &[usize], asked: bool) -> End {
    let of = || numbers.iter().map(|number| &units[*number]);
    let shown: Vec<&str> = of()
        .take(MOST_NAMES)
        .map(|unit| unit.label.as_str())
        .collect();
    let more = match numbers.len().saturating_sub(MOST_NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let namespaces: Vec<&String> = of().map(|unit| &unit.namespace).collect();
    let one = namespaces
        .first()
        .filter(|first| namespaces.iter().all(|n| n == *first));
    let parties = || {
        of().flat_map(|unit| &unit.members)
            .map(|m| &census.parties[*m])
    };
    let mut declared = PortSet::default();
    for pod in parties().filter_map(|party| party.faces.first()?.pod) {
        for (proto, port) in crate::verify::objects::container_ports(pod) {
            declared.add(&PortSet::port(Proto(proto), port));
        }
    }
    End {
        label: shown.join(", ") + &more,
        namespace: one.map(|n| (*n).clone()).unwrap_or_default(),
        asked,
        members: parties().map(crate::cli::reach::Party::label).collect(),
        declared,
    }
}
