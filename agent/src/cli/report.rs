//! How a trace is shown: verdict and cause in the first three lines, then the steps of both ends.

use weir_api::verdict::KernelVerdict;
use weir_oracle::{Match, Party, PolicyStep, Reason, Report as EndReport, RuleStep};

use super::color::Colors;
use super::layout::{WIDTH, cut, wrap};
use super::live::{self, Live, Program};
use super::question::{Outcome, Question};
use super::words::{kernel_line, told_of, words};

/// Most lines, unless all is asked for.
const LINES: usize = 40;
/// Most lines about a Service's further backends, unless all is asked for.
const MOST_OTHERS: usize = 4;

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

/// What the kernel says of a Service's further backend.
pub(super) struct Other<'a> {
    /// The backend and the verdict, in words.
    pub candidate: &'a str,
    pub egress: Kernel,
    pub ingress: Kernel,
}

/// All that a trace found.
pub(super) struct Report<'a> {
    pub question: &'a Question,
    pub outcome: &'a Outcome,
    pub egress: &'a Kernel,
    pub ingress: &'a Kernel,
    /// The backends after the first.
    pub others: &'a [Other<'a>],
    /// What the programs did with a packet, if they were asked.
    pub live: Option<&'a Live>,
}

pub(super) struct Side<'a> {
    name: &'static str,
    /// The direction whose policies judge: of a reply that of the connection.
    judged: &'static str,
    pub party: &'a Party,
    pub report: &'a EndReport,
    pub kernel: &'a Kernel,
    pub program: Option<&'a Program>,
}

