//! The conformance suite of sigs.k8s.io/network-policy-api: one Go test whose parts are the specs.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::program::{End, Stop, finish, start};
use super::results::{Ended, Outcome, now};
use super::spec::{Spec, Suite, npa_list};
use super::{Board, tail};

/// The Go test that has all others in it.
const TEST: &str = "TestConformance";
/// How long the API server may take to serve a new kind.
const ESTABLISHED: Duration = Duration::from_secs(30);

/// Where the program is and how it is run.
#[derive(Clone, Debug)]
pub struct Npa {
    /// The folder of `npa-conformance.test` and `npa-crd-experimental.yaml`.
    pub bin: PathBuf,
    /// Of an administrator.
    pub kubeconfig: PathBuf,
    /// Where the log goes.
    pub dir: PathBuf,
    /// How long one test may take.
    pub limit: Duration,
}

impl Npa {
    /// Gives the cluster the kind ClusterNetworkPolicy, with the fields of the experimental channel.
    ///
    /// # Errors
    /// The definition is not there, or the API server refuses it.
    pub async fn install_kind(&self, client: &kube::Client) -> Result<()> {
        let path = self.bin.join("npa-crd-experimental.yaml");
        let text = fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}: `cargo xtask e2e` makes it", path.display())
        })?;
        let crd: CustomResourceDefinition = serde_saphyr::from_str(&text)
            .with_context(|| format!("{} is no CustomResourceDefinition", path.display()))?;
        let name = crd
            .metadata
            .name
            .clone()
            .context("the definition has no name")?;
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        let apply = PatchParams::apply("weir-cluster").force();
        api.patch(&name, &apply, &Patch::Apply(&crd))
            .await
            .with_context(|| format!("cannot apply {name}"))?;
        tokio::time::timeout(
            ESTABLISHED,
            await_condition(api, &name, is_crd_established()),
        )
        .await
        .with_context(|| format!("{name} is not served after {} s", ESTABLISHED.as_secs()))??;
        Ok(())
    }

    /// Runs `specs`, one after the other as the program does it, in one process as its pods are
    /// made once.
    ///
    /// # Errors
    /// The program cannot be started, a result not be kept, or it has a test that the list lacks.
    pub async fn run(&self, specs: Vec<Spec>, board: &Board, stop: &Stop) -> Result<()> {
        let mut stop = stop.clone();
        if specs.is_empty() || *stop.borrow() {
            return Ok(());
        }
        let logs = self.dir.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let log = logs.join(format!("npa-{}.log", now()));
        let limit = self.limit * u32::try_from(specs.len()).unwrap_or(u32::MAX);
        let mut child = start(&mut self.command(&specs, limit), &log)?;
        board.begin(&specs[..1]);
        let end = {
            let follow = follow(&log, &specs, board);
            let finish = finish(&mut child, limit + self.limit, &mut stop);
            tokio::select! {
                end = finish => end?,
                failed = follow => return Err(failed),
            }
        };
        board.end(&specs[..1]);
        let text =
            fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let read = read(&text);
        for (name, verdict) in &read {
            let spec = named(name);
            if !npa_list().contains(&spec) {
                bail!("the suite has a test {name} that tests/cluster/npa-specs.txt lacks: add it");
            }
            if end != End::Stopped || verdict.outcome != Outcome::Failed {
                board.add_once(ended(spec, verdict, log.clone()))?;
            }
        }
        if end == End::Stopped {
            return Ok(());
        }
        let lost = Line {
            outcome: Outcome::Failed,
            seconds: 0.0,
            reason: format!("no result; the suite's last words:\n{}", tail(&log, 12)),
        };
        for spec in specs
            .into_iter()
            .filter(|spec| !read.contains_key(&spec.name))
        {
            board.add_once(ended(spec, &lost, log.clone()))?;
        }
        Ok(())
    }

    fn command(&self, specs: &[Spec], limit: Duration) -> Command {
        let mut command = Command::new(self.bin.join("npa-conformance.test"));
        // What is left out is named, so that a test that the list lacks runs and is noticed.
        let skip: Vec<String> = npa_list()
            .into_iter()
            .filter(|spec| !specs.contains(spec))
            .map(|spec| regex::escape(&spec.name))
            .collect();
        command
            .args(["-test.v", "-all-features"])
            .arg(format!("-test.run=^{TEST}$"))
            .arg(format!("-test.timeout={}s", limit.as_secs()))
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(&self.dir);
        if !skip.is_empty() {
            command.arg(format!("-test.skip=^{TEST}$/^({})$", skip.join("|")));
        }
        command
    }
}

fn named(name: &str) -> Spec {
    Spec {
        suite: Suite::Npa,
        name: name.to_owned(),
    }
}

