//! A Service's backends in a trace.

use weir_oracle::Answer;

use super::layout::{cut, wrap};
use super::report::{Kernel, Other, Report};
use super::words::{told_of, words};

/// Most lines about further backends, unless all is asked for.
const MOST_OTHERS: usize = 4;

/// Which backend is explained, and what the kernel says of the others.
pub(super) fn service_lines(report: &Report<'_>, verbose: bool) -> Vec<String> {
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
    let first = &report.outcome.judged.answer;
    let others = report.others.iter();
    let told: Vec<(bool, String)> = others.map(|other| other_line(other, first)).collect();
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

/// Whether the kernel disagrees; the backend, what decides where that is not what decides of the
/// first, and what the kernel says.
fn other_line(other: &Other<'_>, first: &Answer) -> (bool, String) {
    let answer = &other.judged.answer;
    let ends = [
        ("egress", &answer.egress, &first.egress, &other.egress),
        ("ingress", &answer.ingress, &first.ingress, &other.ingress),
    ];
    let mut line = format!("  {}", other.candidate);
    for (name, report, of_first, _) in ends {
        if report.decision != of_first.decision {
            line.push_str(&format!("; {name} {}", words(report)));
        }
    }
    let said: Vec<String> = ends
        .iter()
        .filter_map(|(name, _, _, kernel)| match kernel {
            Kernel::Agrees(_) => Some(format!("{name} agrees")),
            Kernel::Disagrees(verdict) => Some(format!("{name} DISAGREES ({})", told_of(verdict))),
            Kernel::NotAsked(why) => Some(format!("{name} not asked ({why})")),
            Kernel::Exempt | Kernel::NotSubject => None,
        })
        .collect();
    if !said.is_empty() {
        line.push_str(&format!("; kernel: {}", said.join(", ")));
    }
    let disagrees = ends
        .iter()
        .any(|(_, _, _, kernel)| matches!(kernel, Kernel::Disagrees(_)));
    (disagrees, line)
}
