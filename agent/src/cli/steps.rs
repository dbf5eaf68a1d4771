//! The steps of one end of a trace: which policies were asked, and which rule matched or why not.

use weir_oracle::{
    Action, Match, PartyKind, PolicyKind, PolicyStep, Reason, Report as EndReport, RuleStep, Tier,
};

use super::layout::wrap;
use super::live;
use super::report::Side;
use super::words::{kernel_line, words};

/// The end, where it is, and the decision.
pub(super) fn heading(side: &Side<'_>) -> String {
    let node = match (&side.party.node, &side.party.kind) {
        (_, PartyKind::Node) | (None, _) => String::new(),
        (Some(node), _) => format!(" on node {node}"),
    };
    let addr = match (&side.party.kind, side.party.address) {
        // Its name is the address.
        (PartyKind::Outside | PartyKind::UnknownPod, _) | (_, None) => String::new(),
        (_, Some(address)) => format!(" ({address})"),
    };
    let decision = words(side.report);
    let connection = match side.report.decision.reason {
        Reason::Isolated | Reason::Rule if side.name != side.judged => {
            format!(" (the connection it answers, in {})", side.judged)
        }
        _ => String::new(),
    };
    format!(
        "{} of {}{addr}{node}: {decision}{connection}",
        side.name, side.party
    )
}

/// What was not asked, how many policies are not about the pod, and the kernel.
pub(super) fn tail(side: &Side<'_>, verbose: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let report = side.report;
    let decided_by = report.decision.rule.as_ref().and_then(|rule| rule.tier);
    if decided_by == Some(Tier::Admin) && report.decision.reason == Reason::Rule {
        lines.push("  NetworkPolicies and the Baseline tier are not asked".to_owned());
    }
    if !report.steps.is_empty() {
        lines.extend(others(report, side.judged));
    }
    let kernel = kernel_line(side.kernel);
    let program = side.program.and_then(live::line);
    let told = kernel.iter().chain(&program);
    lines.extend(told.flat_map(|line| wrap(line, verbose)));
    lines
}

fn others(report: &EndReport, judged: &str) -> Vec<String> {
    let mut lines = Vec::new();
    match report.other_policies {
        0 => {}
        1 => lines.push(format!(
            "  1 more in the namespace does not select it for {judged}"
        )),
        n => lines.push(format!(
            "  {n} more in the namespace do not select it for {judged}"
        )),
    }
    match report.other_cluster_policies {
        0 => {}
        1 => lines.push(format!(
            "  1 ClusterNetworkPolicy is not about its {judged}"
        )),
        n => lines.push(format!(
            "  {n} ClusterNetworkPolicies are not about its {judged}"
        )),
    }
    lines
}

/// A line for each policy that judges the pod, and for each of its rules.
pub(super) fn steps(report: &EndReport) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &report.steps {
        lines.push(format!("  {}", policy(step)));
        lines.extend(step.rules.iter().map(|step| format!("    {}", rule(step))));
    }
    lines
}

fn policy(step: &PolicyStep) -> String {
    let PolicyStep {
        kind,
        name,
        selector,
        rules,
    } = step;
    match kind {
        PolicyKind::NetworkPolicy { namespace } => {
            let empty = if rules.is_empty() {
                ", and has no rules"
            } else {
                ""
            };
            format!("NetworkPolicy {namespace}/{name} selects it by {selector}{empty}")
        }
        PolicyKind::ClusterNetworkPolicy { tier, priority } => format!(
            "{tier} ClusterNetworkPolicy {name} (priority {priority}) has it as subject by {selector}"
        ),
    }
}

fn rule(step: &RuleStep) -> String {
    let RuleStep {
        path,
        name,
        action,
        outcome,
        why,
    } = step;
    let name = name.as_ref().map(|name| format!(" {name:?}"));
    let action_word = action.map(|action| format!(" {action}"));
    let word = match (outcome, action) {
        (Match::Yes, Some(Action::Pass)) => "matches and passes it on",
        (Match::Yes, _) => "matches",
        (Match::No, _) => "no match",
        (Match::Unknown, _) => "unknown",
    };
    format!(
        "{path}{}{} {word}: {why}",
        name.unwrap_or_default(),
        action_word.unwrap_or_default()
    )
}
