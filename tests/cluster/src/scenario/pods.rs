//! Pods come and go, through kubelet and containerd.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, EvictParams, ListParams};
use serde_json::json;
use weir_api::endpoint::Endpoint;

use crate::kit::load::{Connections, Load};
use crate::kit::objects::{client, deployment, server, service};
use crate::kit::world::{READY, address, host};
use crate::kit::{World, eventually};

/// How many pods at once.
const PODS: usize = 8;

/// ADD and DEL: what the agent lists on each node is exactly the pods there, with their addresses,
/// after pods were made, and after they were deleted; every pod reaches every other.
///
/// # Errors
/// The lists differ, or a pod cannot be reached.
pub async fn lifecycle(world: World) -> Result<String> {
    let nodes = world.nodes();
    for number in 0..PODS {
        let node = &nodes[number % nodes.len()];
        world
            .create(&server(&format!("pod-{number}"), "pod", Some(node)))
            .await?;
    }
    let pods = world.all_ready("pod", PODS).await?;
    lists_agree(&world).await?;
    for from in [&nodes[0], &nodes[nodes.len() - 1]] {
        let asker = format!("asker-{from}");
        world.start(&client(&asker, Some(from), None)).await?;
        for pod in &pods {
            world
                .get(&asker, &format!("http://{}:8080/hostname", address(pod)?))
                .await?;
        }
    }
    let at_once = DeleteParams::default().grace_period(0);
    world
        .api::<Pod>()
        .delete_collection(&at_once, &ListParams::default())
        .await?;
    lists_agree(&world).await?;
    Ok(format!("{PODS} pods made and deleted"))
}

/// `kubectl drain`: a node's pods are evicted one after the other while connections are made to
/// their Service; the node takes none until it is uncordoned, and then does.
///
/// # Errors
/// A connection fails, or a pod does not come up elsewhere.
pub async fn drain(world: World) -> Result<String> {
    let nodes = world.nodes();
    ensure!(
        nodes.len() > 1,
        "a drain needs two nodes: cargo xtask cluster up --nodes 2"
    );
    let (first, last) = (nodes[0].as_str(), nodes[nodes.len() - 1].as_str());
    let count = 2 * nodes.len();
    world
        .create(&deployment("web", i32::try_from(count)?))
        .await?;
    world.all_ready("web", count).await?;
    let made = world.create(&service("web", "web", &json!({}))).await?;
    let url = format!(
        "http://{}/hostname",
        host(&made.spec.and_then(|s| s.cluster_ip).unwrap_or_default())
    );
    eventually("the Service", READY, || world.get_on(first, &url)).await?;
    let load = Load::start(&world, "drain", first, &url, Connections::New).await?;
    let all: Api<Node> = Api::all(world.client.clone());
    all.cordon(last).await.context("cannot cordon the node")?;
    let drained = evict_all(&world, last, count).await;
    // Also after a failure.
    all.uncordon(last)
        .await
        .context("cannot uncordon the node")?;
    drained?;
    world.start(&server("back", "back", Some(last))).await?;
    load.end(&world).await
}

async fn evict_all(world: &World, node: &str, count: usize) -> Result<()> {
    let pods: Api<Pod> = world.api();
    let here = ListParams::default()
        .labels("app=web")
        .fields(&format!("spec.nodeName={node}"));
    for pod in pods.list(&here).await?.items {
        pods.evict(&pod.name_any(), &EvictParams::default()).await?;
        world.all_ready("web", count).await?;
    }
    let left = pods.list(&here).await?.items.len();
    ensure!(left == 0, "{left} pods are left on {node}");
    lists_agree(world).await
}

/// Waits until each agent lists exactly the pods of its node.
async fn lists_agree(world: &World) -> Result<()> {
    for node in world.nodes() {
        eventually(
            &format!("that the agent on {node} lists its pods"),
            READY,
            || async {
                let text = world
                    .weir(&node, &["endpoint", "list", "-o", "json"])
                    .await?;
                let endpoints: Vec<Endpoint> = serde_json::from_str(&text)?;
                let listed: BTreeSet<_> = endpoints.iter().filter_map(listed).collect();
                let pods: Api<Pod> = Api::all(world.client.clone());
                let here = ListParams::default().fields(&format!("spec.nodeName={node}"));
                let wanted: BTreeSet<(String, String)> = pods
                    .list(&here)
                    .await?
                    .items
                    .iter()
                    .filter_map(attached)
                    .collect();
                ensure!(
                    listed == wanted,
                    "the agent lists {listed:?}, the API server {wanted:?}"
                );
                Ok(())
            },
        )
        .await?;
    }
    Ok(())
}

/// An endpoint's pod and first address.
fn listed(endpoint: &Endpoint) -> Option<(String, String)> {
    let pod = endpoint.attachment.pod.as_ref()?;
    let address = endpoint.attachment.addresses.first()?;
    Some((
        format!("{}/{}", pod.namespace, pod.name),
        address.to_string(),
    ))
}

/// A pod's name and first address, if it has a network of its own and still exists on its node.
fn attached(pod: &Pod) -> Option<(String, String)> {
    let spec = pod.spec.as_ref()?;
    let status = pod.status.as_ref()?;
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if spec.host_network == Some(true) || over {
        return None;
    }
    let name = format!("{}/{}", pod.namespace()?, pod.name_any());
    Some((name, status.pod_ip.clone()?))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::kit::objects::typed;

    use super::*;

    #[test]
    fn only_pods_with_a_network_of_their_own_are_attached() {
        let pod = |spec: Value, phase: &str| -> Pod {
            typed(json!({
                "metadata": { "namespace": "a", "name": "b" },
                "spec": spec, "status": { "phase": phase, "podIP": "10.0.0.1" },
            }))
        };
        let own = json!({ "containers": [] });
        let host = json!({ "containers": [], "hostNetwork": true });
        let expected = Some(("a/b".to_owned(), "10.0.0.1".to_owned()));
        assert_eq!(attached(&pod(own.clone(), "Running")), expected);
        assert_eq!(attached(&pod(own, "Succeeded")), None);
        assert_eq!(attached(&pod(host, "Running")), None);
    }
}
