//! The cause of a verdict, in the first lines of a trace.

use weir_oracle::{PolicyKind, PolicyStep, Reason};

use super::layout::WIDTH;
use super::report::{Report, Side};
use super::words::words;

/// A line for each end, or for each that denies.
pub(super) fn causes(report: &Report<'_>) -> Vec<String> {
    let sides = report.sides();
    let denying = sides
        .iter()
        .filter(|s| !s.report.decision.verdict.allowed());
    let mut denied: Vec<String> = denying.clone().map(cause).collect();
    if let ([_], Some(side)) = (denied.as_slice(), denying.clone().next()) {
        denied.extend(refusal(side));
    }
    if !denied.is_empty() {
        return denied;
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

/// Why an end denies, with as many of the policies' names as fit.
fn cause(side: &Side<'_>) -> String {
    if side.report.decision.reason == Reason::Rule {
        let (name, party) = (side.name, side.party);
        return format!("cause: {name} of {party}: {}", words(side.report));
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
