//! Compiling from nothing: time, and memory of a process of its own.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_policy::{Actual, Index, plan};

use crate::stats::{Section, ms};
use crate::world::{NODE, Size};

const GOAL_TIME: Duration = Duration::from_secs(1);
const GOAL_MEMORY: u64 = 150;

/// Runs in a process of its own and prints what it took as JSON.
pub fn child(size: &Size) -> Result<()> {
    let before = resident()?;
    // The objects are made one at a time: neither their making nor their memory is the compiler's.
    let mut index = Index::new(NODE);
    let mut applying = Duration::ZERO;
    for event in size.all() {
        let start = Instant::now();
        let _ = index.apply(event);
        applying += start.elapsed();
    }
    let start = Instant::now();
    let _ = index.compile();
    let compiling = start.elapsed();
    let start = Instant::now();
    let plan = plan(&Actual::default(), index.desired())?;
    let planning = start.elapsed();
    let writes = plan.writes().count();
    println!(
        "{}",
        json!({
            "applying": applying.as_secs_f64(),
            "compiling": compiling.as_secs_f64(),
            "planning": planning.as_secs_f64(),
            "writes": writes,
            "sizes": index.desired().sizes().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "peak": peak()?.saturating_sub(before),
            "rss": resident()?.saturating_sub(before),
        })
    );
    Ok(())
}

fn status(key: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with(key));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.with_context(|| format!("no {key} in /proc/self/status"))
}

/// KiB.
fn resident() -> Result<u64> {
    status("VmRSS:")
}

/// KiB.
fn peak() -> Result<u64> {
    status("VmHWM:")
}

fn measure(size: &Size) -> Result<Value> {
    let program = std::env::current_exe().context("this program's path")?;
    let done = Command::new(program)
        .arg("policy-compile")
        .args(["--pods", &size.pods.to_string()])
        .args(["--local", &size.local.to_string()])
        .args(["--policies", &size.policies.to_string()])
        .output()
        .context("starting the measured process")?;
    ensure!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    serde_json::from_slice(&done.stdout).context("what the measured process printed")
}

fn seconds(value: &Value, key: &str) -> Duration {
    Duration::from_secs_f64(value[key].as_f64().unwrap_or_default())
}

fn total(value: &Value) -> Duration {
    ["applying", "compiling", "planning"]
        .iter()
        .map(|key| seconds(value, key))
        .sum()
}

/// The size asked for, and a tenth of it for comparison.
pub fn run(size: &Size) -> Result<Section> {
    let tenth = Size {
        pods: size.pods / 10,
        local: size.local,
        policies: size.policies / 10,
    };
    let mut runs: Vec<(Value, Value)> = Vec::new();
    for _ in 0..3 {
        runs.push((measure(size)?, measure(&tenth)?));
    }
    runs.sort_by_key(|(whole, _)| total(whole));
    let (whole, small) = &runs[runs.len() / 2];
    let mut section = Section::new(format!(
        "Compile from nothing: {} NetworkPolicies, {} local pods, {} pods (median of {} runs)",
        size.policies,
        size.local,
        size.pods,
        runs.len()
    ));
    let time = total(whole);
    section.goal("objects to writes", ms(time), "under 1 s", time < GOAL_TIME);
    for (key, name) in [
        ("applying", "  taking objects in"),
        ("compiling", "  compiling"),
        ("planning", "  planning"),
    ] {
        section.row(name, ms(seconds(whole, key)));
    }
    let peak = whole["peak"].as_u64().unwrap_or(u64::MAX) / 1024;
    section.goal(
        "memory at its peak",
        format!("{peak} MiB"),
        format!("under {GOAL_MEMORY} MiB"),
        peak < GOAL_MEMORY,
    );
    let sizes = whole["sizes"].as_object().into_iter().flatten();
    for (name, count) in sizes {
        section.row(format!("  {name}"), count.to_string());
    }
    section.row("  writes", whole["writes"].to_string());
    let ratio = time.as_secs_f64() / total(small).as_secs_f64();
    section.row(
        "ratio to a tenth of policies and pods",
        format!("{ratio:.1}"),
    );
    Ok(section)
}
