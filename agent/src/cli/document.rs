//! A trace for programs.

use serde_json::{Value as Json, json};
use weir_oracle::Match;

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
                "egress": {"kernel": kernel(&other.egress)},
                "ingress": {"kernel": kernel(&other.ingress)},
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

fn side_document(side: &Side<'_>) -> Json {
    let mut value = json!(side.report.decision);
    let steps: Vec<Json> = side
        .report
        .steps
        .iter()
        .map(|step| {
            let rules: Vec<Json> = step
                .rules
                .iter()
                .map(|rule| {
                    let matches = match rule.outcome {
                        Match::Yes => json!(true),
                        Match::No => json!(false),
                        Match::Unknown => Json::Null,
                    };
                    json!({"path": rule.path, "matches": matches, "why": rule.why})
                })
                .collect();
            json!({
                "kind": "NetworkPolicy",
                "namespace": step.namespace,
                "name": step.name,
                "podSelector": step.selector,
                "rules": rules,
            })
        })
        .collect();
    value["end"] = json!(side.party.to_string());
    value["address"] = json!(side.party.address);
    value["node"] = json!(side.party.node);
    value["policies"] = json!(steps);
    value["otherPolicies"] = json!(side.report.other_policies);
    value["kernel"] = kernel(side.kernel);
    if let Some(program) = side.program {
        value["program"] = live::document(program);
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
