//! The JSON report of Ginkgo, as far as it is needed. Fields: `types.Report` of
//! github.com/onsi/ginkgo/v2.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::results::Outcome;

/// How much of a failure's text is kept, in characters.
const REASON: usize = 2_000;

/// What a report says of one spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// How it ended.
    pub outcome: Outcome,
    /// Why; empty if it passed.
    pub reason: String,
    /// How long it ran.
    pub seconds: f64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    spec_reports: Option<Vec<Report>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    /// Nanoseconds.
    run_time: u64,
    #[serde(default)]
    failure: Failure,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Failure {
    message: String,
    forwarded_panic: String,
    failure_node_location: Location,
    location: Location,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Location {
    file_name: String,
    line_number: u64,
}

impl Report {
    fn name(&self) -> String {
        let containers = self.container_hierarchy_texts.iter().flatten();
        let mut words: Vec<&str> = containers.map(String::as_str).collect();
        if !self.leaf_node_text.is_empty() {
            words.push(&self.leaf_node_text);
        }
        words.join(" ")
    }

    fn reason(&self) -> String {
        let mut text = self.failure.message.trim().to_owned();
        if !self.failure.forwarded_panic.is_empty() {
            text = format!("{text} {}", self.failure.forwarded_panic);
        }
        let place = [&self.failure.location, &self.failure.failure_node_location]
            .into_iter()
            .find(|place| !place.file_name.is_empty());
        if self.state != "skipped"
            && let Some(place) = place
        {
            let file = place
                .file_name
                .rsplit("kubernetes@")
                .next()
                .unwrap_or_default();
            text = format!("{text} ({file}:{})", place.line_number);
        }
        text.chars().take(REASON).collect()
    }

    /// `None` for a spec that was not reached or not chosen.
    fn verdict(&self) -> Option<Verdict> {
        let outcome = match self.state.as_str() {
            "passed" => Outcome::Passed,
            // What is not chosen, or not reached after an interruption, is "skipped" without a word.
            "skipped" if self.failure.message.is_empty() => return None,
            "skipped" => Outcome::Skipped,
            "pending" => return None,
            _ => Outcome::Failed,
        };
        let reason = match outcome {
            Outcome::Passed => String::new(),
            Outcome::Failed => format!("{}: {}", self.state, self.reason()),
            Outcome::Skipped => self.reason(),
        };
        Some(Verdict {
            outcome,
            reason,
            seconds: nanoseconds(self.run_time),
        })
    }
}

fn nanoseconds(count: u64) -> f64 {
    std::time::Duration::from_nanos(count).as_secs_f64()
}

/// What a report says: of each spec that has a result, by its name, and the failure of what is
/// before or after all specs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdicts {
    /// By whole name.
    pub specs: BTreeMap<String, Verdict>,
    /// Why the suite as a whole failed, such as in what prepares it.
    pub suite: Option<String>,
}

/// Reads a report.
///
/// # Errors
/// It is no report: the program was killed while it wrote it, or is another version.
pub fn read(text: &str) -> Result<Verdicts> {
    let suites: Vec<Suite> =
        serde_json::from_str(text).context("this is no JSON report of Ginkgo")?;
    let mut verdicts = Verdicts::default();
    for report in suites
        .into_iter()
        .flat_map(|suite| suite.spec_reports.unwrap_or_default())
    {
        let Some(verdict) = report.verdict() else {
            continue;
        };
        if report.leaf_node_type == "It" {
            verdicts.specs.insert(report.name(), verdict);
        } else if verdict.outcome == Outcome::Failed {
            verdicts.suite = Some(format!("{}: {}", report.leaf_node_type, verdict.reason));
        }
    }
    Ok(verdicts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(kind: &str, leaf: &str, state: &str, message: &str) -> serde_json::Value {
        json!({
            "ContainerHierarchyTexts": if kind == "It" { json!(["[sig-network] DNS"]) } else { json!(null) },
            "LeafNodeType": kind, "LeafNodeText": leaf, "State": state, "RunTime": 2_500_000_000_u64,
            "Failure": { "Message": message, "Location": {
                "FileName": "/go/pkg/mod/k8s.io/kubernetes@v1.36.3/test/e2e/network/dns.go", "LineNumber": 5 } },
        })
    }

    fn of(reports: &[serde_json::Value]) -> Verdicts {
        read(&json!([{ "SpecReports": reports }]).to_string()).expect("a report")
    }

    #[test]
    fn each_state_becomes_an_outcome_with_its_reason() {
        let verdicts = of(&[
            report("It", "a", "passed", ""),
            report("It", "b", "failed", "no answer"),
            report("It", "c", "timedout", "too long"),
            report("It", "d", "skipped", "needs 3 nodes"),
            report("It", "e", "skipped", ""),
        ]);
        let get = |leaf: &str| verdicts.specs.get(&format!("[sig-network] DNS {leaf}"));
        assert_eq!(get("a").expect("a").outcome, Outcome::Passed);
        assert!((get("a").expect("a").seconds - 2.5).abs() < 1e-9);
        let failed = get("b").expect("b");
        assert_eq!(failed.outcome, Outcome::Failed);
        assert_eq!(
            failed.reason,
            "failed: no answer (v1.36.3/test/e2e/network/dns.go:5)"
        );
        assert_eq!(get("c").expect("c").outcome, Outcome::Failed);
        let skipped = get("d").expect("d");
        assert_eq!(
            (skipped.outcome, skipped.reason.as_str()),
            (Outcome::Skipped, "needs 3 nodes")
        );
        assert_eq!(get("e"), None, "it was not chosen, which is no result");
    }

    #[test]
    fn a_suite_that_fails_before_its_specs_skips_none_of_them() {
        let verdicts = of(&[
            report("SynchronizedBeforeSuite", "", "failed", "no nodes"),
            report("It", "a", "skipped", ""),
        ]);
        assert!(verdicts.specs.is_empty());
        let why = verdicts.suite.expect("a failure");
        assert!(why.contains("no nodes"), "{why}");
    }

    #[test]
    fn half_a_report_is_an_error() {
        assert!(read("[{\"SpecReports\": [").is_err());
    }
}