impl Report<'_> {
    pub fn sides(&self) -> [Side<'_>; 2] {
        let answer = &self.outcome.judged.answer;
        let (egress, ingress) = match self.outcome.judged.query.reply {
            false => ("egress", "ingress"),
            true => ("ingress", "egress"),
        };
        [
            Side {
                name: "egress",
                judged: egress,
                party: &answer.from,
                report: &answer.egress,
                kernel: self.egress,
                program: self.live.map(|live| &live.egress),
            },
            Side {
                name: "ingress",
                judged: ingress,
                party: &answer.to,
                report: &answer.ingress,
                kernel: self.ingress,
                program: self.live.map(|live| &live.ingress),
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

/// For people. What does not fit the width goes on in the next line, or, where there are too many
/// lines for that, is cut and ends in `…`.
pub(super) fn text(report: &Report<'_>, verbose: bool, colors: Colors) -> String {
    let answer = &report.outcome.judged.answer;
    let allowed = answer.verdict.allowed();
    let word = if allowed { "ALLOWED" } else { "DENIED" };
    let sides = report.sides();
    let mut head = vec![format!("{word}  {}", report.flow())];
    head.extend(causes(report));
    // Verdict and cause are the first three lines.
    head.iter_mut().for_each(|line| *line = cut(line, verbose));
    head.extend(service_lines(report, verbose));

    let tops = sides.each_ref().map(|side| wrap(&heading(side), verbose));
    let tails = sides.each_ref().map(|side| tail(side, verbose));
    let fixed = |i: usize| 1 + tops[i].len() + tails[i].len();
    let room = LINES.saturating_sub(head.len() + fixed(0) + fixed(1));
    let steps = steps_within(&sides, if verbose { usize::MAX } else { room });

    let mut lines = head;
    for ((top, steps), tail) in tops.into_iter().zip(steps).zip(tails) {
        lines.push(String::new());
        lines.extend(top);
        lines.extend(steps);
        lines.extend(tail);
    }
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let line = match number {
            0 => line.replacen(word, &colors.by(allowed, &colors.bold(word)), 1),
            _ if line.contains("DISAGREES") => colors.bad(line),
            _ => line.clone(),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The steps of both sides in so many lines.
fn steps_within(sides: &[Side<'_>; 2], room: usize) -> [Vec<String>; 2] {
    let all = sides.each_ref().map(|side| steps(side.report));
    if room == usize::MAX {
        return all;
    }
    let wrapped = all.each_ref().map(|lines| {
        let lines = lines.iter().flat_map(|line| wrap(line, false));
        lines.collect::<Vec<_>>()
    });
    if wrapped[0].len() + wrapped[1].len() <= room {
        return wrapped;
    }
    let [egress, ingress] = all;
    let share = room - ingress.len().min(room / 2);
    let egress = shorten(egress, share);
    let ingress = shorten(ingress, room.saturating_sub(egress.len()));
    [egress, ingress]
}

/// The first of the lines, cut.
fn shorten(mut lines: Vec<String>, share: usize) -> Vec<String> {
    lines.iter_mut().for_each(|line| *line = cut(line, false));
    if lines.len() > share {
        let rest = lines.len() - share.saturating_sub(1);
        lines.truncate(share.saturating_sub(1));
        lines.push(format!("  … {rest} more lines: --verbose shows them"));
    }
    lines
}

/// Which backend is explained, and what the kernel says of the others.
fn service_lines(report: &Report<'_>, verbose: bool) -> Vec<String> {
    let Some(service) = &report.outcome.service else {
        return Vec::new();
    };
    let candidates = &report.outcome.candidates;
    let rest = match candidates.len() {
        0 | 1 => String::new(),
        n => format!(" (1 of {n} backends, all with this verdict)"),
    };
    let first = candidates.first().map(String::as_str).unwrap_or_default();
    let mut lines = wrap(
        &format!("service {service}: backend {first}{rest}"),
        verbose,
    );
    let told: Vec<(bool, String)> = report.others.iter().filter_map(other_line).collect();
    let limit = if verbose { usize::MAX } else { MOST_OTHERS };
    let bad = told.iter().filter(|(disagrees, _)| *disagrees);
    let good = told.iter().filter(|(disagrees, _)| !disagrees);
    let shown = bad.chain(good).take(limit);
    lines.extend(shown.map(|(_, line)| cut(line, verbose)));
    if told.len() > limit {
        let rest = told.len() - limit;
        lines.push(format!("  … {rest} more backends: --verbose shows them"));
    }
    lines
}

/// Whether the kernel disagrees, and what it says of a further backend.
fn other_line(other: &Other<'_>) -> Option<(bool, String)> {
    let ends = [("egress", &other.egress), ("ingress", &other.ingress)];
    let said: Vec<String> = ends
        .iter()
        .filter_map(|(name, kernel)| match kernel {
            Kernel::Agrees(_) => Some(format!("{name} agrees")),
            Kernel::Disagrees(verdict) => Some(format!("{name} DISAGREES ({})", told_of(verdict))),
            Kernel::NotAsked(why) => Some(format!("{name} not asked ({why})")),
            Kernel::Exempt | Kernel::NotSubject => None,
        })
        .collect();
    let disagrees = ends
        .iter()
        .any(|(_, kernel)| matches!(kernel, Kernel::Disagrees(_)));
    if said.is_empty() {
        return None;
    }
    let line = format!("  {}; kernel: {}", other.candidate, said.join(", "));
    Some((disagrees, line))
}

/// A line for each end, or for each that denies.
fn causes(report: &Report<'_>) -> Vec<String> {
    let sides = report.sides();
    let denying = sides
        .iter()
        .filter(|s| !s.report.decision.verdict.allowed());
    let denied: Vec<String> = denying.map(cause).collect();
    if !denied.is_empty() {
        return denied;
    }
    sides
        .iter()
        .map(|side| format!("cause: {} {}", side.name, words(&side.report.decision)))
        .collect()
}

/// Why an end denies, with as many of the policies' names as fit.
fn cause(side: &Side<'_>) -> String {
    let policies = &side.report.decision.isolated_by;
    let names: Vec<String> = policies
        .iter()
        .map(|p| format!("{}/{}", p.namespace.as_deref().unwrap_or_default(), p.name))
        .collect();
    let rules: usize = side.report.steps.iter().map(|s| s.rules.len()).sum();
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

/// The end, where it is, and the decision.
fn heading(side: &Side<'_>) -> String {
    use weir_oracle::PartyKind;
    let node = match (&side.party.node, &side.party.kind) {
        (_, PartyKind::Node) | (None, _) => String::new(),
        (Some(node), _) => format!(" on node {node}"),
    };
    let addr = match (&side.party.kind, side.party.address) {
        // Its name is the address.
        (PartyKind::Outside, _) | (_, None) => String::new(),
        (_, Some(address)) => format!(" ({address})"),
    };
    let decision = words(&side.report.decision);
    let connection = match side.report.decision.reason {
        Reason::Isolated if side.name != side.judged => {
            format!(" (the connection it answers, in {})", side.judged)
        }
        _ => String::new(),
    };
    format!(
        "{} of {}{addr}{node}: {decision}{connection}",
        side.name, side.party
    )
}

/// How many policies do not select the pod, and the kernel.
fn tail(side: &Side<'_>, verbose: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let others = side.report.other_policies;
    if !side.report.steps.is_empty() && others > 0 {
        let verb = if others == 1 { "does" } else { "do" };
        lines.push(format!(
            "  {others} more in the namespace {verb} not select it for {}",
            side.judged
        ));
    }
    let kernel = kernel_line(side.kernel);
    let program = side.program.and_then(live::line);
    let told = kernel.iter().chain(&program);
    lines.extend(told.flat_map(|line| wrap(line, verbose)));
    lines
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
