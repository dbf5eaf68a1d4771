//! The API server does not answer for minutes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::api::Cluster;
use crate::kit::load::Load;
use crate::kit::objects::{PORT, server, service, typed};
use crate::kit::world::{READY, address, host};
use crate::kit::{World, eventually};

/// Where kubelet looks for pods that no API server knows.
const STATIC: &str = "/etc/kubernetes/manifests";
/// What the control plane's process is called.
const API_SERVER: &str = "kube-apiserver";

/// Stops the API server, whose connections then hang, and lets it go on when this goes away.
struct Stopped(Pid);

impl Stopped {
    fn new(cluster: &Cluster) -> Result<Self> {
        let process = cluster
            .state()
            .processes
            .iter()
            .find(|p| p.name == API_SERVER);
        let process = process
            .filter(|p| p.alive())
            .context("the API server does not run")?;
        let pid = Pid::from_raw(i32::try_from(process.pid)?);
        kill(pid, Signal::SIGSTOP).context("cannot stop the API server")?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It is gone if the cluster was taken down meanwhile.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// For `seconds` nothing reaches the API server. Connections through a Service go on; a container
/// that dies is started again by kubelet in its pod; a static pod, which nobody has told the agent
/// of, is wired or waits, and runs when the API server is back.
///
/// # Errors
/// One of these does not hold.
pub async fn outage(world: World, seconds: u32) -> Result<String> {
    let nodes = world.nodes();
    let last = nodes[nodes.len() - 1].as_str();
    let pod = world.start(&server("web-a", "web", Some(last))).await?;
    let victim = world.start(&server("victim", "victim", Some(last))).await?;
    world
        .start(&server("web-b", "web", Some(&nodes[0])))
        .await?;
    let made = world.create(&service("web", "web", &json!({}))).await?;
    let url = format!(
        "http://{}/hostname",
        host(&made.spec.and_then(|s| s.cluster_ip).unwrap_or_default())
    );
    eventually("the Service", READY, || world.get_on(last, &url)).await?;
    let load = Load::start(&world, "outage", last, &url).await?;
    drop(pod);

    let begin = Instant::now();
    let stopped = Stopped::new(&world.cluster)?;
    let churn = churn(&world, last, &victim).await;
    let left = Duration::from_secs(u64::from(seconds)).saturating_sub(begin.elapsed());
    if churn.is_ok() {
        tokio::time::sleep(left).await;
    }
    drop(stopped);
    let static_pod = churn?;
    let back = static_pod_runs(&world, last).await;
    world
        .on_node(last, &["rm", "-f", &format!("{STATIC}/weir-static.json")])
        .await?;
    back?;
    world.nodes_ready(true).await?;
    // What came meanwhile is known now.
    world.start(&server("after", "after", Some(last))).await?;
    let after = world.api::<Pod>().get("victim").await?;
    ensure!(
        address(&after)? == address(&victim)?,
        "the pod of the killed container has another address"
    );
    let seen = load.end(&world).await?;
    Ok(format!(
        "away for {} s: {seen}; static pod: {static_pod}",
        begin.elapsed().as_secs()
    ))
}

/// What kubelet does by itself: a container that died is started again, a static pod is made.
/// What became of the static pod.
async fn churn(world: &World, node: &str, victim: &Pod) -> Result<&'static str> {
    let manifest = static_manifest()?;
    let write =
        format!("mkdir -p {STATIC} && cat > {STATIC}/weir-static.json <<'END'\n{manifest}\nEND");
    world.on_node(node, &["sh", "-c", &write]).await?;
    let containers = victim
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let id = containers
        .and_then(|all| all.first()?.container_id.clone())
        .context("the pod has no container")?;
    let id = id.rsplit('/').next().unwrap_or_default().to_owned();
    world
        .on_node(
            node,
            &["ctr", "-n", "k8s.io", "tasks", "kill", "-s", "KILL", &id],
        )
        .await?;
    let url = format!("http://{}:{PORT}/hostname", address(victim)?);
    eventually("the end of the killed container", READY, || async {
        let tasks = world
            .on_node(node, &["ctr", "-n", "k8s.io", "tasks", "ls"])
            .await?;
        let runs = tasks
            .lines()
            .any(|line| line.contains(&id) && line.contains("RUNNING"));
        ensure!(!runs, "it still runs");
        Ok(())
    })
    .await?;
    eventually(
        "the container that kubelet starts in its place",
        READY,
        || world.get_on(node, &url),
    )
    .await?;
    let runs = world
        .on_node(node, &["ctr", "-n", "k8s.io", "containers", "ls"])
        .await?;
    Ok(if runs.contains("weir-static") {
        "wired while the API server was away"
    } else {
        "waited for the API server, then ran"
    })
}

fn static_manifest() -> Result<String> {
    let mut pod = server("weir-static", "static", None);
    pod.metadata.namespace = Some("default".to_owned());
    let mut value = serde_json::to_value(typed::<Pod>(serde_json::to_value(pod)?))?;
    value["apiVersion"] = json!("v1");
    value["kind"] = json!("Pod");
    Ok(serde_json::to_string(&value)?)
}

async fn static_pod_runs(world: &World, node: &str) -> Result<()> {
    let pods: kube::Api<Pod> = kube::Api::namespaced(world.client.clone(), "default");
    let name = format!("weir-static-{node}");
    let what = format!(
        "the static pod (kubelet's staticPodPath is {})",
        Path::new(STATIC).display()
    );
    eventually(&what, READY, || async {
        let pod = pods.get(&name).await?;
        world
            .get_on(node, &format!("http://{}:{PORT}/hostname", address(&pod)?))
            .await
    })
    .await?;
    Ok(())
}
