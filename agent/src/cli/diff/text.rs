//! A diff for people.

use std::fmt::Write as _;

use super::Diff;
use super::change::{Change, Stretch, Turn};
use crate::cli::color::Colors;
use crate::cli::layout::wrap;

/// Most units that are named in one list, unless all are asked for.
const MOST_UNITS: usize = 8;

pub(super) fn text(diff: &Diff<'_>, verbose: bool, colors: Colors) -> String {
    let mut text = String::new();
    for (turn, title) in [
        (Turn::Denied, "allowed -> denied"),
        (Turn::Allowed, "denied -> allowed"),
    ] {
        let of_turn: Vec<&Change> = diff.changes.all.iter().filter(|c| c.turn == turn).collect();
        if of_turn.is_empty() {
            continue;
        }
        let title = colors.bold(&colors.by(turn == Turn::Allowed, title));
        let _ = writeln!(text, "{title}\n");
        for change in of_turn {
            for line in lines(diff, change, verbose) {
                let _ = writeln!(text, "{line}");
            }
            text.push('\n');
        }
    }
    text.push_str(&summary(diff));
    text
}

/// Who, to whom, which ports, and what decides.
fn lines(diff: &Diff<'_>, change: &Change, verbose: bool) -> Vec<String> {
    let mut lines = wrap(&format!("  {}", list(diff, &change.from, verbose)), verbose);
    lines.extend(wrap(
        &format!("  -> {}", list(diff, &change.to, verbose)),
        verbose,
    ));
    for (family, stretches) in &change.effects {
        let family = match family {
            None => "",
            Some(0) => "IPv4 ",
            Some(_) => "IPv6 ",
        };
        for stretch in stretches.iter() {
            lines.extend(wrap(
                &format!("       {family}{}", told(diff, stretch)),
                verbose,
            ));
        }
    }
    lines
}

fn told(diff: &Diff<'_>, stretch: &Stretch) -> String {
    let words = |causes| diff.tables.words(causes);
    let mut line = format!("{}: {}", stretch.ports.words(), words(&stretch.after));
    if let Some(before) = &stretch.before {
        let _ = write!(line, " (before: {})", words(before));
    }
    line
}

fn list(diff: &Diff<'_>, units: &[usize], verbose: bool) -> String {
    let shown = if verbose { units.len() } else { MOST_UNITS };
    let labels = units
        .iter()
        .take(shown)
        .map(|unit| diff.units[*unit].label.as_str());
    let mut text = labels.collect::<Vec<_>>().join(", ");
    if units.len() > shown {
        let _ = write!(text, " and {} more (--verbose)", units.len() - shown);
    }
    text
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

fn summary(diff: &Diff<'_>) -> String {
    let mut text = String::new();
    let [gone, new] = [0, 1].map(|world| diff.census.only_in.get(world).map_or(&[][..], |l| l));
    for (pods, what) in [(gone, "goes"), (new, "is new")] {
        let what = match (pods.len(), what) {
            (0, _) => continue,
            (1, what) => what,
            (_, "goes") => "go",
            (_, _) => "are new",
        };
        let shown = pods[..pods.len().min(MOST_UNITS)].join(", ");
        let more = if pods.len() > MOST_UNITS { ", …" } else { "" };
        let pods = count(pods.len(), "pod");
        let _ = writeln!(text, "{pods} {what} and cannot be compared: {shown}{more}");
    }
    let Diff {
        changes, policies, ..
    } = diff;
    let [before, after] = policies;
    let _ = match changes.changed {
        0 => write!(
            text,
            "no verdict changes in {}",
            count(changes.compared, "pair")
        ),
        1 => write!(text, "1 of {} changes", count(changes.compared, "pair")),
        n => write!(text, "{n} of {} change", count(changes.compared, "pair")),
    };
    let _ = writeln!(text, "; policies: {before} before, {after} after");
    text
}
