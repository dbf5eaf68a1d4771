//! The API server is away for minutes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::node_view::NodeView;
use super::policies::labelled;
use crate::absent::{Absent, Away};
use crate::kit::load::{Connections, Load};
use crate::kit::objects::{PORT, policy, server, service};
use crate::kit::world::{READY, address, host};
use crate::kit::{World, eventually};
use crate::kubelet::STATIC_PODS;

/// What the control plane's processes are called.
const API_SERVER: &str = "kube-apiserver";
const CONTROLLERS: &str = "kube-controller-manager";
/// How long a pod that may not be reached is tried, in seconds.
const TRY: &str = "2";
/// The pause between two rounds of trying.
const ROUND: Duration = Duration::from_secs(2);

/// The pods of the scenario, made while the API server answers.
struct Stage {
    load: Load,
    /// Where pods come and go.
    node: String,
    /// Where the friend and the stranger are.
    other: String,
    /// Stays.
    guarded: Pod,
    /// Its container is killed.
    victim: Pod,
    /// Its sandbox is killed.
    renewed: Pod,
    /// The processes of the pod that the policy lets in, and of the one that it keeps out.
    friend: u32,
    stranger: u32,
}

/// For `seconds` nothing reaches the API server. New connections through a Service and one that was
/// made before go on; a policy stays in force; a container that dies is started again by kubelet in
/// its pod; a pod whose sandbox dies is wired anew, and the policy is in force for it; a static pod,
/// which nobody has told the agent of, is wired or waits, and runs when the API server is back.
///
/// # Errors
/// One of these does not hold.
pub async fn outage(world: World, away: Away, seconds: u32) -> Result<String> {
    let stage = Stage::set(&world).await?;
    let begin = Instant::now();
    let absent = Absent::new(&world.cluster, API_SERVER, away)?;
    // Which loses its lease and ends, to be started again, wherever it has one. One that lives through
    // the outage calls all nodes lost when that ends, as it has not heard of them, and their pods not
    // ready: no Service would have an endpoint.
    let controllers = Absent::new(&world.cluster, CONTROLLERS, Away::Refuses)?;
    let endured = stage
        .endure(&world, begin + Duration::from_secs(seconds.into()))
        .await;
    let away_for = begin.elapsed().as_secs();
    absent.back()?;
    eventually("the API server", READY, || async {
        let ready = http::Request::get("/readyz").body(Vec::new())?;
        Ok(world.client.request_text(ready).await?)
    })
    .await?;
    controllers.back()?;
    let (static_pod, rounds) = match endured {
        Ok(seen) => seen,
        Err(error) => {
            remove_static(&world, &stage.node).await?;
            return Err(error);
        }
    };
    let seen = stage.after(&world).await?;
    Ok(format!(
        "away for {away_for} s: {seen}; policy tried {rounds} times; static pod: {static_pod}"
    ))
}

impl Stage {
    async fn set(world: &World) -> Result<Self> {
        let nodes = world.nodes();
        let (other, node) = (nodes[0].clone(), nodes[nodes.len() - 1].clone());
        for (name, on) in [("web-a", &node), ("web-b", &other)] {
            world.start(&server(name, "web", Some(on))).await?;
        }
        let guarded = world
            .start(&server("guarded", "guarded", Some(&node)))
            .await?;
        let victim = world
            .start(&server("victim", "guarded", Some(&node)))
            .await?;
        let renewed = world
            .start(&server("renewed", "guarded", Some(&node)))
            .await?;
        let view = NodeView::new(world, &other);
        let mut pids = Vec::new();
        for name in ["friend", "stranger"] {
            let pod = world.start(&labelled(name, &other)).await?;
            pids.push(view.pid(&container(&pod)?).await?);
        }
        let friends = json!({
            "podSelector": { "matchLabels": { "app": "guarded" } },
            "policyTypes": ["Ingress"],
            "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "sort": "friend" } } }] }],
        });
        world.create(&policy("friends", &friends)).await?;
        let made = world.create(&service("web", "web", &json!({}))).await?;
        let ip = made.spec.and_then(|s| s.cluster_ip).unwrap_or_default();
        let url = format!("http://{}/hostname", host(&ip));
        eventually("the Service", READY, || world.get_on(&node, &url)).await?;
        let load = Load::start(world, "outage", &node, &url, Connections::NewAndKept).await?;
        let stage = Self {
            load,
            guarded,
            victim,
            renewed,
            friend: pids[0],
            stranger: pids[1],
            node,
            other,
        };
        let url = url_of(&address(&stage.guarded)?);
        eventually("the policy", READY, || stage.policy_holds(world, &url)).await?;
        Ok(stage)
    }

