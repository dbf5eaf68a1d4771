//! The upstream suites against a running cluster: `weir-cluster e2e`.

mod board;
mod docs;
mod ginkgo;
mod k8s;
mod npa;
mod program;
mod results;
mod skips;
mod spec;

pub use program::{Stop, stop_on_signal};
pub use results::now;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use regex::Regex;

use crate::api;
use crate::api::Cluster;
use crate::args::{Dirs, Which, folder};
use crate::count::Count;
use board::Board;
use docs::{Machine, Report};
use results::{Results, Resume};
use skips::Skips;
use spec::{Selection, Shard, Spec, Suite, npa_list, select};

/// Arguments of `e2e`.
#[derive(Args, Clone, Debug)]
pub struct E2eArgs {
    /// Which cluster
    #[command(flatten)]
    pub which: Which,
    /// Which suites
    #[arg(long, value_enum, default_value = "all")]
    suite: Suites,
    /// Run only specs whose name matches this regular expression
    #[arg(long, value_name = "RE")]
    focus: Option<Regex>,
    /// Leave out specs whose name matches this regular expression; they count as nothing
    #[arg(long, value_name = "RE")]
    skip: Option<Regex>,
    /// Run only the I-th of N parts
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    shard: Shard,
    /// How many e2e.test processes at a time
    #[arg(long, value_name = "P", default_value_t = 3, value_parser = parse_number)]
    parallel: usize,
    /// Specs of one process; starting one takes some seconds of processor time
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = parse_number)]
    batch: usize,
    /// How long one spec may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    limit: u32,
    /// Run only what has no result yet
    #[arg(long)]
    resume: bool,
    /// Run what has no result yet and, once more, what failed or left itself out
    #[arg(long, conflicts_with = "resume")]
    retry_failed: bool,
    /// Show what would be run and what not, and why
    #[arg(long)]
    list: bool,
    /// Write docs/conformance.md to this file, from all results that there are
    #[arg(long, value_name = "FILE")]
    write_docs: Option<PathBuf>,
    /// The skips file
    #[arg(
        long,
        value_name = "FILE",
        default_value = "tests/cluster/e2e-skips.yaml"
    )]
    skips: PathBuf,
    /// How to print the end
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suites {
    K8s,
    Npa,
    All,
}

impl Suites {
    fn has(self, suite: Suite) -> bool {
        match self {
            Self::All => true,
            Self::K8s => suite == Suite::K8s,
            Self::Npa => suite == Suite::Npa,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn parse_number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=64) => Ok(number),
        _ => Err("a number from 1 to 64 is expected".to_owned()),
    }
}

/// Runs the suites; what they gave.
///
/// # Errors
/// A program or the cluster is not there, the skips file is wrong, or a result cannot be kept. A
/// spec that fails is none: it is in the count.
pub async fn run(args: &E2eArgs) -> Result<Count> {
    let state = Dirs::of(&args.which)?.state;
    let dir = state.join("e2e");
    let bin = folder("WEIR_CLUSTER_BIN")?;
    let kubeconfig = api::kubeconfig(&state);
    let k8s = k8s::K8s {
        bin: bin.clone(),
        kubeconfig: kubeconfig.clone(),
        dir: dir.clone(),
        batch: args.batch,
        parallel: args.parallel,
        limit: Duration::from_secs(u64::from(args.limit)),
    };
    let npa = npa::Npa {
        bin,
        kubeconfig,
        dir: dir.clone(),
        limit: k8s.limit,
    };
    let skips = Skips::load(&args.skips)?;
    let mut all = Vec::new();
    if args.suite.has(Suite::K8s) {
        all.extend(k8s.list().await?);
    }
    if args.suite.has(Suite::Npa) {
        all.extend(npa_list());
    }
    skips.check(&all)?;
    let (focus, skip) = (args.focus.as_ref(), args.skip.as_ref());
    let selection = select(all.clone(), focus, skip, args.shard, &skips);
    if args.list {
        return Ok(list(&selection));
    }
    let client = Cluster::open(&state)?.client().await?;
    let machine = Machine::ask(&client).await?;
    let results = Results::open(&dir)?;
    let todo = results.remaining(&selection.run, args.how_to_resume());
    let board = Board::new(results, todo.len());
    drive(todo, &k8s, &npa, &client, &board).await?;
    let results = board.into_results();
    if let Some(path) = &args.write_docs {
        let everything = select(all, None, None, Shard::WHOLE, &skips);
        let text = docs::render(&Report::of(&everything, &results), &machine);
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let report = Report::of(&selection, &results);
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Text => print!("{}", docs::table(&report)),
    }
    Ok(report.count())
}

impl E2eArgs {
    /// Whether stdout is one JSON document, to which nothing may be added.
    pub fn json(&self) -> bool {
        self.output == Output::Json
    }

    fn how_to_resume(&self) -> Resume {
        match (self.resume, self.retry_failed) {
            (true, _) => Resume::Missing,
            (_, true) => Resume::Failed,
            _ => Resume::No,
        }
    }
}

/// Runs what is to be run, the live line beside it.
async fn drive(
    todo: Vec<Spec>,
    k8s: &k8s::K8s,
    npa: &npa::Npa,
    client: &kube::Client,
    board: &Board,
) -> Result<()> {
    let stop = stop_on_signal()?;
    let (policies, rest): (Vec<Spec>, Vec<Spec>) =
        todo.into_iter().partition(|spec| spec.suite == Suite::Npa);
    let work = async {
        if !policies.is_empty() {
            npa.install_kind(client).await?;
        }
        // Not at once: cluster-wide policies reach into every namespace.
        npa.run(policies, board, &stop).await?;
        k8s.run(rest, board, &stop).await
    };
    let clock = async {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            board.tick();
        }
    };
    tokio::select! {
        done = work => done,
        () = clock => Ok(()),
    }
}

fn list(selection: &Selection) -> Count {
    for spec in &selection.run {
        println!("run   {}  {}", spec.suite, spec.name);
    }
    for (spec, cause, reason) in &selection.skipped {
        println!(
            "skip  {}  {}\n      {cause}: {reason}",
            spec.suite, spec.name
        );
    }
    Count {
        skipped: selection.skipped.len(),
        ..Count::default()
    }
}

/// The last lines of a file, for a message.
fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
