//! Kubernetes' own e2e.test: batches of specs, one process each, several at a time.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::ginkgo::{self, Verdict};
use super::program::{End, Stop, finish, start};
use super::results::{Ended, Outcome, now};
use super::spec::{Spec, parse_list};
use super::{Board, tail};

/// How Ginkgo names the suite in front of each spec when it looks for the focus.
const SUITE: &str = "Kubernetes e2e suite";
/// What a process may need beside its specs.
const START: Duration = Duration::from_secs(120);

/// Where the program is and how it is run.
#[derive(Clone, Debug)]
pub struct K8s {
    /// The folder of `e2e.test` and `kubectl`.
    pub bin: PathBuf,
    /// Of an administrator.
    pub kubeconfig: PathBuf,
    /// Where logs and reports go.
    pub dir: PathBuf,
    /// Specs of one process.
    pub batch: usize,
    /// Processes at a time.
    pub parallel: usize,
    /// How long one spec may take.
    pub limit: Duration,
}

impl K8s {
    /// All specs of sig-network. Asks the program only, no cluster.
    ///
    /// # Errors
    /// The program is not there, or lists nothing.
    pub async fn list(&self) -> Result<Vec<Spec>> {
        let program = self.bin.join("e2e.test");
        let out = Command::new(&program)
            .arg("--list-tests")
            .output()
            .await
            .with_context(|| {
                format!(
                    "cannot run {}: `cargo xtask e2e` builds it",
                    program.display()
                )
            })?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            bail!(
                "`{} --list-tests` failed: {}",
                program.display(),
                said.trim()
            );
        }
        parse_list(&String::from_utf8_lossy(&out.stdout))
    }

    /// Runs `specs`; each result goes to the board as soon as its batch has ended. What must be
    /// alone is run last, by itself.
    ///
    /// # Errors
    /// The program cannot be started, or a result not be kept.
    pub async fn run(&self, specs: Vec<Spec>, board: &Board, stop: &Stop) -> Result<()> {
        fs::create_dir_all(self.dir.join("logs"))
            .with_context(|| format!("cannot make {}/logs", self.dir.display()))?;
        let (alone, together): (Vec<Spec>, Vec<Spec>) = specs.into_iter().partition(Spec::alone);
        for (specs, workers) in [(together, self.parallel), (alone, 1)] {
            let queue = Mutex::new(batches(specs, self.batch));
            let workers = (0..workers.max(1)).map(|_| self.work(&queue, board, stop.clone()));
            futures::future::try_join_all(workers).await?;
        }
        Ok(())
    }

    async fn work(&self, queue: &Queue, board: &Board, mut stop: Stop) -> Result<()> {
        loop {
            let next = queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some(batch) = next.filter(|_| !*stop.borrow()) else {
                return Ok(());
            };
            board.begin(&batch);
            let ended = self.run_batch(&batch, &mut stop).await;
            board.end(&batch);
            let (ended, missing) = ended?;
            for ended in ended {
                board.add(ended)?;
            }
            if *stop.borrow() {
                return Ok(());
            }
            // What a batch took down with it gets a process of its own.
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            missing
                .into_iter()
                .for_each(|spec| queue.push_front(vec![spec]));
        }
    }

    /// The results of a batch, and the specs that have none and are to be run alone.
    async fn run_batch(&self, batch: &[Spec], stop: &mut Stop) -> Result<(Vec<Ended>, Vec<Spec>)> {
        let name = log_name(&batch[0].name, now());
        let log = self.dir.join("logs").join(format!("{name}.log"));
        let report = self.dir.join(format!("{name}.json"));
        let budget = self.limit * u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let mut child = start(&mut self.command(batch, budget, &report), &log)?;
        let end = finish(&mut child, budget + START, stop).await?;
        // Without a report nothing is known of the specs.
        let read = fs::read_to_string(&report).ok();
        let verdicts = read
            .and_then(|text| ginkgo::read(&text).ok())
            .unwrap_or_default();
        // Some megabytes each, as it names every spec of Kubernetes.
        let _ = fs::remove_file(&report);
        let no_result = match (&verdicts.suite, end) {
            (Some(why), _) => why.clone(),
            (None, End::Late) => format!("no end within {} s", (budget + START).as_secs()),
            (None, _) => format!(
                "e2e.test gave no result; its last words:\n{}",
                tail(&log, 12)
            ),
        };
        Ok(sort_out(batch, &verdicts.specs, end, &no_result, &log))
    }

    fn command(&self, batch: &[Spec], budget: Duration, report: &Path) -> Command {
        let mut command = Command::new(self.bin.join("e2e.test"));
        command
            .arg("--provider=skeleton")
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .arg(format!(
                "--kubectl-path={}",
                self.bin.join("kubectl").display()
            ))
            .arg(format!("--e2e-output-dir={}", self.dir.display()))
            .args(["--dns-domain=cluster.local", "--allowed-not-ready-nodes=0"])
            .args(["--ginkgo.v", "--ginkgo.no-color"])
            .arg(format!("--ginkgo.timeout={}s", budget.as_secs()))
            .arg(format!("--ginkgo.json-report={}", report.display()))
            .args(batch.iter().map(focus));
        command
    }
}