    /// Until `end` and until everything has come up again; what became of the static pod, and how often
    /// the policy was tried.
    async fn endure(&self, world: &World, end: Instant) -> Result<(&'static str, u32)> {
        let url = url_of(&address(&self.guarded)?);
        let mut rounds = 0;
        let churn = self.churn(world);
        tokio::pin!(churn);
        let mut churned = None;
        while churned.is_none() || Instant::now() < end {
            tokio::select! {
                ended = &mut churn, if churned.is_none() => churned = Some(ended?),
                round = self.round(world, &url) => { round?; rounds += 1; }
            }
        }
        let static_pod = churned.context("nothing has come and gone")?;
        Ok((static_pod, rounds))
    }

    async fn round(&self, world: &World, url: &str) -> Result<()> {
        self.policy_holds(world, url).await?;
        tokio::time::sleep(ROUND).await;
        Ok(())
    }

    /// The friend gets through, the stranger does not. Without the API server there is no `kubectl exec`:
    /// the node asks from the pods' namespaces.
    async fn policy_holds(&self, world: &World, url: &str) -> Result<()> {
        let view = NodeView::new(world, &self.other);
        view.get_as(self.friend, TRY, url)
            .await
            .context("the pod that the policy lets in does not get through")?;
        let said = view.get_as(self.stranger, TRY, url).await;
        ensure!(
            said.is_err(),
            "the pod that the policy keeps out got through"
        );
        Ok(())
    }

    /// What kubelet does by itself: a container and a sandbox that died are started again, a static pod
    /// is made. What became of the static pod.
    async fn churn(&self, world: &World) -> Result<&'static str> {
        let view = NodeView::new(world, &self.node);
        let manifest = static_manifest()?;
        let file = format!("{STATIC_PODS}/weir-static.json");
        let write = format!("cat >{file} <<'END'\n{manifest}\nEND");
        world.on_node(&self.node, &["sh", "-c", &write]).await?;

        let old = view.sandbox(&world.namespace, "renewed", None).await?;
        view.kill(&old).await?;
        let id = container(&self.victim)?;
        view.kill(&id).await?;
        eventually("the end of the killed container", READY, || async {
            ensure!(view.pid(&id).await.is_err(), "it still runs");
            Ok(())
        })
        .await?;
        let url = url_of(&address(&self.victim)?);
        eventually(
            "the container in the place of the killed one",
            READY,
            || self.policy_holds(world, &url),
        )
        .await?;
        let new = eventually("another sandbox", READY, || {
            view.sandbox(&world.namespace, "renewed", Some(&old))
        })
        .await?;
        let ip = eventually("its address", READY, || view.address(&new)).await?;
        let url = url_of(&host(&ip));
        eventually("the pod in the new sandbox", READY, || {
            self.policy_holds(world, &url)
        })
        .await?;
        let name = format!("weir-static-{}", self.node);
        Ok(match view.sandbox("default", &name, None).await {
            Ok(id) if view.address(&id).await.is_ok() => "wired while the API server was away",
            _ => "waited for the API server, then ran",
        })
    }

    /// The API server answers again: it and the agents know what came meanwhile, and what comes now.
    async fn after(self, world: &World) -> Result<String> {
        let back = static_pod_runs(world, &self.node).await;
        remove_static(world, &self.node).await?;
        back?;
        world.nodes_ready(true).await?;
        world
            .start(&server("after", "after", Some(&self.node)))
            .await?;
        let pods = world.api::<Pod>();
        ensure!(
            address(&pods.get("victim").await?)? == address(&self.victim)?,
            "the pod of the killed container has another address"
        );
        eventually("the renewed pod's new address", READY, || async {
            let now = address(&pods.get("renewed").await?)?;
            ensure!(now != address(&self.renewed)?, "it is still {now}");
            self.policy_holds(world, &url_of(&now)).await
        })
        .await?;
        self.load.end(world).await
    }
}

/// The container of a pod of one.
fn container(pod: &Pod) -> Result<String> {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let id = containers
        .and_then(|all| all.first()?.container_id.clone())
        .context("the pod has no container")?;
    Ok(id.rsplit('/').next().unwrap_or_default().to_owned())
}

/// Where a server answers, by its address as URLs have it.
fn url_of(address: &str) -> String {
    format!("http://{address}:{PORT}/hostname")
}

fn static_manifest() -> Result<String> {
    let mut pod = server("weir-static", "static", None);
    pod.metadata.namespace = Some("default".to_owned());
    let mut value = serde_json::to_value(pod)?;
    value["apiVersion"] = json!("v1");
    value["kind"] = json!("Pod");
    Ok(serde_json::to_string(&value)?)
}

async fn remove_static(world: &World, node: &str) -> Result<()> {
    let file = format!("{STATIC_PODS}/weir-static.json");
    world.on_node(node, &["rm", "-f", &file]).await?;
    Ok(())
}

async fn static_pod_runs(world: &World, node: &str) -> Result<()> {
    let pods: kube::Api<Pod> = kube::Api::namespaced(world.client.clone(), "default");
    let name = format!("weir-static-{node}");
    eventually("the static pod", READY, || async {
        let pod = pods.get(&name).await?;
        world.get_on(node, &url_of(&address(&pod)?)).await
    })
    .await?;
    Ok(())
}
