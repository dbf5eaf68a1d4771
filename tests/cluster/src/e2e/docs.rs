//! What a run gave: the table at its end, and docs/conformance.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use serde::Serialize;

use super::results::{Outcome, Results};
use super::spec::{Selection, Spec, Suite};
use crate::count::Count;

/// What the results were made on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    kernel: String,
    kubernetes: String,
    runtime: String,
    nodes: usize,
}

impl Machine {
    /// As the nodes report it.
    ///
    /// # Errors
    /// The API server does not answer, or there is no node.
    pub async fn ask(client: &kube::Client) -> Result<Self> {
        let api: Api<Node> = Api::all(client.clone());
        let nodes = api
            .list(&ListParams::default())
            .await
            .context("cannot list the nodes: is the cluster up?")?
            .items;
        let info = nodes
            .iter()
            .find_map(|node| node.status.as_ref()?.node_info.clone())
            .context("the cluster has no node")?;
        Ok(Self {
            kernel: info.kernel_version,
            kubernetes: info.kubelet_version,
            runtime: info.container_runtime_version,
            nodes: nodes.len(),
        })
    }
}

/// A spec that ran.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ran {
    #[serde(flatten)]
    spec: Spec,
    seconds: f64,
    /// Seconds since 1970.
    at: u64,
    /// How often it was run, and how often of these it failed.
    runs: usize,
    failures: usize,
    reason: String,
    log: String,
}

/// A spec that did not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Left {
    #[serde(flatten)]
    spec: Spec,
    reason: String,
}

/// All that is known of a selection.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    passed: Vec<Ran>,
    failed: Vec<Ran>,
    skipped: Vec<Left>,
    not_run: Vec<Spec>,
}

impl Report {
    /// Puts together what was selected and what is known.
    pub fn of(selection: &Selection, results: &Results) -> Self {
        let mut report = Self::default();
        for (spec, cause, reason) in &selection.skipped {
            report.skipped.push(Left {
                spec: spec.clone(),
                reason: format!("{cause}: {reason}"),
            });
        }
        for spec in &selection.run {
            let Some(known) = results.get(spec) else {
                report.not_run.push(spec.clone());
                continue;
            };
            let last = &known.last;
            let ran = Ran {
                spec: spec.clone(),
                seconds: last.seconds,
                at: last.at,
                runs: known.runs,
                failures: known.failures,
                reason: last.reason.clone(),
                log: last.log.display().to_string(),
            };
            match last.outcome {
                Outcome::Passed => report.passed.push(ran),
                Outcome::Failed => report.failed.push(ran),
                Outcome::Skipped => report.skipped.push(Left {
                    spec: spec.clone(),
                    reason: format!("by itself: {}", first_line(&last.reason)),
                }),
            }
        }
        report
    }

    /// How many of each.
    pub fn count(&self) -> Count {
        Count {
            passed: self.passed.len(),
            failed: self.failed.len(),
            skipped: self.skipped.len(),
        }
    }

