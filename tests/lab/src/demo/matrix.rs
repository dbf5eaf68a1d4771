//! The matrix: expected against observed, grouped by workload so that it can be read.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::cells::{Cell, Party, name_of};
use super::plan::Plan;
use super::probing::Observed;

/// A row or column: a workload with its pods, a host outside, or a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    label: String,
    parties: Vec<Party>,
}

/// Explains the signs.
pub const LEGEND: &str = "\
each field: left expected by the oracle, right observed
  +  every declared port passes, an undeclared one does not     *  every port passes
  ~  some ports or replicas pass, others do not                 .  nothing passes
  r  refused: a Service without endpoints                       n  not possible on this kernel
  !  observed otherwise than expected; listed below";

/// Prints pods (and hosts outside) against pods, and pods against Services.
#[must_use]
pub fn render(plan: &Plan, cells: &[Cell], observed: &[Observed], colour: bool) -> String {
    let workloads: Vec<Group> = plan
        .workloads()
        .into_iter()
        .map(|(name, pods)| {
            let label = if pods.len() > 1 {
                format!("{name} x{}", pods.len())
            } else {
                name
            };
            Group {
                label,
                parties: pods.into_iter().map(Party::Pod).collect(),
            }
        })
        .collect();
    let single = |party| Group {
        label: name_of(plan, party),
        parties: vec![party],
    };
    let outside: Vec<Group> = (0..plan.outside.len())
        .map(|i| single(Party::Outside(i)))
        .collect();
    let with_address = |index: &usize| cells.iter().any(|cell| cell.to == Party::Service(*index));
    let services: Vec<Group> = (0..plan.services.len())
        .filter(with_address)
        .map(|index| single(Party::Service(index)))
        .collect();
    let all: Vec<Group> = workloads.iter().chain(&outside).cloned().collect();
    let table = Table {
        cells,
        observed,
        colour,
        index: index(cells),
    };
    let mut text = table.render("pods to pods and hosts outside", &all, &all);
    if !services.is_empty() {
        text.push('\n');
        text.push_str(&table.render("pods to services", &workloads, &services));
    }
    text
}

fn index(cells: &[Cell]) -> BTreeMap<(Party, Party), Vec<usize>> {
    let mut index: BTreeMap<(Party, Party), Vec<usize>> = BTreeMap::new();
    for (number, cell) in cells.iter().enumerate() {
        index.entry((cell.from, cell.to)).or_default().push(number);
    }
    index
}

struct Table<'a> {
    cells: &'a [Cell],
    observed: &'a [Observed],
    colour: bool,
    index: BTreeMap<(Party, Party), Vec<usize>>,
}

