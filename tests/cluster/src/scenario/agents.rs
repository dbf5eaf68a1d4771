//! Agents that come and go while connections are made.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams};
use serde_json::json;

use crate::args::Containerd;
use crate::e2e::now;
use crate::kit::checks::Held;
use crate::kit::load::{Connections, Load};
use crate::kit::objects::{deployment, server, service};
use crate::kit::world::{READY, WEIR, host};
use crate::kit::{World, eventually};

/// What the test's image is called beside its own name.
const NEXT: &str = "localhost/weir:next";
/// How long connections go on when everything is back.
const AFTER: Duration = Duration::from_secs(5);

/// A Service with two servers on each node, and connections to it from the last node.
async fn loaded(world: &World, name: &str) -> Result<Load> {
    let nodes = world.nodes();
    let count = i32::try_from(2 * nodes.len())?;
    world.create(&deployment("web", count)).await?;
    world.all_ready("web", 2 * nodes.len()).await?;
    let made = world.create(&service("web", "web", &json!({}))).await?;
    let ip = made
        .spec
        .and_then(|spec| spec.cluster_ip)
        .unwrap_or_default();
    let url = format!("http://{}/hostname", host(&ip));
    let last = &nodes[nodes.len() - 1];
    eventually("the Service", READY, || world.get_on(last, &url)).await?;
    Load::start(world, name, last, &url, Connections::NewAndKept).await
}

/// `kubectl rollout restart`: every agent is replaced, one node after the other.
///
/// # Errors
/// A connection fails meanwhile, or the agents do not come back.
pub async fn rolling_restart(world: World) -> Result<String> {
    let load = loaded(&world, "roll").await?;
    let restarted = json!({ "weir-cluster/restarted-at": now().to_string() });
    let patch = json!({ "spec": { "template": { "metadata": { "annotations": restarted } } } });
    world.patch_weir(&patch).await?;
    world.weir_rolled_out().await?;
    tokio::time::sleep(AFTER).await;
    load.end(&world).await
}

/// One agent's pod is deleted at once, without grace.
///
/// # Errors
/// As of [`rolling_restart`].
pub async fn agent_deleted(world: World) -> Result<String> {
    let load = loaded(&world, "gone").await?;
    let nodes = world.nodes();
    let last = &nodes[nodes.len() - 1];
    let old = world.agent(last).await?;
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), WEIR);
    pods.delete(&old.name_any(), &DeleteParams::default().grace_period(0))
        .await?;
    eventually("another agent", READY, || async {
        let new = world.agent(last).await?;
        ensure!(new.uid() != old.uid(), "it is still the old one");
        Ok(())
    })
    .await?;
    world.weir_rolled_out().await?;
    // The new one adopts pods that it has not seen come, and sets up new ones.
    world.start(&server("after", "after", Some(last))).await?;
    tokio::time::sleep(AFTER).await;
    load.end(&world).await
}

/// The image is replaced by another, and back: the same programs by another name, so that what is
/// shown is the way, not a difference between releases.
///
/// # Errors
/// As of [`rolling_restart`], or an agent runs another image than it should.
pub async fn upgrade(world: World) -> Result<String> {
    let sets: Api<DaemonSet> = Api::namespaced(world.client.clone(), WEIR);
    let old = image(&sets.get("weir").await?)?;
    for node in world.nodes() {
        world
            .on_node(
                &node,
                &[
                    "ctr", "-n", "k8s.io", "images", "tag", "--force", &old, NEXT,
                ],
            )
            .await?;
    }
    let load = loaded(&world, "upgrade").await?;
    let mut ended = Ok(());
    for image in [NEXT, old.as_str()] {
        ended = roll_to(&world, image).await;
        if ended.is_err() {
            break;
        }
    }
    // Also after a failure: the next scenario expects the cluster as it was.
    roll_to(&world, &old).await?;
    ended?;
    load.end(&world).await
}

async fn roll_to(world: &World, image: &str) -> Result<()> {
    // The init container's image is the same one.
    let patch = json!({ "spec": { "template": { "spec": {
        "initContainers": [{ "name": "install", "image": image }],
        "containers": [{ "name": "agent", "image": image }],
    } } } });
    world.patch_weir(&patch).await?;
    world.weir_rolled_out().await?;
    for node in world.nodes() {
        let agent = world.agent(&node).await?;
        let runs = agent
            .spec
            .as_ref()
            .and_then(|spec| spec.containers[0].image.clone());
        ensure!(
            runs.as_deref() == Some(image),
            "{node} runs {runs:?}, not {image}"
        );
    }
    Ok(())
}

fn image(set: &DaemonSet) -> Result<String> {
    let spec = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    let agent = spec.and_then(|spec| spec.containers.iter().find(|c| c.name == "agent"));
    let image = agent.and_then(|agent| agent.image.clone());
    image
        .ok_or_else(|| anyhow::anyhow!("the DaemonSet weir has no container `agent` with an image"))
}

/// Without agents no pod can be made: containerd asks the plugin (STATUS), kubelet calls the nodes
/// not ready; pods that are there go on.
///
/// # Errors
/// A node stays ready, does not come back, or a connection fails meanwhile.
pub async fn status(world: World) -> Result<Held> {
    if world.cluster.state().options.containerd != Containerd::Two {
        return Ok(Held::Skipped(
            "containerd 1.6 speaks CNI 1.0, which has no STATUS".to_owned(),
        ));
    }
    let load = loaded(&world, "status").await?;
    let nowhere = |value| json!({ "spec": { "template": { "spec": { "nodeSelector": { "weir-cluster/nowhere": value } } } } });
    world.patch_weir(&nowhere(json!("yes"))).await?;
    let gone = world.nodes_ready(false).await;
    let why = reason(&world).await;
    world.patch_weir(&nowhere(json!(null))).await?;
    world.weir_rolled_out().await?;
    world.nodes_ready(true).await?;
    gone?;
    world.start(&server("after", "after", None)).await?;
    let seen = load.end(&world).await?;
    Ok(Held::Yes(format!("{seen}; meanwhile: {}", why?)))
}

/// What the first node's condition Ready says.
async fn reason(world: &World) -> Result<String> {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let node = nodes.get(&world.nodes()[0]).await?;
    let conditions = node
        .status
        .and_then(|status| status.conditions)
        .unwrap_or_default();
    let ready = conditions
        .into_iter()
        .find(|condition| condition.type_ == "Ready");
    Ok(ready.and_then(|ready| ready.message).unwrap_or_default())
}
