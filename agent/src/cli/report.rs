//! How a trace is shown: verdict and cause in the first three lines, then the steps of both ends.

use weir_api::verdict::KernelVerdict;
use weir_oracle::{Party, Report as EndReport};

use super::backends::service_lines;
use super::cause::causes;
use super::color::Colors;
use super::layout::{cut, wrap};
use super::live::{Live, Program};
use super::question::{Judged, Outcome, Question};
use super::steps::{heading, steps, tail};

/// Most lines, unless all is asked for.
const LINES: usize = 40;

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

/// A Service's further backend, and what the kernel says of it.
pub(super) struct Other<'a> {
    /// The backend and the verdict, in words.
    pub candidate: &'a str,
    /// What the objects say of it.
    pub judged: &'a Judged,
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
    pub name: &'static str,
    /// The direction whose policies judge: of a reply that of the connection.
    pub judged: &'static str,
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
    let egress = shorten(egress, share, sides[0].report);
    let ingress = shorten(ingress, room.saturating_sub(egress.len()), sides[1].report);
    [egress, ingress]
}

/// The first of the lines, cut; and the last, if it is that of the rule that decides.
fn shorten(mut lines: Vec<String>, share: usize, report: &EndReport) -> Vec<String> {
    lines.iter_mut().for_each(|line| *line = cut(line, false));
    if lines.len() > share {
        let last = lines.pop().filter(|_| report.decision.rule.is_some());
        let kept = share.saturating_sub(1 + usize::from(last.is_some()));
        let rest = lines.len() + usize::from(last.is_none()) - kept;
        lines.truncate(kept);
        lines.push(format!("  … {rest} more lines: --verbose shows them"));
        lines.extend(last);
    }
    lines
}