fn ended(spec: Spec, line: &Line, log: PathBuf) -> Ended {
    Ended {
        spec,
        outcome: line.outcome,
        reason: line.reason.clone(),
        seconds: line.seconds,
        at: now(),
        log,
    }
}

/// Reads the log while it is written, for results at once. Ends with an error only.
async fn follow(log: &std::path::Path, specs: &[Spec], board: &Board) -> anyhow::Error {
    let tail = async {
        let file = tokio::fs::File::open(log).await?;
        let mut lines = BufReader::new(file);
        let mut text = String::new();
        loop {
            // A regular file tells nobody that it has grown.
            tokio::time::sleep(Duration::from_millis(500)).await;
            while lines.read_line(&mut text).await? > 0 {}
            for (name, line) in read(&text) {
                let spec = named(&name);
                if line.outcome == Outcome::Passed && specs.contains(&spec) {
                    board.add_once(ended(spec, &line, log.to_owned()))?;
                }
            }
        }
    };
    let failed: Result<std::convert::Infallible> = tail.await;
    match failed {
        Err(error) => error,
    }
}

/// What the program said of one test.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    outcome: Outcome,
    seconds: f64,
    reason: String,
}

/// The results in the output of `go test -v`: of the tests right below the one that has all.
fn read(text: &str) -> BTreeMap<String, Line> {
    let mut lines = BTreeMap::new();
    let mut inner: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let Some((outcome, path, seconds)) = result(line) else {
            continue;
        };
        let Some(below) = path.strip_prefix(TEST).and_then(|p| p.strip_prefix('/')) else {
            continue;
        };
        match below.split_once('/') {
            Some((name, part)) if outcome == Outcome::Failed => {
                inner.entry(name).or_default().push(part);
            }
            Some(_) => (),
            None => {
                let reason = String::new();
                let line = Line {
                    outcome,
                    seconds,
                    reason,
                };
                lines.insert(below.to_owned(), line);
            }
        }
    }
    for (name, line) in &mut lines {
        line.reason = match line.outcome {
            Outcome::Passed => String::new(),
            Outcome::Skipped => "it left itself out".to_owned(),
            Outcome::Failed => format!(
                "failed: {}",
                inner
                    .get(name.as_str())
                    .map(|parts| parts.join(", "))
                    .unwrap_or_default()
            ),
        };
    }
    lines
}

/// `    --- PASS: TestConformance/CNPAdminTierGress (12.34s)`.
fn result(line: &str) -> Option<(Outcome, &str, f64)> {
    let (what, rest) = line.trim_start().strip_prefix("--- ")?.split_once(": ")?;
    let outcome = match what {
        "PASS" => Outcome::Passed,
        "FAIL" => Outcome::Failed,
        "SKIP" => Outcome::Skipped,
        _ => return None,
    };
    let (path, time) = rest.rsplit_once(" (")?;
    Some((outcome, path, time.strip_suffix("s)")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "=== RUN   TestConformance
--- FAIL: TestConformance (50.00s)
    --- PASS: TestConformance/CNPAdminTierEgressTCP (12.34s)
        --- PASS: TestConformance/CNPAdminTierEgressTCP/Should_a (2.00s)
    --- FAIL: TestConformance/CNPAdminTierGress (3.00s)
        --- FAIL: TestConformance/CNPAdminTierGress/Should_b (1.00s)
    --- SKIP: TestConformance/CNPOther (0.00s)
FAIL
";

    #[test]
    fn the_parts_of_the_one_test_are_the_specs_and_their_failed_parts_the_reason() {
        let lines = read(LOG);
        assert_eq!(lines.len(), 3);
        let passed = &lines["CNPAdminTierEgressTCP"];
        assert_eq!(passed.outcome, Outcome::Passed);
        assert!((passed.seconds - 12.34).abs() < 1e-9 && passed.reason.is_empty());
        let failed = &lines["CNPAdminTierGress"];
        assert_eq!(
            (failed.outcome, failed.reason.as_str()),
            (Outcome::Failed, "failed: Should_b")
        );
        assert_eq!(lines["CNPOther"].outcome, Outcome::Skipped);
    }

    #[test]
    fn the_program_is_told_what_to_leave_out_so_that_an_unknown_test_runs() {
        let npa = Npa {
            bin: PathBuf::from("/bin"),
            kubeconfig: PathBuf::from("/k"),
            dir: PathBuf::from("/tmp"),
            limit: Duration::from_secs(60),
        };
        let mut all = npa_list();
        let out = all.pop().expect("a spec");
        let command = npa.command(&all, npa.limit);
        let args: Vec<String> = command
            .as_std()
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect();
        assert!(
            args.contains(&format!("-test.skip=^{TEST}$/^({})$", out.name)),
            "{args:?}"
        );
        assert!(args.contains(&format!("-test.run=^{TEST}$")), "{args:?}");
    }
}