    /// Rows of the table: by suite and group, and what is Conformance.
    fn rows(&self) -> BTreeMap<(Suite, String), [usize; 4]> {
        let mut rows: BTreeMap<(Suite, String), [usize; 4]> = BTreeMap::new();
        let passed = self.passed.iter().map(|ran| (&ran.spec, 0));
        let failed = self.failed.iter().map(|ran| (&ran.spec, 1));
        let skipped = self.skipped.iter().map(|left| (&left.spec, 2));
        let not_run = self.not_run.iter().map(|spec| (spec, 3));
        for (spec, column) in passed.chain(failed).chain(skipped).chain(not_run) {
            rows.entry((spec.suite, spec.group().to_owned()))
                .or_default()[column] += 1;
            if spec.suite == Suite::K8s && spec.conformance() {
                let name = "(all that is Conformance)".to_owned();
                rows.entry((Suite::K8s, name)).or_default()[column] += 1;
            }
        }
        rows
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The table at the end of a run, and what failed.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n{:<5} {:<28} {:>7} {:>7} {:>8} {:>8}",
        "suite", "group", "passed", "failed", "skipped", "not run"
    );
    for ((suite, group), [passed, failed, skipped, not_run]) in report.rows() {
        let suite = suite.to_string();
        let _ = writeln!(
            text,
            "{suite:<5} {group:<28} {passed:>7} {failed:>7} {skipped:>8} {not_run:>8}"
        );
    }
    if !report.skipped.is_empty() {
        let _ = writeln!(text, "\nskipped:");
    }
    for left in &report.skipped {
        let _ = writeln!(text, "  {}\n      {}", left.spec.name, left.reason);
    }
    if !report.failed.is_empty() {
        let _ = writeln!(text, "\nfailed:");
    }
    for ran in &report.failed {
        let _ = writeln!(
            text,
            "  {}\n      {}\n      {}",
            ran.spec.name,
            first_line(&ran.reason),
            ran.log
        );
    }
    text
}

/// The page.
pub fn render(report: &Report, machine: &Machine) -> String {
    let mut text = String::from(HEAD);
    let ran = report.passed.iter().chain(&report.failed);
    let (first, last) = ran.fold((u64::MAX, 0), |(first, last), ran| {
        (first.min(ran.at), last.max(ran.at))
    });
    let when = match (day(first.min(last)), day(last)) {
        (first, last) if first == last => last,
        (first, last) => format!("{first} to {last}"),
    };
    let Machine {
        kernel,
        kubernetes,
        runtime,
        nodes,
    } = machine;
    let _ = writeln!(
        text,
        "Run {when}: Kubernetes {kubernetes}, {runtime}, Linux {kernel}, {nodes} nodes.\n\n\
         **{}**; {} not run.\n",
        report.count(),
        report.not_run.len()
    );
    let _ = writeln!(
        text,
        "| suite | group | passed | failed | skipped | not run |\n| --- | --- | ---: | ---: | ---: | ---: |"
    );
    for ((suite, group), [passed, failed, skipped, not_run]) in report.rows() {
        let _ = writeln!(
            text,
            "| {suite} | {group} | {passed} | {failed} | {skipped} | {not_run} |"
        );
    }
    let _ = writeln!(text, "\n## Failed\n");
    for ran in &report.failed {
        let _ = writeln!(
            text,
            "- {}<br>{}",
            escape(&ran.spec.name),
            escape(first_line(&ran.reason))
        );
    }
    none_if(&mut text, report.failed.is_empty());
    let _ = writeln!(text, "\n## Passed, but not each time\n");
    let flaky = || report.passed.iter().filter(|ran| ran.failures > 0);
    for ran in flaky() {
        let _ = writeln!(
            text,
            "- {} (failed {} of {} runs, the last one passed)",
            escape(&ran.spec.name),
            ran.failures,
            ran.runs
        );
    }
    none_if(&mut text, flaky().next().is_none());
    let _ = writeln!(text, "\n## Skipped\n");
    for left in &report.skipped {
        let _ = writeln!(
            text,
            "- {}<br>{}",
            escape(&left.spec.name),
            escape(&left.reason)
        );
    }
    none_if(&mut text, report.skipped.is_empty());
    if !report.not_run.is_empty() {
        let _ = writeln!(text, "\n## Not run\n");
    }
    for spec in &report.not_run {
        let _ = writeln!(text, "- {}", escape(&spec.name));
    }
    let _ = writeln!(text, "\n## Passed\n");
    for ran in &report.passed {
        let _ = writeln!(text, "- {} ({:.0} s)", escape(&ran.spec.name), ran.seconds);
    }
    none_if(&mut text, report.passed.is_empty());
    text
}

const HEAD: &str = "# Conformance

