//! What the demo prints: text as it goes, or one JSON document at the end.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::cells::Cell;
use super::change::Change;
use super::input::Input;
use super::matrix;
use super::plan::Plan;
use super::probing::{Observed, Probed};

/// Longest list of single cells that is printed.
const LONGEST: usize = 40;

/// Collects and prints.
#[derive(Debug)]
pub struct Report {
    json: bool,
    document: Value,
    failures: usize,
    /// Whether standard output is a terminal that wants colours.
    colour: bool,
}

impl Report {
    /// Begins a report.
    pub fn new(json: bool) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            json,
            document: json!({}),
            failures: 0,
            colour,
        }
    }

    /// Prints a line of text.
    pub fn line(&self, text: &str) {
        if !self.json {
            println!("{text}");
        }
    }

    /// Counts and prints a failure.
    pub fn failure(&mut self, text: &str) {
        self.failures += 1;
        self.line(&format!("  ! {text}"));
        self.document["failed"] = json!(text);
    }

    fn heading(&self, text: &str) {
        if self.colour {
            self.line(&format!("\n\x1b[1m{text}\x1b[0m"));
        } else {
            self.line(&format!("\n{text}"));
        }
    }

    /// What was read.
    pub fn input(&mut self, path: &Path, input: &Input) {
        let kinds: Vec<String> = input
            .kinds
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        self.line(&format!(
            "{}: {} pods of {} workloads ({}), {} Services, {} NetworkPolicies{}",
            path.display(),
            input.pods.len(),
            input.kinds.iter().map(|(_, count)| count).sum::<usize>(),
            kinds.join(", "),
            input.services.len(),
            input.policies.len(),
            match input.cluster_policies.len() {
                0 => String::new(),
                n => format!(", {n} ClusterNetworkPolicies"),
            },
        ));
        self.document["manifests"] = json!(path.display().to_string());
    }

    /// What will be made of it.
    pub fn plan(&mut self, plan: &Plan) {
        for warning in &plan.warnings {
            eprintln!("warning: {warning}");
        }
        self.document["warnings"] = json!(plan.warnings);
        if !plan.host_pods.is_empty() {
            self.line(&format!(
                "not probed, as they share their node's network: {}",
                plan.host_pods.join(", ")
            ));
        }
        self.document["pods"] = json!(plan.pods.len());
        self.document["outside"] = json!(plan.outside.len());
        self.document["notProbed"] = json!(plan.host_pods);
        self.document["undeclaredPort"] = json!(plan.undeclared.port);
    }

    /// How long something took.
    pub fn timing(&mut self, what: &str, took: Duration) {
        self.line(&format!("{what}: {}", seconds(took)));
        self.document["seconds"][what] = json!(took.as_secs_f64());
    }

    /// How long the pods took.
    pub fn pods(&mut self, count: usize, took: Duration, adds: &[Duration]) {
        let mut sorted = adds.to_vec();
        sorted.sort();
        let at = |part: usize| {
            sorted
                .get(sorted.len() * part / 100)
                .copied()
                .unwrap_or_default()
        };
        self.line(&format!(
            "{count} pods wired by weir-cni: {} (one pod: median {}, 95 % {})",
            seconds(took),
            seconds(at(50)),
            seconds(at(95)),
        ));
        self.document["seconds"]["pods"] = json!(took.as_secs_f64());
        self.document["seconds"]["podMedian"] = json!(at(50).as_secs_f64());
    }

    /// The matrix, and every cell that is not as expected.
    pub fn matrix(&mut self, plan: &Plan, cells: &[Cell], probed: &Probed) {
        self.heading("Expected against observed");
        self.line(&format!(
            "every pair on its declared ports and on {}/TCP, which no manifest declares\n{}\n",
            plan.undeclared.port,
            matrix::LEGEND
        ));
        self.line(&matrix::render(plan, cells, &probed.observed, self.colour));
        self.document["cells"] = self.summary(plan, cells, probed);
    }

    /// Prints the totals and the mismatches of a round; returns them for the document.
    fn summary(&mut self, plan: &Plan, cells: &[Cell], probed: &Probed) -> Value {
        let mismatches = matrix::mismatches(plan, cells, &probed.observed);
        let count = |what: fn(&Observed) -> bool| {
            probed
                .observed
                .iter()
                .filter(|observed| what(observed))
                .count()
        };
        let allowed = count(|observed| matches!(observed, Observed::Allowed(_)));
        let denied = count(|observed| *observed == Observed::Denied);
        let refused = count(|observed| *observed == Observed::Refused);
        let missing = count(|observed| *observed == Observed::NotApplicable);
        let agree = cells.len() - mismatches.len() - missing;
        self.line(&format!(
            "{} cells: {agree} as expected ({allowed} allowed, {denied} denied, {refused} refused), \
             {} not, {missing} n/a; probed in {}{}",
            cells.len(),
            mismatches.len(),
            seconds(probed.took),
            match probed.second_tries {
                0 => String::new(),
                tries => format!(", {tries} needed a second try"),
            },
        ));
        for mismatch in mismatches.iter().take(LONGEST) {
            self.line(&format!("  ! {mismatch}"));
        }
        if mismatches.len() > LONGEST {
            self.line(&format!("  … and {} more", mismatches.len() - LONGEST));
        }
        self.failures += mismatches.len();
        json!({
            "total": cells.len(),
            "agree": agree,
            "disagree": mismatches.len(),
            "notApplicable": missing,
            "allowed": allowed,
            "denied": denied,
            "refused": refused,
            "secondTries": probed.second_tries,
            "seconds": probed.took.as_secs_f64(),
            "mismatches": mismatches,
        })
    }

    /// The live change and the cells it changed.
    pub fn change(
        &mut self,
        plan: &Plan,
        before: &[Cell],
        cells: &[Cell],
        change: &Change,
        in_force: Duration,
        probed: &Probed,
    ) {
        self.heading(&format!("Live: {}", change.text));
        self.line(&format!(
            "in force after {}; {} cells change:",
            seconds(in_force),
            change.changes.len()
        ));
        let lines = changed_lines(plan, before, cells, change);
        for line in lines.iter().take(LONGEST) {
            self.line(&format!("  {line}"));
        }
        if lines.len() > LONGEST {
            self.line(&format!("  … and {} more", lines.len() - LONGEST));
        }
        let mut summary = self.summary(plan, cells, probed);
        summary["change"] = json!(change.text);
        summary["changedCells"] = json!(change.changes.len());
        summary["secondsToForce"] = json!(in_force.as_secs_f64());
        self.document["afterChange"] = summary;
    }

    /// One denied probe, explained.
    pub fn trace(&mut self, cell: &str, command: &str, text: &str, agrees: bool) {
        self.heading(&format!("Why is {cell} denied?"));
        self.line(&format!("$ {command}"));
        for line in text.lines() {
            self.line(&format!("  {line}"));
        }
        if !agrees {
            self.line("  ! weir policy trace does not end with exit code 1 (denied)");
            self.failures += 1;
        }
        self.document["trace"] = json!({"command": command, "text": text, "agrees": agrees});
    }

    /// The last word; 0 if everything was as expected, else 1.
    pub fn finish(&mut self) -> u8 {
        let code = u8::from(self.failures > 0);
        self.document["failures"] = json!(self.failures);
        if self.json {
            println!("{:#}", self.document);
        } else if code == 0 {
            self.heading("observed = expected for every cell");
        } else {
            self.heading(&format!("{} not as expected", self.failures));
        }
        code
    }
}

/// The changed cells, those of one pair of workloads and one port on one line.
fn changed_lines(plan: &Plan, before: &[Cell], cells: &[Cell], change: &Change) -> Vec<String> {
    let mut groups: Vec<(String, usize)> = Vec::new();
    for &index in &change.changes {
        let cell = &cells[index];
        let line = format!(
            "{} -> {} {}/{}: {} -> {}",
            matrix::group_name(plan, cell.from),
            matrix::group_name(plan, cell.to),
            cell.listen.port,
            cell.listen.proto.name(),
            before[index].expected(),
            cell.expected(),
        );
        match groups.iter_mut().find(|(known, _)| *known == line) {
            Some((_, count)) => *count += 1,
            None => groups.push((line, 1)),
        }
    }
    groups
        .into_iter()
        .map(|(line, count)| format!("{line} ({count} cells)"))
        .collect()
}

fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
