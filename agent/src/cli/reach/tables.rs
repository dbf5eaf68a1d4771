//! The tables of one or more compiled worlds, each kept once, and what two of them say of a flow.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;
use weir_policy::CellView;

use super::ports::{END, PortSet};
use crate::rule_words::rule_words;

/// Number of a table in [`Tables`].
pub(in super::super) type TableId = u32;

/// The table of an end that no policy judges.
pub(in super::super) const OPEN: TableId = 0;

/// A stretch of a table; `rule` is a number in [`Tables`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(in super::super) struct Cell {
    pub start: u32,
    pub cause: Cause,
}

/// What one end says, and by which rule (none: no policy).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(in super::super) struct Cause {
    pub allow: bool,
    pub rule: Option<u32>,
}

/// What both ends of a flow say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(in super::super) struct Causes {
    pub egress: Cause,
    pub ingress: Cause,
}

impl Causes {
    pub fn allow(&self) -> bool {
        self.egress.allow && self.ingress.allow
    }

    /// Without the rule of an end that allows what the other denies.
    pub fn decisive(mut self) -> Self {
        if !self.allow() {
            for cause in [&mut self.egress, &mut self.ingress] {
                cause.rule = cause.rule.filter(|_| !cause.allow);
            }
        }
        self
    }
}

/// Tables and rules by number. Equal ones, of whatever world, have one number.
#[derive(Debug)]
pub(in super::super) struct Tables {
    rules: Vec<String>,
    rule_numbers: HashMap<String, u32>,
    tables: Vec<Rc<[Cell]>>,
    numbers: HashMap<Rc<[Cell]>, TableId>,
}

impl Tables {
    pub fn new() -> Self {
        let mut this = Self {
            rules: Vec::new(),
            rule_numbers: HashMap::new(),
            tables: Vec::new(),
            numbers: HashMap::new(),
        };
        let open = CellView {
            start: 0,
            allow: true,
            rule: None,
        };
        this.number(&[open]);
        this
    }

    /// The number of a table.
    pub fn number(&mut self, cells: &[CellView<'_>]) -> TableId {
        let cells: Rc<[Cell]> = cells
            .iter()
            .map(|cell| Cell {
                start: cell.start,
                cause: Cause {
                    allow: cell.allow,
                    rule: cell.rule.map(|text| self.rule_number(text)),
                },
            })
            .collect();
        if let Some(number) = self.numbers.get(&cells) {
            return *number;
        }
        let number = self.tables.len() as TableId;
        self.tables.push(Rc::clone(&cells));
        self.numbers.insert(cells, number);
        number
    }

    fn rule_number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.rule_numbers.get(text) {
            return *number;
        }
        let number = self.rules.len() as u32;
        self.rules.push(text.to_owned());
        self.rule_numbers.insert(text.to_owned(), number);
        number
    }

    /// A rule's JSON.
    pub fn rule(&self, number: u32) -> Value {
        let text = self.rules.get(number as usize);
        let parsed = text.and_then(|text| serde_json::from_str(text).ok());
        parsed.unwrap_or(Value::Null)
    }

    /// What decides, in words: of a denied flow the ends that deny, of an allowed one the rules
    /// that allow.
    pub fn words(&self, causes: &Causes) -> String {
        let allow = causes.allow();
        let told: Vec<String> = [("egress", causes.egress), ("ingress", causes.ingress)]
            .into_iter()
            .filter(|(_, cause)| cause.allow == allow)
            .filter_map(|(end, cause)| {
                let rule = self.rule(cause.rule?);
                Some(format!("{end}: {}", rule_words(&rule)?))
            })
            .collect();
        if told.is_empty() {
            return "no policy".to_owned();
        }
        told.join("; ")
    }

