//! What has been run so far: one JSON object a line, written when a spec ends, so that a run that
//! is cut off is taken up where it was.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::spec::Spec;

/// How a spec ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It held.
    Passed,
    /// It did not hold, ran out of time, or gave no result.
    Failed,
    /// It left itself out while running.
    Skipped,
}

/// What one run of one spec gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Which spec.
    #[serde(flatten)]
    pub spec: Spec,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed, or what it said when it left itself out; empty if it passed.
    pub reason: String,
    /// How long it ran.
    pub seconds: f64,
    /// When it ended, in seconds since 1970.
    pub at: u64,
    /// The output of the program that ran it.
    pub log: PathBuf,
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// What is known of one spec: its last end, and how often it was run and failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// The last run.
    pub last: Ended,
    /// All runs, the last one included.
    pub runs: usize,
    /// Those of them that failed.
    pub failures: usize,
}

/// The file and what it holds.
#[derive(Debug)]
pub struct Results {
    file: File,
    known: BTreeMap<Spec, Known>,
}

impl Results {
    /// Opens or makes `results.jsonl` in `dir`. A last line that was cut off is left out.
    ///
    /// # Errors
    /// The file cannot be made, read or written.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("results.jsonl");
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if !text.is_empty() && !text.ends_with('\n') {
            // So that the next result does not hang on a half line.
            writeln!(file).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let mut results = Self {
            file,
            known: BTreeMap::new(),
        };
        text.lines()
            .filter_map(|line| serde_json::from_str::<Ended>(line).ok())
            .for_each(|ended| results.note(ended));
        Ok(results)
    }

    /// Keeps one result, on the disk before it returns.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, ended: Ended) -> Result<()> {
        let mut line = serde_json::to_string(&ended).context("a result becomes JSON")?;
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data())
            .context("cannot keep a result in results.jsonl")?;
        self.note(ended);
        Ok(())
    }

    fn note(&mut self, ended: Ended) {
        let before = self.known.get(&ended.spec);
        let runs = before.map_or(0, |known| known.runs) + 1;
        let failures = before.map_or(0, |known| known.failures)
            + usize::from(ended.outcome == Outcome::Failed);
        let known = Known {
            last: ended,
            runs,
            failures,
        };
        self.known.insert(known.last.spec.clone(), known);
    }

    /// What is known of a spec.
    pub fn get(&self, spec: &Spec) -> Option<&Known> {
        self.known.get(spec)
    }

    /// The specs of `run` that a resumed run still has to do.
    pub fn remaining(&self, run: &[Spec], resume: Resume) -> Vec<Spec> {
        run.iter()
            .filter(|spec| match (resume, self.get(spec)) {
                (Resume::No, _) | (_, None) => true,
                (Resume::Missing, Some(_)) => false,
                (Resume::Failed, Some(known)) => known.last.outcome != Outcome::Passed,
            })
            .cloned()
            .collect()
    }
}

/// What a run takes over from earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Nothing: all are run.
    No,
    /// Every result: only what has none is run.
    Missing,
    /// What has passed or left itself out: what has failed is run once more.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::super::spec::Suite;
    use super::*;

    fn ended(name: &str, outcome: Outcome) -> Ended {
        Ended {
            spec: Spec {
                suite: Suite::K8s,
                name: name.to_owned(),
            },
            outcome,
            reason: String::new(),
            seconds: 1.5,
            at: 7,
            log: PathBuf::from("x.log"),
        }
    }

    fn names(specs: &[Spec]) -> Vec<&str> {
        specs.iter().map(|spec| spec.name.as_str()).collect()
    }

    #[test]
    fn a_resumed_run_does_what_has_no_result_and_what_did_not_pass_if_asked() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut results = Results::open(dir.path()).expect("results");
        results.add(ended("good", Outcome::Passed)).expect("kept");
        results.add(ended("bad", Outcome::Failed)).expect("kept");
        results.add(ended("out", Outcome::Skipped)).expect("kept");
        drop(results);

        let results = Results::open(dir.path()).expect("results");
        let run: Vec<Spec> = ["bad", "good", "new", "out"]
            .iter()
            .map(|name| ended(name, Outcome::Passed).spec)
            .collect();
        assert_eq!(names(&results.remaining(&run, Resume::Missing)), ["new"]);
        assert_eq!(
            names(&results.remaining(&run, Resume::Failed)),
            ["bad", "new", "out"]
        );
        assert_eq!(results.remaining(&run, Resume::No).len(), 4);
    }

    #[test]
    fn the_last_result_counts_and_earlier_failures_stay_known() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut results = Results::open(dir.path()).expect("results");
        results.add(ended("a", Outcome::Failed)).expect("kept");
        results.add(ended("a", Outcome::Passed)).expect("kept");
        let known = Results::open(dir.path()).expect("results");
        let known = known.get(&ended("a", Outcome::Passed).spec).expect("known");
        assert_eq!(known.last.outcome, Outcome::Passed);
        assert_eq!((known.runs, known.failures), (2, 1));
    }

    #[test]
    fn a_line_that_was_cut_off_is_run_again_and_spoils_no_later_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let whole = serde_json::to_string(&ended("a", Outcome::Passed)).expect("JSON");
        fs::write(dir.path().join("results.jsonl"), &whole[..whole.len() / 2]).expect("written");
        let mut results = Results::open(dir.path()).expect("results");
        assert!(results.get(&ended("a", Outcome::Passed).spec).is_none());
        results.add(ended("b", Outcome::Passed)).expect("kept");
        let results = Results::open(dir.path()).expect("results");
        assert!(results.get(&ended("b", Outcome::Passed).spec).is_some());
    }
}
