//! From an ordered list of matches to disjoint intervals.

use std::sync::Arc;

use crate::port::PortSet;
use crate::rule::RuleName;

/// One match of an ordered list: of the ports in `ports` the first match decides.
#[derive(Clone, Debug)]
pub(crate) struct Matched<'a> {
    pub ports: PortSet,
    pub allow: bool,
    pub rule: &'a Arc<RuleName>,
}

/// From `start` on, up to the next cell's start.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub start: u32,
    pub allow: bool,
    pub rule: Arc<RuleName>,
}

/// The verdicts of one (group, class): cells by ascending start, the first one at 0.
pub(crate) type Table = Vec<Cell>;

/// Flattens the matches, in whatever way they came to be ordered; `default` denies what none of them holds.
pub(crate) fn flatten(matches: &[Matched<'_>], default: &Arc<RuleName>) -> Table {
    let mut open = PortSet::everything();
    let mut cells: Vec<Cell> = Vec::new();
    for matched in matches {
        let (hit, rest) = open.split(&matched.ports);
        open = rest;
        cells.extend(hit.ranges().iter().map(|(start, _)| Cell {
            start: *start,
            allow: matched.allow,
            rule: Arc::clone(matched.rule),
        }));
    }
    cells.extend(open.ranges().iter().map(|(start, _)| Cell {
        start: *start,
        allow: false,
        rule: Arc::clone(default),
    }));
    cells.sort_by_key(|cell| cell.start);
    cells.dedup_by(|next, cell| next.allow == cell.allow && next.rule.key == cell.rule.key);
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str) -> Arc<RuleName> {
        let mut key = [0; 16];
        key[..name.len()].copy_from_slice(name.as_bytes());
        Arc::new(RuleName {
            key,
            text: name.to_owned(),
        })
    }

    /// (ranges, allow, rule).
    type Given<'a> = (&'a [(u32, u32)], bool, &'a str);

    fn check(matches: &[Given<'_>], expect: &[(u32, bool, &str)]) {
        let rules: Vec<_> = matches.iter().map(|(_, _, name)| rule(name)).collect();
        let matches: Vec<_> = matches
            .iter()
            .zip(&rules)
            .map(|((ranges, allow, _), rule)| Matched {
                ports: PortSet::new(ranges.to_vec()),
                allow: *allow,
                rule,
            })
            .collect();
        let table = flatten(&matches, &rule("default"));
        let cells: Vec<_> = table
            .iter()
            .map(|c| (c.start, c.allow, c.rule.text.as_str()))
            .collect();
        assert_eq!(cells, expect);
    }

    const ALL: &[(u32, u32)] = &[(0, 1 << 24)];

    #[test]
    fn nothing_matched_is_the_default() {
        check(&[], &[(0, false, "default")]);
    }

    #[test]
    fn the_first_match_decides_port_by_port() {
        check(
            &[
                (&[(10, 20)], true, "a"),
                (&[(5, 15), (30, 31)], false, "b"),
                (&[(14, 40)], true, "c"),
            ],
            &[
                (0, false, "default"),
                (5, false, "b"),
                (10, true, "a"),
                (20, true, "c"),
                (30, false, "b"),
                (31, true, "c"),
                (40, false, "default"),
            ],
        );
    }

    #[test]
    fn what_covers_everything_leaves_nothing_to_those_after_it() {
        check(
            &[(ALL, true, "a"), (&[(1, 2)], false, "b")],
            &[(0, true, "a")],
        );
        check(
            &[(&[(1, 2)], false, "b"), (ALL, true, "a")],
            &[(0, true, "a"), (1, false, "b"), (2, true, "a")],
        );
    }

    #[test]
    fn neighbours_with_one_verdict_are_one_interval() {
        check(
            &[(&[(0, 10)], true, "a"), (&[(10, 20)], true, "a")],
            &[(0, true, "a"), (20, false, "default")],
        );
        // The same rule that allows and denies is two verdicts, and so are two rules.
        check(
            &[
                (&[(0, 10)], true, "a"),
                (&[(10, 20)], false, "a"),
                (&[(20, 30)], false, "b"),
            ],
            &[
                (0, true, "a"),
                (10, false, "a"),
                (20, false, "b"),
                (30, false, "default"),
            ],
        );
    }
}
