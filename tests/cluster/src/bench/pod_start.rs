//! Many pods at once on one node: how long each takes from its making until it runs, and how much
//! of that is the plugin.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures::{TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::watcher::{self, Event, watcher};
use serde::Serialize;
use serde_json::json;
use tokio::process::Command;

use super::stats::Stats;
use super::timed;
use crate::api::Cluster;
use crate::args::{Dirs, Which};
use crate::kit::World;
use crate::kit::objects::typed;
use crate::kit::world::eventually;

/// The smallest image: what is measured is the sandbox.
const IMAGE: &str = "registry.k8s.io/pause:3.10.2";
/// How long all pods may take.
const LIMIT: Duration = Duration::from_secs(600);
/// How many are made at a time.
const MAKERS: usize = 16;

/// Arguments of `bench pod-start`.
#[derive(Args, Clone, Debug)]
pub struct PodStartArgs {
    /// How many pods at once
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=200))]
    pods: u32,
    /// How many times, Weir and the reference plugins in turns
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// What one way of wiring pods gave.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    cni: &'static str,
    /// Milliseconds from the making of a pod until it was seen to run.
    start_ms: Stats,
    /// Milliseconds in plugins, loopback and IPAM included.
    plugin_ms: Stats,
    /// Percent of a pod's start that were spent in plugins.
    share_percent: Stats,
}

/// Measures and prints.
///
/// # Errors
/// A cluster does not come up, or a pod does not run.
pub async fn run(args: &PodStartArgs) -> Result<()> {
    let mut samples: BTreeMap<&'static str, Vec<Sample>> = BTreeMap::new();
    for round in 1..=args.rounds {
        for cni in ["weir", "bridge"] {
            eprintln!(
                "round {round} of {}: {} pods on a node of its own, {cni}",
                args.rounds, args.pods
            );
            samples
                .entry(cni)
                .or_default()
                .extend(one(cni, args.pods).await?);
        }
    }
    let rows: Vec<Row> = samples
        .into_iter()
        .map(|(cni, samples)| row(cni, &samples))
        .collect();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!(
        "{} pods at once on one node, {} rounds; the plugin's time is from its start to its end",
        args.pods, args.rounds
    );
    println!(
        "{:<8} {:>12} {:>12} {:>13} {:>13} {:>10} {:>10}",
        "cni", "start p50", "start p99", "plugin p50", "plugin p99", "share p50", "share p99"
    );
    for row in rows {
        let Row {
            cni,
            start_ms,
            plugin_ms,
            share_percent,
        } = row;
        println!(
            "{cni:<8} {:>9.0} ms {:>9.0} ms {:>10.1} ms {:>10.1} ms {:>8.2} % {:>8.2} %",
            start_ms.p50,
            start_ms.p99,
            plugin_ms.p50,
            plugin_ms.p99,
            share_percent.p50,
            share_percent.p99
        );
    }
    Ok(())
}

/// One pod.
#[derive(Clone, Copy, Debug)]
struct Sample {
    start: f64,
    plugin: f64,
}

fn row(cni: &'static str, samples: &[Sample]) -> Row {
    let of = |value: fn(&Sample) -> f64| Stats::of(samples.iter().map(value).collect());
    Row {
        cni,
        start_ms: of(|s| s.start * 1e3),
        plugin_ms: of(|s| s.plugin * 1e3),
        share_percent: of(|s| 100.0 * s.plugin / s.start),
    }
}

/// A cluster of one node is made, measured and taken down.
async fn one(cni: &'static str, pods: u32) -> Result<Vec<Sample>> {
    let name = format!("bench-{cni}");
    let up = itself(&["up", "--name", &name, "--nodes", "1", "--cni", cni]).await;
    let measured = match up {
        Ok(()) => measure(&name, pods).await,
        Err(error) => Err(error),
    };
    itself(&["down", "--name", &name]).await?;
    measured
}

async fn itself(args: &[&str]) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    // Its progress is ours.
    let status = Command::new(program)
        .args(args)
        .stdout(std::process::Stdio::null())
        .status()
        .await
        .context("cannot start this program once more")?;
    if !status.success() {
        bail!("weir-cluster {} failed", args.join(" "));
    }
    Ok(())
}

