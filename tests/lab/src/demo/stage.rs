//! Puts the application on the stage: objects, pods, addresses; and asks `weir policy trace` why.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::{Pod as PodObject, Service};
use serde_json::Value;

use super::cells::{Cell, Party, name_of};
use super::matrix::describe;
use super::plan::{Plan, namespace};
use super::probing::Fleet;
use super::progress::Progress;
use super::report::Report;
use crate::bin;
use crate::lab::Lab;
use crate::pod::{Pod, PodSpec};

/// Pods that are made at the same time.
const AT_ONCE: usize = 4;

/// Writes the objects, makes the pods with the CNI plugin, starts the hosts outside.
pub fn deploy(lab: &Lab, plan: &Plan, progress: &Progress, report: &mut Report) -> Result<Fleet> {
    for object in plan
        .namespaces
        .iter()
        .chain(&plan.policies)
        .chain(&plan.services)
    {
        lab.cluster.apply(object)?;
    }
    let start = Instant::now();
    let (pods, adds) = make_pods(lab, plan, progress)?;
    report.pods(pods.len(), start.elapsed(), &adds);
    write_slices(lab, plan)?;
    let outside = plan
        .outside
        .iter()
        .map(|host| {
            let listen: Vec<_> = host
                .declared
                .iter()
                .copied()
                .chain([plan.undeclared])
                .collect();
            lab.add_outside(host.address, &listen)
        })
        .collect::<Result<_>>()?;
    Ok(Fleet { pods, outside })
}

type Made = (Vec<std::sync::Arc<Pod>>, Vec<Duration>);

fn make_pods(lab: &Lab, plan: &Plan, progress: &Progress) -> Result<Made> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(planned) = plan.pods.get(index) else {
                        break;
                    };
                    let mut listen = planned.declared.clone();
                    listen.push(plan.undeclared);
                    let spec = PodSpec {
                        object: planned.object.clone(),
                        node: planned.node,
                        listen,
                        covered: true,
                    };
                    let start = Instant::now();
                    let made = lab.add_pod(&spec);
                    if let Ok(mut results) = results.lock() {
                        results.push((index, made, start.elapsed()));
                    }
                }
            });
        }
        loop {
            let done = results
                .lock()
                .map(|results| results.len())
                .unwrap_or_default();
            progress.step("pods", done, plan.pods.len());
            if done >= plan.pods.len() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    progress.done();
    let mut results = results
        .into_inner()
        .map_err(|_| anyhow!("a thread panicked"))?;
    results.sort_by_key(|(index, _, _)| *index);
    let mut pods = Vec::new();
    let mut times = Vec::new();
    for (_, made, time) in results {
        pods.push(made?);
        times.push(time);
    }
    Ok((pods, times))
}

/// EndpointSlices, as the controller of a cluster would write them.
fn write_slices(lab: &Lab, plan: &Plan) -> Result<()> {
    let pods: Vec<PodObject> = lab
        .cluster
        .objects()?
        .into_iter()
        .filter(|object| object["kind"] == "Pod")
        .map(serde_json::from_value)
        .collect::<Result<_, _>>()?;
    for slice in &plan.slices {
        lab.cluster.apply(slice)?;
    }
    for service in &plan.services {
        let service: Service = serde_json::from_value(service.clone())?;
        for slice in weir_manifests::endpoint_slices(&service, &pods) {
            lab.cluster.apply(&serde_json::to_value(slice)?)?;
        }
    }
    Ok(())
}

/// Has `weir policy trace` explain one denied cell, asking the agents of both ends.
pub fn explain(lab: &Lab, plan: &Plan, cells: &[Cell], report: &mut Report) -> Result<()> {
    let Some(cell) = choose_denied(plan, cells) else {
        report.line("nothing is denied: there is no probe to explain");
        return Ok(());
    };
    let (Party::Pod(from), Party::Pod(to)) = (cell.from, cell.to) else {
        bail!("a cell between pods was asked for");
    };
    let (source, target) = (
        &lab.nodes[plan.pods[from].node],
        &lab.nodes[plan.pods[to].node],
    );
    let port = format!(
        "{}/{}",
        cell.listen.port,
        cell.listen.proto.name().to_lowercase()
    );
    let family = if cell.address.is_ipv4() {
        "IPv4"
    } else {
        "IPv6"
    };
    let (from, to) = (name_of(plan, cell.from), name_of(plan, cell.to));
    let socket = format!("{}={}", target.name, target.socket_inside());
    let mut arguments = vec![
        "policy", "trace", &from, &to, "--port", &port, "--family", family,
    ];
    if source.name != target.name {
        arguments.extend(["--socket", &socket]);
    }
    let mut command = Command::new(bin("weir")?);
    command
        .args(&arguments)
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1");
    let output = source
        .run(command, &[])
        .context("running weir policy trace")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let agrees = output.status.code() == Some(1);
    let shown = format!("{}\n{errors}", text.trim_end());
    report.trace(
        &describe(plan, cell),
        &format!("weir {}", arguments.join(" ")),
        shown.trim_end(),
        agrees,
    );
    Ok(())
}

/// A denied probe between pods: best of a declared port, on different nodes, in one namespace.
fn choose_denied<'a>(plan: &Plan, cells: &'a [Cell]) -> Option<&'a Cell> {
    cells
        .iter()
        .filter(|cell| !cell.some_allowed() && cell.some_denied())
        .filter_map(|cell| {
            let (Party::Pod(from), Party::Pod(to)) = (cell.from, cell.to) else {
                return None;
            };
            let (from, to): (&_, &_) = (&plan.pods[from], &plan.pods[to]);
            let same: fn(&Value) -> &str = namespace;
            let score = usize::from(cell.declared) * 4
                + usize::from(from.node != to.node) * 2
                + usize::from(same(&from.object) == same(&to.object));
            Some((score, cell))
        })
        // The first of the best.
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, cell)| cell)
}
