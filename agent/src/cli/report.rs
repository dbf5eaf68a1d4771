//! How a trace is shown: verdict and cause in the first three lines, then the steps of both ends.

use serde_json::{Value as Json, json};
use weir_api::verdict::KernelVerdict;
use weir_oracle::{Decision, Match, Party, PolicyStep, Reason, Report as EndReport, RuleStep};

use super::color::Colors;
use super::question::{Outcome, Question};

/// Most lines, and characters of a line, unless all is asked for.
const LINES: usize = 40;
const WIDTH: usize = 100;

/// What the kernel says of an end.
#[derive(Clone, Debug)]
pub(super) enum Kernel {
    /// The same as the objects.
    Agrees(KernelVerdict),
    /// Something else.
    Disagrees(KernelVerdict),
    /// Nobody could be asked.
    NotAsked(String),
    /// The end is no pod of ours: no maps are asked for it.
    NotSubject,
    /// The node's own traffic passes before any map is asked.
    Exempt,
}

/// All that a trace found.
pub(super) struct Report<'a> {
    pub question: &'a Question,
    pub outcome: &'a Outcome,
    pub egress: &'a Kernel,
    pub ingress: &'a Kernel,
}

struct Side<'a> {
    name: &'static str,
    party: &'a Party,
    report: &'a EndReport,
    kernel: &'a Kernel,
}

impl Report<'_> {
    fn sides(&self) -> [Side<'_>; 2] {
        let answer = &self.outcome.judged.answer;
        [
            Side {
                name: "egress",
                party: &answer.from,
                report: &answer.egress,
                kernel: self.egress,
            },
            Side {
                name: "ingress",
                party: &answer.to,
                report: &answer.ingress,
                kernel: self.ingress,
            },
        ]
    }

    fn flow(&self) -> String {
        let query = &self.outcome.judged.query;
        let port = match query.port {
            Some(port) => format!("{port}/{}", query.protocol),
            None => query.protocol.to_string(),
        };
        let family = self.outcome.judged.answer.family;
        let family = family.map(|f| format!(", {f}")).unwrap_or_default();
        let reply = if query.reply { ", reply" } else { "" };
        let (from, to) = (&self.question.from, &self.question.to);
        format!("{from} -> {to}, {port}{family}{reply}")
    }
}

/// For people. A line that is cut ends in `…`.
pub(super) fn text(report: &Report<'_>, verbose: bool, colors: Colors) -> String {
    let answer = &report.outcome.judged.answer;
    let allowed = answer.verdict.allowed();
    let word = if allowed { "ALLOWED" } else { "DENIED" };
    let mut lines = vec![format!("{word}  {}", report.flow())];
    lines.extend(causes(report));
    if let Some(service) = &report.outcome.service {
        let candidates = &report.outcome.candidates;
        let rest = match candidates.len() {
            0 | 1 => String::new(),
            n => format!(" (1 of {n} backends, all with this verdict)"),
        };
        let first = candidates.first().map(String::as_str).unwrap_or_default();
        lines.push(format!("service {service}: backend {first}{rest}"));
    }
    let sides = report.sides();
    // Each side has a blank line, a heading, a line of others and two of the kernel.
    let room = LINES.saturating_sub(lines.len() + 2 * 5);
    let needs: Vec<usize> = sides.iter().map(|s| steps(s.report).len()).collect();
    for (i, side) in sides.iter().enumerate() {
        let other = needs[1 - i];
        let share = room.saturating_sub(other.min(room / 2));
        let share = if verbose { usize::MAX } else { share };
        lines.push(String::new());
        side_lines(side, share, &mut lines);
    }
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let line = if verbose { line.clone() } else { cut(line) };
        let line = match number {
            0 => line.replacen(word, &colors.by(allowed, &colors.bold(word)), 1),
            _ if line.contains("kernel: DISAGREES") => colors.bad(&line),
            _ => line,
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// A line for each end, or for each that denies.
fn causes(report: &Report<'_>) -> Vec<String> {
    let sides = report.sides();
    let denying = sides
        .iter()
        .filter(|s| !s.report.decision.verdict.allowed());
    let denied: Vec<String> = denying
        .map(|side| format!("cause: {} of {}: {}", side.name, side.party, cause(side)))
        .collect();
    if !denied.is_empty() {
        return denied;
    }
    sides
        .iter()
        .map(|side| format!("cause: {} {}", side.name, words(&side.report.decision)))
        .collect()
}

/// Why an end denies.
fn cause(side: &Side<'_>) -> String {
    let policies = &side.report.decision.isolated_by;
    let names: Vec<String> = policies
        .iter()
        .map(|p| format!("{}/{}", p.namespace.as_deref().unwrap_or_default(), p.name))
        .collect();
    let rules: usize = side.report.steps.iter().map(|s| s.rules.len()).sum();
    let shown = match names.as_slice() {
        [first, second, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second} and {} more", rest.len())
        }
        few => few.join(", "),
    };
    let none = match rules {
        0 => "which allow nothing".to_owned(),
        1 => "whose one rule does not match".to_owned(),
        n => format!("none of whose {n} rules match"),
    };
    format!("isolated by {shown}, {none}")
}

/// A decision in words.
fn words(decision: &Decision) -> String {
    match (decision.reason, &decision.rule) {
        (Reason::Rule, Some(rule)) => format!("allowed by {rule}"),
        (Reason::Isolated, _) => "denied: isolated, and no rule matches".to_owned(),
        (Reason::NotSelected, _) => "allowed: no policy selects the pod".to_owned(),
        (Reason::NotSubject, _) => "not subject to policies".to_owned(),
        (Reason::Reply, _) => "allowed: it answers an allowed connection".to_owned(),
        (Reason::Itself, _) => "allowed: a pod reaches itself".to_owned(),
        (Reason::OwnNode, _) => "allowed: a node reaches its own pods".to_owned(),
        (Reason::Rule, None) => "allowed by a rule".to_owned(),
    }
}

fn side_lines(side: &Side<'_>, share: usize, lines: &mut Vec<String>) {
    let node = match (&side.party.node, &side.party.kind) {
        (_, weir_oracle::PartyKind::Node) | (None, _) => String::new(),
        (Some(node), _) => format!(" on node {node}"),
    };
    let addr = side
        .party
        .address
        .map(|a| format!(" ({a})"))
        .unwrap_or_default();
    let decision = words(&side.report.decision);
    lines.push(format!(
        "{} of {}{addr}{node}: {decision}",
        side.name, side.party
    ));
    let steps = steps(side.report);
    let fits = steps.len() <= share;
    let shown = if fits {
        steps.len()
    } else {
        share.saturating_sub(1)
    };
    lines.extend(steps.iter().take(shown).cloned());
    if !fits {
        let rest = steps.len() - shown;
        lines.push(format!("  … {rest} more lines: --verbose shows them"));
    }
    let selecting = side.report.steps.len();
    if selecting > 0 && side.report.other_policies > 0 {
        let others = side.report.other_policies;
        lines.push(format!(
            "  {others} more in the namespace do not select it for {}",
            side.name
        ));
    }
    lines.extend(kernel_lines(side));
}

/// A line for each policy that selects the pod, and for each of its rules.
fn steps(report: &EndReport) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &report.steps {
        let PolicyStep {
            namespace,
            name,
            selector,
            rules,
        } = step;
        let empty = if rules.is_empty() {
            ", and has no rules"
        } else {
            ""
        };
        lines.push(format!(
            "  NetworkPolicy {namespace}/{name} selects it by {selector}{empty}"
        ));
        for rule in rules {
            let RuleStep { path, outcome, why } = rule;
            let word = match outcome {
                Match::Yes => "matches",
                Match::No => "no match",
                Match::Unknown => "unknown",
            };
            lines.push(format!("    {path} {word}: {why}"));
        }
    }
    lines
}

