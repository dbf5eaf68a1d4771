//! The cause of a verdict, in the first lines of a trace.

use weir_oracle::{PolicyKind, PolicyStep, Reason, RuleRef};

use super::layout::{WIDTH, wrap};
use super::report::{Report, Side};
use super::words::words;

/// A line for each end, or for each that denies.
pub(super) fn causes(report: &Report<'_>) -> Vec<String> {
    let sides = report.sides();
    let denying = sides
        .iter()
        .filter(|s| !s.report.decision.verdict.allowed());
    let denying: Vec<&Side<'_>> = denying.collect();
    match denying.as_slice() {
        [] => {}
        // Alone it has two lines.
        [side] => {
            let mut lines = wrap(&cause(side), false);
            lines.extend(refusal(side));
            lines.truncate(2);
            return lines;
        }
        sides => return sides.iter().map(|side| cause(side)).collect(),
    }
    sides
        .iter()
        .map(|side| format!("cause: {} {}", side.name, words(side.report)))
        .collect()
}

/// Why the rule that denies does so, if it was refused.
fn refusal(side: &Side<'_>) -> Option<String> {
    let decision = &side.report.decision;
    if decision.reason != Reason::Rule {
        return None;
    }
    let why = &side.report.steps.last()?.rules.last()?.why;
    why.starts_with("refused: ")
        .then(|| format!("       {why}"))
}

/// The rule that denies, in full if that fits.
fn denied_by(side: &Side<'_>, rule: &RuleRef) -> String {
    let full = format!(
        "cause: {} of {}: {}",
        side.name,
        side.party,
        words(side.report)
    );
    // The tier says which kind of policy it is.
    let short = full.replacen(&format!(" {} ", rule.kind), " policy ", 1);
    let fits = |line: &String| line.chars().count() <= WIDTH;
    [full, short.clone()]
        .into_iter()
        .find(fits)
        .unwrap_or(short)
}

/// Why an end denies, with as many of the policies' names as fit.
fn cause(side: &Side<'_>) -> String {
    if let (Reason::Rule, Some(rule)) = (side.report.decision.reason, &side.report.decision.rule) {
        return denied_by(side, rule);
    }
    let policies = &side.report.decision.isolated_by;
    let names: Vec<String> = policies
        .iter()
        .map(|p| format!("{}/{}", p.namespace.as_deref().unwrap_or_default(), p.name))
        .collect();
    let isolate = |step: &&PolicyStep| matches!(step.kind, PolicyKind::NetworkPolicy { .. });
    let isolating = side.report.steps.iter().filter(isolate);
    let rules: usize = isolating.map(|s| s.rules.len()).sum();
    let none = match (rules, names.len()) {
        (0, 1) => "which allows nothing".to_owned(),
        (0, _) => "which allow nothing".to_owned(),
        (1, _) => "whose one rule does not match".to_owned(),
        (n, _) => format!("none of whose {n} rules matches"),
    };
    let with = |shown: usize, why: &str| {
        let rest = names.len().saturating_sub(shown);
        let listed = names.get(..shown).unwrap_or(&names).join(", ");
        let by = match (shown, rest) {
            (_, 0) => listed,
            (0, 1) => "a policy".to_owned(),
            (0, n) => format!("{n} policies"),
            (_, n) => format!("{listed} and {n} more"),
        };
        let (name, party) = (side.name, side.party);
        format!("cause: {name} of {party}: isolated by {by}{why}")
    };
    // Names come before how many rules there are: the steps below show the rules.
    let none = format!(", {none}");
    let fits = (1..=names.len())
        .rev()
        .flat_map(|shown| [with(shown, &none), with(shown, "")])
        .find(|line| line.chars().count() <= WIDTH);
    fits.unwrap_or_else(|| with(0, &none))
}