The upstream tests of what Weir does, run in a cluster of `cargo xtask cluster up` by
`cargo xtask e2e --write-docs docs/conformance.md`, which writes this page. `k8s` is what belongs to sig-network in
Kubernetes' own e2e.test, `npa` the conformance suite of sigs.k8s.io/network-policy-api. A spec is skipped for a cloud
provider, a feature gate that is off, or a kernel module that the machine lacks (`tests/cluster/e2e-skips.yaml`), or
because it leaves itself out while it runs; then its own words are quoted.

";

fn none_if(text: &mut String, none: bool) {
    if none {
        text.push_str("None.\n");
    }
}

/// Names have brackets and angle brackets, which Markdown would take for links and tags.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '[' | ']' | '*' | '_' | '`' | '|' | '\\' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// The day of a time in seconds since 1970, as 2026-01-31 (UTC).
fn day(at: u64) -> String {
    let time = i64::try_from(at)
        .ok()
        .and_then(|at| k8s_openapi::jiff::Timestamp::from_second(at).ok());
    time.map(|time| time.strftime("%Y-%m-%d").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::results::Ended;
    use super::super::skips::Cause;
    use super::*;

    fn spec(name: &str) -> Spec {
        Spec {
            suite: Suite::K8s,
            name: format!("[sig-network] {name}"),
        }
    }

    fn ended(name: &str, outcome: Outcome, reason: &str) -> Ended {
        Ended {
            spec: spec(name),
            outcome,
            reason: reason.to_owned(),
            seconds: 3.0,
            at: 1_790_000_000,
            log: PathBuf::from("a.log"),
        }
    }

    fn report() -> Report {
        let dir = tempfile::tempdir().expect("a folder");
        let mut results = Results::open(dir.path()).expect("results");
        for one in [
            ended("DNS a", Outcome::Failed, "failed: x"),
            ended("DNS a", Outcome::Passed, ""),
            ended("Netpol b", Outcome::Failed, "failed: <nil>\nmore"),
            ended("HostPort c", Outcome::Skipped, "needs two clouds"),
        ] {
            results.add(one).expect("kept");
        }
        let selection = Selection {
            run: ["DNS a", "Netpol b", "HostPort c", "DNS d"]
                .map(spec)
                .into(),
            skipped: vec![(spec("Netpol e"), Cause::KernelModule, "sctp".to_owned())],
        };
        Report::of(&selection, &results)
    }

    #[test]
    fn each_spec_is_counted_once_by_its_last_result() {
        let report = report();
        assert_eq!(report.count().to_string(), "1 passed, 1 failed, 2 skipped");
        assert_eq!(report.not_run, [spec("DNS d")]);
        let rows = report.rows();
        assert_eq!(rows[&(Suite::K8s, "DNS".to_owned())], [1, 0, 0, 1]);
        assert_eq!(rows[&(Suite::K8s, "Netpol".to_owned())], [0, 1, 1, 0]);
    }

    #[test]
    fn the_page_names_every_spec_with_its_reason_and_what_passed_only_in_the_end() {
        let page = render(
            &report(),
            &Machine {
                nodes: 2,
                ..Machine::default()
            },
        );
        for line in [
            r"- \[sig-network\] Netpol b<br>failed: &lt;nil>",
            r"- \[sig-network\] DNS a (failed 1 of 2 runs, the last one passed)",
            r"- \[sig-network\] Netpol e<br>kernel module: sctp",
            r"- \[sig-network\] HostPort c<br>by itself: needs two clouds",
            r"- \[sig-network\] DNS d",
            r"- \[sig-network\] DNS a (3 s)",
            "Run 2026-09-21",
        ] {
            assert!(page.contains(line), "no `{line}` in\n{page}");
        }
    }

    #[test]
    fn the_table_says_what_failed_and_where_its_log_is() {
        let table = table(&report());
        assert!(
            table.contains("failed: <nil>") && table.contains("a.log"),
            "{table}"
        );
    }
}
