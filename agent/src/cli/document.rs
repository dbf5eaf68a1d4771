//! A trace for programs.

use serde_json::{Value as Json, json};
use weir_oracle::{Match, PolicyKind, PolicyStep, Report as EndReport, RuleStep};

use super::live;
use super::report::{Kernel, Report, Side};

/// For programs.
pub(super) fn document(report: &Report<'_>) -> Json {
    let judged = &report.outcome.judged;
    let [egress, ingress] = report.sides().map(|side| side_document(&side));
    let others: Vec<Json> = report
        .others
        .iter()
        .map(|other| {
            json!({
                "backend": other.candidate,
                "egress": other_end(&other.judged.answer.egress, &other.egress),
                "ingress": other_end(&other.judged.answer.ingress, &other.ingress),
            })
        })
        .collect();
    json!({
        "verdict": judged.answer.verdict,
        "from": report.question.from,
        "to": report.question.to,
        "protocol": judged.query.protocol.to_string(),
        "port": judged.query.port,
        "family": judged.answer.family.map(|f| f.to_string()),
        "state": if judged.query.reply { "reply" } else { "new" },
        "service": report.outcome.service,
        "candidates": report.outcome.candidates,
        "otherBackends": others,
        "egress": egress,
        "ingress": ingress,
    })
}

fn other_end(report: &EndReport, said: &Kernel) -> Json {
    let mut value = json!(report.decision);
    value["kernel"] = kernel(said);
    value
}

fn side_document(side: &Side<'_>) -> Json {
    let mut value = json!(side.report.decision);
    let steps: Vec<Json> = side.report.steps.iter().map(step).collect();
    value["end"] = json!(side.party.to_string());
    value["address"] = json!(side.party.address);
    value["node"] = json!(side.party.node);
    value["policies"] = json!(steps);
    value["otherPolicies"] = json!(side.report.other_policies);
    value["otherClusterPolicies"] = json!(side.report.other_cluster_policies);
    value["kernel"] = kernel(side.kernel);
    if let Some(program) = side.program {
        value["program"] = live::document(program);
    }
    value
}

fn step(step: &PolicyStep) -> Json {
    let rules: Vec<Json> = step.rules.iter().map(rule).collect();
    match &step.kind {
        PolicyKind::NetworkPolicy { namespace } => json!({
            "kind": "NetworkPolicy",
            "namespace": namespace,
            "name": step.name,
            "podSelector": step.selector,
            "rules": rules,
        }),
        PolicyKind::ClusterNetworkPolicy { tier, priority } => json!({
            "kind": "ClusterNetworkPolicy",
            "name": step.name,
            "tier": tier,
            "priority": priority,
            "subject": step.selector,
            "rules": rules,
        }),
    }
}

fn rule(rule: &RuleStep) -> Json {
    let matches = match rule.outcome {
        Match::Yes => json!(true),
        Match::No => json!(false),
        Match::Unknown => Json::Null,
    };
    let mut value = json!({"path": rule.path, "matches": matches, "why": rule.why});
    if let Some(action) = rule.action {
        value["action"] = json!(action);
    }
    if let Some(name) = &rule.name {
        value["rule"] = json!(name);
    }
    value
}

fn kernel(kernel: &Kernel) -> Json {
    match kernel {
        Kernel::Agrees(verdict) => json!({"state": "agrees", "verdict": verdict}),
        Kernel::Disagrees(verdict) => json!({"state": "disagrees", "verdict": verdict}),
        Kernel::NotAsked(why) => json!({"state": "not-asked", "why": why}),
        Kernel::NotSubject => json!({"state": "not-subject"}),
        Kernel::Exempt => json!({"state": "exempt"}),
    }
}