type Queue = Mutex<VecDeque<Vec<Spec>>>;

/// The argument that chooses exactly one spec.
fn focus(spec: &Spec) -> String {
    format!("--ginkgo.focus=^{SUITE} {}$", regex::escape(&spec.name))
}

/// Neighbours in the list take alike long: they are dealt out to different batches.
fn batches(specs: Vec<Spec>, size: usize) -> VecDeque<Vec<Spec>> {
    let count = specs.len().div_ceil(size.max(1)).max(1);
    let mut batches = vec![Vec::new(); count];
    for (place, spec) in specs.into_iter().enumerate() {
        batches[place % count].push(spec);
    }
    batches
        .into_iter()
        .filter(|batch| !batch.is_empty())
        .collect()
}

fn sort_out(
    batch: &[Spec],
    verdicts: &BTreeMap<String, Verdict>,
    end: End,
    no_result: &str,
    log: &Path,
) -> (Vec<Ended>, Vec<Spec>) {
    let (mut ended, mut missing) = (Vec::new(), Vec::new());
    for spec in batch {
        let verdict = match verdicts.get(&spec.name) {
            // A spec that was cut off by us has not failed.
            Some(v) if end == End::Stopped && v.outcome == Outcome::Failed => continue,
            Some(verdict) => verdict.clone(),
            None if end == End::Stopped => continue,
            None if batch.len() > 1 => {
                missing.push(spec.clone());
                continue;
            }
            None => Verdict {
                outcome: Outcome::Failed,
                reason: no_result.to_owned(),
                seconds: 0.0,
            },
        };
        ended.push(Ended {
            spec: spec.clone(),
            outcome: verdict.outcome,
            reason: verdict.reason,
            seconds: verdict.seconds,
            at: now(),
            log: log.to_owned(),
        });
    }
    (ended, missing)
}

/// A name for the files of a batch: readable, of harmless characters, and of its own.
fn log_name(name: &str, at: u64) -> String {
    let mut slug = String::new();
    for c in name.chars().filter(|c| !matches!(c, '[' | ']')).take(90) {
        slug.push(if c.is_ascii_alphanumeric() { c } else { '-' });
    }
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{slug}-{at}-{number}")
}

#[cfg(test)]
mod tests {
    use super::super::spec::Suite;
    use super::*;

    fn specs(names: &[&str]) -> Vec<Spec> {
        names
            .iter()
            .map(|name| Spec {
                suite: Suite::K8s,
                name: (*name).to_owned(),
            })
            .collect()
    }

    fn verdict(outcome: Outcome) -> Verdict {
        Verdict {
            outcome,
            reason: String::new(),
            seconds: 1.0,
        }
    }

    #[test]
    fn every_spec_is_in_one_batch_of_at_most_the_given_size() {
        let all = specs(&["a", "b", "c", "d", "e"]);
        let batches = batches(all.clone(), 2);
        assert!(batches.iter().all(|b| b.len() <= 2));
        let mut dealt: Vec<Spec> = batches.into_iter().flatten().collect();
        dealt.sort();
        assert_eq!(dealt, all);
        assert!(super::batches(Vec::new(), 2).is_empty());
    }

    #[test]
    fn the_focus_chooses_one_spec_whose_name_begins_another_s() {
        let all = specs(&["[x] should [it] (a+b)", "[x] should [it] (a+b) twice"]);
        let focus = focus(&all[0]);
        let pattern = focus.strip_prefix("--ginkgo.focus=").expect("a focus");
        let regex = regex::Regex::new(pattern).expect("a regex");
        assert!(regex.is_match(&format!("{SUITE} {}", all[0].name)));
        assert!(!regex.is_match(&format!("{SUITE} {}", all[1].name)));
    }

    #[test]
    fn specs_without_a_result_are_run_alone_and_then_fail_with_what_is_known() {
        let all = specs(&["a", "b"]);
        let known = BTreeMap::from([("a".to_owned(), verdict(Outcome::Passed))]);
        let log = Path::new("x.log");
        let (ended, missing) = sort_out(&all, &known, End::Itself, "died", log);
        assert_eq!(ended.len(), 1);
        assert_eq!(missing, specs(&["b"]));
        let (ended, missing) = sort_out(&missing, &known, End::Itself, "died", log);
        assert!(missing.is_empty());
        assert_eq!(
            (ended[0].outcome, ended[0].reason.as_str()),
            (Outcome::Failed, "died")
        );
    }

    #[test]
    fn a_run_that_is_stopped_keeps_what_passed_and_calls_nothing_failed() {
        let all = specs(&["a", "b", "c"]);
        let known = BTreeMap::from([
            ("a".to_owned(), verdict(Outcome::Passed)),
            ("b".to_owned(), verdict(Outcome::Failed)),
        ]);
        let (ended, missing) = sort_out(&all, &known, End::Stopped, "", Path::new("x.log"));
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].outcome, Outcome::Passed);
        assert!(missing.is_empty());
    }
}
