//! NetworkPolicies as pods see them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::DeleteParams;
use serde_json::json;

use crate::kit::objects::{client, policy, server};
use crate::kit::world::{READY, address};
use crate::kit::{World, eventually};

/// How long a denial must last to be one.
const SETTLED: Duration = Duration::from_secs(3);

/// A policy that lets one pod in and no other, whose deletion lets all in again.
///
/// # Errors
/// A pod gets through that may not, or does not that may.
pub async fn denied_and_allowed(world: World) -> Result<()> {
    let nodes = world.nodes();
    let (first, last) = (nodes[0].as_str(), nodes[nodes.len() - 1].as_str());
    let web = world.start(&server("web", "web", Some(first))).await?;
    let url = format!("http://{}:8080/hostname", address(&web)?);
    // One beside the server, one across the wire, of each sort.
    for (name, node) in [
        ("friend-near", first),
        ("friend-far", last),
        ("stranger-near", first),
        ("stranger-far", last),
    ] {
        world.start(&labelled(name, node)).await?;
        eventually("an answer before the policy", READY, || {
            world.get(name, &url)
        })
        .await?;
    }
    world
        .create(&policy(
            "friends",
            &json!({
                "podSelector": { "matchLabels": { "app": "web" } },
                "policyTypes": ["Ingress"],
                "ingress": [{
                    "from": [{ "podSelector": { "matchLabels": { "sort": "friend" } } }],
                    "ports": [{ "port": 8080 }],
                }],
            }),
        ))
        .await?;
    for name in ["stranger-near", "stranger-far"] {
        closes(&world, name, &url).await?;
    }
    for name in ["friend-near", "friend-far"] {
        world.get(name, &url).await?;
    }
    // kubelet still gets through: its probes are the node's.
    world.ready("web").await?;
    world
        .api::<NetworkPolicy>()
        .delete("friends", &DeleteParams::default())
        .await?;
    eventually("an answer after the policy", READY, || {
        world.get("stranger-far", &url)
    })
    .await?;
    Ok(())
}

/// Egress: a pod that may talk to DNS only.
///
/// # Errors
/// As of [`denied_and_allowed`].
pub async fn egress_to_dns_only(world: World) -> Result<()> {
    let web = world.start(&server("web", "web", None)).await?;
    let url = format!("http://{}:8080/hostname", address(&web)?);
    world.start(&labelled("asker", &world.nodes()[0])).await?;
    eventually("an answer before the policy", READY, || {
        world.get("asker", &url)
    })
    .await?;
    world
        .create(&policy("dns-only", &json!({
            "podSelector": { "matchLabels": { "app": "asker" } },
            "policyTypes": ["Egress"],
            "egress": [{ "ports": [{ "port": 53, "protocol": "UDP" }, { "port": 53, "protocol": "TCP" }] }],
        })))
        .await?;
    closes(&world, "asker", &url).await?;
    world
        .exec(
            "asker",
            &["nslookup", "kubernetes.default.svc.cluster.local."],
        )
        .await?;
    Ok(())
}

/// A client whose label `sort` is its name up to the first dash.
pub fn labelled(name: &str, node: &str) -> Pod {
    let mut pod = client(name, Some(node), None);
    let sort = name.split('-').next().unwrap_or(name).to_owned();
    pod.metadata
        .labels
        .get_or_insert_default()
        .insert("sort".to_owned(), sort);
    pod
}

/// Waits until no request gets through, and then that it stays so.
async fn closes(world: &World, pod: &str, url: &str) -> Result<()> {
    eventually(&format!("that {pod} is kept out"), READY, || async {
        ensure!(world.get(pod, url).await.is_err(), "it gets through");
        Ok(())
    })
    .await?;
    let begin = Instant::now();
    while begin.elapsed() < SETTLED {
        ensure!(
            world.get(pod, url).await.is_err(),
            "{pod} got through once more"
        );
    }
    Ok(())
}