    /// What holds for each stretch of ports where the causes are the same: (first, one past the
    /// last, causes).
    pub fn flow(&self, egress: TableId, ingress: TableId) -> Vec<(u32, u32, Causes)> {
        let (egress, ingress) = (
            &self.tables[egress as usize],
            &self.tables[ingress as usize],
        );
        let mut found = Vec::new();
        let (mut e, mut i, mut start) = (0, 0, 0);
        while start < END {
            let end_of = |cells: &[Cell], at: usize| cells.get(at + 1).map_or(END, |c| c.start);
            let (e_end, i_end) = (end_of(egress, e), end_of(ingress, i));
            let end = e_end.min(i_end);
            let causes = Causes {
                egress: egress[e].cause,
                ingress: ingress[i].cause,
            };
            found.push((start, end, causes));
            e += usize::from(e_end == end);
            i += usize::from(i_end == end);
            start = end;
        }
        found
    }

    /// The ports that pass both ends.
    pub fn allowed(&self, egress: TableId, ingress: TableId) -> PortSet {
        let mut set = PortSet::default();
        for (start, end, causes) in self.flow(egress, ingress) {
            if causes.allow() {
                set.push(start, end);
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(start: u32, allow: bool, rule: Option<&str>) -> CellView<'_> {
        CellView { start, allow, rule }
    }

    #[test]
    fn equal_tables_have_one_number() {
        let mut tables = Tables::new();
        let a = tables.number(&[cell(0, false, Some("{}")), cell(80, true, Some("1"))]);
        let b = tables.number(&[cell(0, false, Some("{}")), cell(80, true, Some("1"))]);
        let c = tables.number(&[cell(0, false, Some("{}")), cell(80, true, Some("2"))]);
        assert!(a == b && b != c);
        assert_eq!(tables.number(&[cell(0, true, None)]), OPEN);
    }

    #[test]
    fn a_flow_passes_where_both_ends_let_it() {
        let mut tables = Tables::new();
        let egress = tables.number(&[cell(0, false, Some("a")), cell(50, true, Some("b"))]);
        let ingress = tables.number(&[
            cell(0, true, Some("c")),
            cell(60, false, Some("d")),
            cell(70, true, Some("e")),
        ]);
        let stretches: Vec<_> = tables
            .flow(egress, ingress)
            .into_iter()
            .map(|(start, end, causes)| (start, end, causes.allow()))
            .collect();
        assert_eq!(
            stretches,
            [
                (0, 50, false),
                (50, 60, true),
                (60, 70, false),
                (70, END, true)
            ]
        );
        let mut expect = PortSet::default();
        expect.push(50, 60);
        expect.push(70, END);
        assert_eq!(tables.allowed(egress, ingress), expect);
        assert!(tables.allowed(OPEN, OPEN).is_everything());
    }

    #[test]
    fn a_denied_flow_is_told_by_who_denies_and_an_allowed_one_by_who_allows() {
        let mut tables = Tables::new();
        let rule = |path: &str| {
            format!(
                "{{\"kind\":\"NetworkPolicy\",\"namespace\":\"a\",\"name\":\"p\",\"path\":\"{path}\"}}"
            )
        };
        let isolated = "{\"isolatedBy\":[{\"namespace\":\"a\",\"name\":\"d\"}]}";
        let (one, two) = (rule("spec.egress[0]"), rule("spec.ingress[1]"));
        let egress = tables.number(&[cell(0, true, Some(&one))]);
        let ingress = tables.number(&[cell(0, false, Some(isolated)), cell(9, true, Some(&two))]);
        let told: Vec<String> = tables
            .flow(egress, ingress)
            .iter()
            .map(|(_, _, causes)| tables.words(causes))
            .collect();
        assert_eq!(
            told,
            [
                "ingress: isolated by a/d",
                "egress: a/p spec.egress[0]; ingress: a/p spec.ingress[1]"
            ]
        );
        let open = tables.flow(OPEN, OPEN)[0].2;
        assert_eq!(tables.words(&open), "no policy");
    }
}