impl Table<'_> {
    fn render(&self, title: &str, rows: &[Group], columns: &[Group]) -> String {
        let same = rows == columns;
        let label = |group: &Group, number: usize| format!("{number:>2} {}", group.label);
        let width = rows
            .iter()
            .chain(columns)
            .map(|group| group.label.len())
            .max()
            .unwrap_or(0)
            + 3;
        let mut text = format!("{title}\n");
        if !same {
            // The columns' names stand above; of a square table they are the rows' own.
            for (number, column) in columns.iter().enumerate() {
                let _ = writeln!(text, "  {}", label(column, number + 1));
            }
        }
        let heads: String = (1..=columns.len())
            .map(|number| format!(" {number:>2}"))
            .collect();
        let _ = writeln!(text, "{:width$}{heads}", "");
        for (number, row) in rows.iter().enumerate() {
            let name = if same {
                label(row, number + 1)
            } else {
                format!("   {}", row.label)
            };
            let fields: String = columns
                .iter()
                .map(|column| self.field(row, column))
                .collect();
            let _ = writeln!(text, "{name:width$}{}", fields.trim_end());
        }
        text
    }

    fn field(&self, row: &Group, column: &Group) -> String {
        let mut members = Vec::new();
        for from in &row.parties {
            for to in &column.parties {
                members.extend(self.index.get(&(*from, *to)).into_iter().flatten().copied());
            }
        }
        if members.is_empty() {
            return "   ".to_owned();
        }
        let expected = sign(members.iter().map(|&index| {
            let cell = &self.cells[index];
            (cell.declared, Fate::expected(cell))
        }));
        if members
            .iter()
            .all(|&index| self.observed[index] == Observed::NotApplicable)
        {
            return format!(" {expected}n");
        }
        if members
            .iter()
            .all(|&index| self.observed[index].agrees(&self.cells[index]))
        {
            return format!(" {expected}{expected}");
        }
        let field = format!("{expected}!");
        if self.colour {
            format!(" \x1b[1;31m{field}\x1b[0m")
        } else {
            format!(" {field}")
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    Dropped,
    Either,
    Refused,
}

impl Fate {
    fn expected(cell: &Cell) -> Self {
        match (cell.some_allowed(), cell.some_denied()) {
            (true, false) => Self::Passes,
            (false, true) => Self::Dropped,
            (true, true) => Self::Either,
            (false, false) => Self::Refused,
        }
    }
}

/// One sign for many cells: (whether the port is declared, what becomes of it).
fn sign(fates: impl Iterator<Item = (bool, Fate)>) -> char {
    let all: Vec<(bool, Fate)> = fates.collect();
    let only = |declared: Option<bool>, fate: Fate| {
        all.iter()
            .filter(|(known, _)| declared.is_none_or(|declared| declared == *known))
            .all(|(_, found)| *found == fate)
    };
    let has_declared = all.iter().any(|(declared, _)| *declared);
    let has_undeclared = all.iter().any(|(declared, _)| !*declared);
    if only(None, Fate::Dropped) {
        '.'
    } else if only(None, Fate::Refused) {
        'r'
    } else if has_undeclared && only(None, Fate::Passes) {
        '*'
    } else if has_declared && only(Some(true), Fate::Passes) && only(Some(false), Fate::Dropped) {
        '+'
    } else {
        '~'
    }
}

/// The cells that were observed otherwise than expected, one a line.
#[must_use]
pub fn mismatches(plan: &Plan, cells: &[Cell], observed: &[Observed]) -> Vec<String> {
    cells
        .iter()
        .zip(observed)
        .filter(|(cell, observed)| !observed.agrees(cell))
        .map(|(cell, observed)| {
            format!(
                "{}: expected {}, observed {}",
                describe(plan, cell),
                cell.expected(),
                observed.words()
            )
        })
        .collect()
}

/// What a party's pods are grouped under: its workload, or its own name.
#[must_use]
pub fn group_name(plan: &Plan, party: Party) -> String {
    match party {
        Party::Pod(index) => plan.pods[index].workload.clone(),
        other => name_of(plan, other),
    }
}

/// `shop/web-0 -> shop/cart-0 [10.244.1.4]:7070/TCP`.
#[must_use]
pub fn describe(plan: &Plan, cell: &Cell) -> String {
    format!(
        "{} -> {} {}/{}",
        name_of(plan, cell.from),
        name_of(plan, cell.to),
        std::net::SocketAddr::new(cell.address, cell.listen.port),
        cell.listen.proto.name(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_tell_declared_ports_from_others() {
        use Fate::{Dropped, Either, Passes, Refused};
        let sign = |fates: &[(bool, Fate)]| sign(fates.iter().copied());
        assert_eq!(sign(&[(true, Passes), (false, Dropped)]), '+');
        assert_eq!(sign(&[(true, Passes)]), '+');
        assert_eq!(sign(&[(true, Passes), (false, Passes)]), '*');
        assert_eq!(sign(&[(true, Dropped), (false, Dropped)]), '.');
        assert_eq!(
            sign(&[(true, Passes), (true, Dropped), (false, Dropped)]),
            '~'
        );
        assert_eq!(sign(&[(true, Either)]), '~');
        assert_eq!(sign(&[(true, Refused)]), 'r');
        assert_eq!(sign(&[(false, Passes)]), '*');
    }
}
