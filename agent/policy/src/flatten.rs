//! From an ordered list of matches to disjoint intervals.

use std::sync::Arc;

use crate::port::PortSet;
use crate::rule::RuleName;
use crate::tier::{Action, Tier};

/// One rule that matches, with its ports.
#[derive(Clone, Debug)]
pub(crate) struct Matched<'a> {
    pub tier: Tier,
    pub action: Action,
    pub ports: PortSet,
    pub rule: &'a Arc<RuleName>,
}

/// From `start` on, up to the next cell's start.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub start: u32,
    pub allow: bool,
    /// None: nothing decides.
    pub rule: Option<Arc<RuleName>>,
}

impl Cell {
    /// Whether it says the same, from wherever on.
    fn has_verdict_of(&self, other: &Self) -> bool {
        let key = |cell: &Self| cell.rule.as_ref().map(|rule| rule.key);
        self.allow == other.allow && key(self) == key(other)
    }
}

/// The verdicts of one (group, class): cells by ascending start, the first one at 0.
pub(crate) type Table = Vec<Cell>;

/// Whether two tables say the same.
pub(crate) fn same_verdicts(a: &Table, b: &Table) -> bool {
    let same = |(a, b): (&Cell, &Cell)| a.start == b.start && a.has_verdict_of(b);
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// Flattens what matches, in order of the tiers: of each port the first match of a tier decides, or
/// passes it on to the next tier. What reaches the end of the NetworkPolicies is denied by
/// `isolated` if there is one; what reaches the end of all is allowed by the last rule that passed
/// it on, or by nothing.
pub(crate) fn flatten(matches: &[Matched<'_>], isolated: Option<&Arc<RuleName>>) -> Table {
    let mut cells: Vec<Cell> = Vec::new();
    let mut add = |ports: &PortSet, allow: bool, rule: Option<&Arc<RuleName>>| {
        cells.extend(ports.ranges().iter().map(|(start, _)| Cell {
            start: *start,
            allow,
            rule: rule.cloned(),
        }));
    };
    let mut open = PortSet::everything();
    let mut passed: Vec<(PortSet, &Arc<RuleName>)> = Vec::new();
    for tier in Tier::ALL {
        let mut next = Vec::new();
        for matched in matches.iter().filter(|matched| matched.tier == tier) {
            let (hit, rest) = open.split(&matched.ports);
            open = rest;
            match matched.action {
                Action::Accept => add(&hit, true, Some(matched.rule)),
                Action::Deny => add(&hit, false, Some(matched.rule)),
                Action::Pass => {
                    next.extend_from_slice(hit.ranges());
                    passed.push((hit, matched.rule));
                }
            }
        }
        next.extend_from_slice(open.ranges());
        open = PortSet::new(next);
        if tier == Tier::NetworkPolicy && isolated.is_some() {
            add(&open, false, isolated);
            open = PortSet::default();
        }
    }
    for (ports, rule) in passed.iter().rev() {
        let (hit, rest) = open.split(ports);
        open = rest;
        add(&hit, true, Some(rule));
    }
    add(&open, true, None);
    cells.sort_by_key(|cell| cell.start);
    cells.dedup_by(|next, cell| next.has_verdict_of(cell));
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

    /// (tier, action, ranges, rule).
    type TierRule<'a> = (Tier, Action, &'a [(u32, u32)], &'a str);

    /// Rules of the Admin tier, before an isolating policy.
    fn check(matches: &[Given<'_>], expect: &[(u32, bool, &str)]) {
        let action = |allow: bool| if allow { Action::Accept } else { Action::Deny };
        let given = matches
            .iter()
            .map(|(ranges, allow, name)| (Tier::Admin, action(*allow), *ranges, *name));
        check_tiers(&given.collect::<Vec<_>>(), true, expect);
    }

    fn check_tiers(matches: &[TierRule<'_>], isolated: bool, expect: &[(u32, bool, &str)]) {
        let rules: Vec<_> = matches.iter().map(|(.., name)| rule(name)).collect();
        let matches: Vec<_> = matches
            .iter()
            .zip(&rules)
            .map(|((tier, action, ranges, _), rule)| Matched {
                tier: *tier,
                action: *action,
                ports: PortSet::new(ranges.to_vec()),
                rule,
            })
            .collect();
        let default = rule("default");
        let table = flatten(&matches, isolated.then_some(&default));
        let name = |c: &Cell| {
            c.rule
                .as_ref()
                .map_or_else(String::new, |rule| rule.text.clone())
        };
        let cells: Vec<_> = table.iter().map(|c| (c.start, c.allow, name(c))).collect();
        let cells: Vec<_> = cells
            .iter()
            .map(|(start, allow, name)| (*start, *allow, name.as_str()))
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

    #[test]
    fn what_nothing_matches_is_allowed_where_nothing_isolates() {
        check_tiers(&[], false, &[(0, true, "")]);
    }

    #[test]
    fn admin_decides_before_network_policies_and_those_before_baseline() {
        use Action::{Accept, Deny};
        let given: &[TierRule<'_>] = &[
            (Tier::Admin, Deny, &[(10, 20)], "a"),
            (Tier::NetworkPolicy, Accept, &[(0, 30)], "n"),
            (Tier::Baseline, Deny, ALL, "b"),
        ];
        check_tiers(
            given,
            true,
            &[
                (0, true, "n"),
                (10, false, "a"),
                (20, true, "n"),
                (30, false, "default"),
            ],
        );
        // Where nothing isolates there are no NetworkPolicy rules.
        check_tiers(
            &[given[0], given[2]],
            false,
            &[(0, false, "b"), (10, false, "a"), (20, false, "b")],
        );
    }

    #[test]
    fn a_pass_skips_the_rest_of_its_tier_only() {
        use Action::{Accept, Deny, Pass};
        let given: &[TierRule<'_>] = &[
            (Tier::Admin, Pass, &[(10, 40)], "p"),
            (Tier::Admin, Deny, ALL, "a"),
            (Tier::Baseline, Accept, &[(10, 20)], "b"),
            (Tier::Baseline, Pass, &[(20, 30)], "q"),
            (Tier::Baseline, Deny, &[(20, 35)], "c"),
        ];
        check_tiers(
            given,
            false,
            &[
                (0, false, "a"),
                (10, true, "b"),
                // The last rule that passed it on is named.
                (20, true, "q"),
                (30, false, "c"),
                (35, true, "p"),
                (40, false, "a"),
            ],
        );
        check_tiers(
            &given[..2],
            true,
            &[(0, false, "a"), (10, false, "default"), (40, false, "a")],
        );
    }
}
