//! The demo: somebody's manifests on a cluster of namespaces, every connection tried, and what
//! the oracle expects set against what the network does.

pub mod cells;
pub mod change;
pub mod input;
pub mod matrix;
pub mod outside;
pub mod plan;
pub mod probing;
pub mod progress;
mod report;
mod slices;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use cells::Cell;
use change::Change;
use plan::Plan;
use probing::{Fleet, Probed};
use progress::Progress;
use report::Report;

use crate::keep::{self, Detached};
use crate::lab::Lab;
use crate::leftovers::{Census, Snapshot};

/// What the demo is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Manifests: a file or a directory.
    pub manifests: PathBuf,
    /// Number of nodes.
    pub nodes: u8,
    /// Print one JSON document instead of text.
    pub json: bool,
}

/// Exit code for manifests that hold nothing to show.
const NOTHING: u8 = 2;

/// A lab with somebody's application in it, and what was found.
pub struct Shown {
    /// The running lab.
    pub lab: Lab,
    /// 0: everything as expected; 1: not.
    pub code: u8,
}

/// Runs the demo. The lab is still up when this returns.
///
/// # Errors
/// When the manifests do not parse, or the lab cannot be made.
pub fn show(options: &Options) -> Result<Result<Shown, ExitCode>> {
    let progress = Progress::on_terminal();
    let mut report = Report::new(options.json);
    let node_names: Vec<String> = (1..=options.nodes)
        .map(|number| format!("n{number}"))
        .collect();
    let input = input::load(&options.manifests, &node_names)?;
    report.input(&options.manifests, &input);
    let plan = Plan::new(input, &node_names);
    report.plan(&plan);
    if plan.pods.len() + plan.outside.len() < 2 {
        eprintln!(
            "weir-lab: {}: {} pods with a network of their own: there is nothing to probe",
            options.manifests.display(),
            plan.pods.len()
        );
        return Ok(Err(ExitCode::from(NOTHING)));
    }

    let start = Instant::now();
    // What arrives outside is told by the pod's own address.
    let lab = Lab::builder()
        .nodes(options.nodes)
        .agent_arg("--masquerade=false")
        .start()?;
    report.timing("nodes and agents", start.elapsed());
    let fleet = stage::deploy(&lab, &plan, &progress, &mut report)?;
    let cluster = cells::cluster_of(&lab.cluster.objects()?)?;
    let mut cells = cells::all(&plan, &fleet.addresses(), &cluster)?;
    if cells.is_empty() {
        eprintln!("weir-lab: the manifests give no cell to probe");
        return Ok(Err(ExitCode::from(NOTHING)));
    }
    let probed = probing::probe(&plan, &fleet, &cells, probing::LIMITS, &progress)?;
    report.matrix(&plan, &cells, &probed);

    if let Some(change) = change::choose(&plan, &fleet.addresses(), &cluster, &cells)? {
        live_change(
            &lab,
            &plan,
            &fleet,
            &mut cells,
            &change,
            &progress,
            &mut report,
        )?;
    } else {
        report.line("no change of a policy would show: the live change is left out");
    }
    stage::explain(&lab, &plan, &cells, &mut report)?;
    Ok(Ok(Shown {
        lab,
        code: report.finish(),
    }))
}

/// Changes a policy while the application runs, and probes everything again.
fn live_change(
    lab: &Lab,
    plan: &Plan,
    fleet: &Fleet,
    cells: &mut [Cell],
    change: &Change,
    progress: &Progress,
    report: &mut Report,
) -> Result<()> {
    let before: Vec<Cell> = cells.to_vec();
    for (cell, backends) in cells.iter_mut().zip(&change.expected) {
        cell.backends.clone_from(backends);
    }
    // A cell that tells old from new at once: it passes, or it does not.
    let sample = change
        .changes
        .iter()
        .copied()
        .find(|&index| before[index].some_allowed() != cells[index].some_allowed())
        .or(change.changes.first().copied())
        .context("the change changes nothing")?;
    let (namespace, name) = &change.policy;
    let start = Instant::now();
    match &change.create {
        Some(object) => lab.cluster.apply(object)?,
        None => lab.cluster.delete("NetworkPolicy", Some(namespace), name)?,
    }
    let patience = Duration::from_millis(150);
    while !probing::probe_one(plan, fleet, &cells[sample], patience)?.agrees(&cells[sample]) {
        if start.elapsed() > Duration::from_secs(10) {
            report.failure(&format!("{}: not in force after 10 s", change.text));
            return Ok(());
        }
    }
    let in_force = start.elapsed();
    let probed: Probed = probing::probe(plan, fleet, cells, probing::LIMITS, progress)?;
    report.change(plan, &before, cells, change, in_force, &probed);
    Ok(())
}

/// Runs the demo and takes the lab down again.
///
/// # Errors
/// As [`show`]; also when something of the lab stays behind.
pub fn run(options: &Options) -> Result<ExitCode> {
    let before = Snapshot::take()?;
    let shown = match show(options)? {
        Ok(shown) => shown,
        Err(code) => return Ok(code),
    };
    let census = Census::of(&shown.lab);
    let [processes, namespaces, objects] = census.counts();
    let start = Instant::now();
    drop(shown.lab);
    let mut left = census.await_gone(Duration::from_secs(10));
    left.extend(Snapshot::take()?.new_since(&before));
    ensure!(
        left.is_empty(),
        "the lab left something behind: {}",
        left.join(", ")
    );
    if !options.json {
        println!(
            "taken down in {:.1} s: {processes} processes, {namespaces} namespaces, {objects} BPF \
             objects, nothing left",
            start.elapsed().as_secs_f64()
        );
    }
    Ok(ExitCode::from(shown.code))
}

/// Runs the demo, then leaves the lab up in the background.
///
/// # Errors
/// As [`show`].
pub fn run_and_stay(options: &Options, detached: Detached) -> Result<ExitCode> {
    let shown = match show(options)? {
        Ok(shown) => shown,
        Err(code) => return Ok(code),
    };
    keep::describe(&shown.lab)?;
    if !options.json {
        let program = std::env::current_exe()?;
        let program = program.display();
        let pods = shown.lab.pods();
        let pod = pods.iter().map(|pod| pod.key()).min();
        let pod = pod.unwrap_or_else(|| "n1".to_owned());
        println!(
            "\nthe lab stays up (as root):\n  {program} enter {pod}              a shell in a pod\n  \
             {program} enter n1 weir status     the CLI on a node\n  \
             {program} down                     takes it down"
        );
    }
    detached.stay(shown.code)?;
    Ok(ExitCode::SUCCESS)
}

/// The shop that comes with Weir: in the working directory, or in the source tree that this
/// program was built in.
///
/// # Errors
/// When it is in neither.
pub fn shop() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    std::iter::once(PathBuf::new())
        .chain(program.ancestors().map(PathBuf::from))
        .map(|folder| folder.join("manifests/shop"))
        .find(|path| path.is_dir())
        .context("no manifests/shop here: say --manifests DIR")
}