fn kernel_lines(side: &Side<'_>) -> Vec<String> {
    let told = |verdict: &KernelVerdict| {
        let word = if verdict.allowed { "allow" } else { "deny" };
        format!("{word}, {}", rule_name(verdict))
    };
    let line = match side.kernel {
        Kernel::Agrees(verdict) => format!("kernel: agrees ({})", told(verdict)),
        Kernel::Disagrees(verdict) => format!(
            "kernel: DISAGREES ({}; group {}, class {})",
            told(verdict),
            verdict.group,
            verdict.class
        ),
        Kernel::NotAsked(why) => format!("kernel: not asked ({why})"),
        Kernel::Exempt => "kernel: lets its node's own traffic pass unjudged".to_owned(),
        Kernel::NotSubject => return Vec::new(),
    };
    vec![format!("  {line}")]
}

/// The rule that the kernel names. The first ids are fixed reasons (`weir_abi::policy::RuleId`).
fn rule_name(verdict: &KernelVerdict) -> String {
    use weir_abi::policy::RuleId;
    let text = |key: &str| {
        let rule = verdict.rule.as_ref()?;
        Some(rule.get(key)?.as_str()?.to_owned())
    };
    match (RuleId(verdict.rule_id), text("name")) {
        (_, Some(name)) => {
            let namespace = text("namespace").map(|n| n + "/").unwrap_or_default();
            let path = text("path").map(|p| format!(" {p}")).unwrap_or_default();
            format!("{namespace}{name}{path}")
        }
        (RuleId::NO_ROW, None) => "no row for this peer".to_owned(),
        (RuleId::NOT_SELECTED, None) => "no policy".to_owned(),
        (RuleId::SELF, None) => "itself".to_owned(),
        (RuleId(id), None) => format!("rule {id}"),
    }
}

/// At most [`WIDTH`] characters.
fn cut(line: &str) -> String {
    if line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(WIDTH - 1).collect();
    short.push('…');
    short
}

/// For programs.
pub(super) fn document(report: &Report<'_>) -> Json {
    let judged = &report.outcome.judged;
    let [egress, ingress] = report.sides().map(|side| side_document(&side));
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
    let kernel = match side.kernel {
        Kernel::Agrees(verdict) => json!({"state": "agrees", "verdict": verdict}),
        Kernel::Disagrees(verdict) => json!({"state": "disagrees", "verdict": verdict}),
        Kernel::NotAsked(why) => json!({"state": "not-asked", "why": why}),
        Kernel::NotSubject => json!({"state": "not-subject"}),
        Kernel::Exempt => json!({"state": "exempt"}),
    };
    value["end"] = json!(side.party.to_string());
    value["address"] = json!(side.party.address);
    value["node"] = json!(side.party.node);
    value["policies"] = json!(steps);
    value["otherPolicies"] = json!(side.report.other_policies);
    value["kernel"] = kernel;
    value
}