async fn measure(name: &str, pods: u32) -> Result<Vec<Sample>> {
    let cluster = Cluster::open(
        &Dirs::of(&Which {
            name: name.to_owned(),
        })?
        .state,
    )?;
    World::with(&cluster, "bench", |world| async move {
        let node = world.nodes()[0].clone();
        timed::install(&world, &node).await?;
        // The first pod pays for what is loaded once.
        world.start(&pod("warm", &node)).await?;
        let starts = starts(&world, &node, pods).await?;
        let plugins = timed::adds(&world, &node).await?;
        starts
            .into_iter()
            .map(|(name, start)| {
                let key = format!("{}/{name}", world.namespace);
                let plugin = plugins.get(&key).copied();
                let plugin = plugin.with_context(|| format!("no plugin was called for {key}"))?;
                Ok(Sample { start, plugin })
            })
            .collect()
    })
    .await
}

fn pod(name: &str, node: &str) -> Pod {
    typed(json!({
        "metadata": { "name": name, "labels": { "app": "bench" } },
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "pause", "image": IMAGE }],
        },
    }))
}

/// Makes the pods, all at once; the seconds from each one's making until it was seen to run.
async fn starts(world: &World, node: &str, count: u32) -> Result<BTreeMap<String, f64>> {
    let names: Vec<String> = (0..count).map(|number| format!("pod-{number}")).collect();
    let pods: kube::Api<Pod> = world.api();
    let config = watcher::Config::default().labels("app=bench");
    let mut events = std::pin::pin!(watcher(pods.clone(), config));
    // The watch is there before the first pod is.
    while !matches!(events.try_next().await?, Some(Event::InitDone)) {}
    let made = async {
        stream::iter(names.iter().map(Ok::<_, anyhow::Error>))
            .map_ok(|name| async move {
                let begin = Instant::now();
                world.create(&pod(name, node)).await?;
                Ok::<_, anyhow::Error>((name.clone(), begin))
            })
            .try_buffer_unordered(MAKERS)
            .try_collect::<BTreeMap<String, Instant>>()
            .await
    };
    let seen = async {
        let mut seen: BTreeMap<String, Instant> = BTreeMap::new();
        while seen.len() < names.len() {
            let event = events.try_next().await?.context("the watch has ended")?;
            if let Event::Apply(pod) | Event::InitApply(pod) = event {
                let name = pod.name_any();
                if name != "warm" && runs(&pod) {
                    seen.entry(name).or_insert_with(Instant::now);
                }
            }
        }
        Ok::<_, anyhow::Error>(seen)
    };
    let both = tokio::time::timeout(LIMIT, async { tokio::try_join!(made, seen) });
    let (made, seen) = both
        .await
        .with_context(|| format!("not all pods run after {} s", LIMIT.as_secs()))??;
    ensure!(
        made.len() == seen.len(),
        "{} pods made, {} run",
        made.len(),
        seen.len()
    );
    pods.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    eventually("that the pods go", LIMIT, || async {
        let left = pods.list(&ListParams::default()).await?.items.len();
        ensure!(left == 0, "{left} are left");
        Ok(())
    })
    .await?;
    Ok(made
        .into_iter()
        .filter_map(|(name, begin)| {
            Some((seen.get(&name)?.duration_since(begin).as_secs_f64(), name))
        })
        .map(|(seconds, name)| (name, seconds))
        .collect())
}

fn runs(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    statuses.is_some_and(|all| {
        all.iter().all(|one| {
            one.state
                .as_ref()
                .is_some_and(|state| state.running.is_some())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_each_pod_s_own_start() {
        let samples = [
            Sample {
                start: 1.0,
                plugin: 0.1,
            },
            Sample {
                start: 2.0,
                plugin: 0.1,
            },
        ];
        let row = row("x", &samples);
        assert!((row.share_percent.p50 - 5.0).abs() < 1e-9);
        assert!((row.share_percent.p99 - 10.0).abs() < 1e-9);
        assert!((row.start_ms.p99 - 2000.0).abs() < 1e-6);
    }

    #[test]
    fn a_pod_runs_when_its_containers_do() {
        let of = |state: serde_json::Value| -> Pod {
            typed(json!({ "metadata": {}, "status": { "containerStatuses": [{
                "name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            }] } }))
        };
        assert!(runs(&of(json!({ "running": {} }))));
        assert!(!runs(&of(json!({ "waiting": {} }))));
        assert!(
            !runs(&typed(json!({ "metadata": {} }))),
            "nothing is known of it"
        );
    }
}
