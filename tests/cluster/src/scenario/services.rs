//! Services of every kind, from a pod, from a node and, where that is their point, from another node.

use std::future::Future;
use std::pin::Pin;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::kit::objects::{client, server, service, typed};
use crate::kit::world::{READY, address, host};
use crate::kit::{World, eventually};

/// One kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An address within the cluster.
    ClusterIp,
    /// A port of every node.
    NodePort,
    /// An address that a load balancer gives; here its status is written by hand.
    LoadBalancer,
    /// Another name.
    ExternalName,
    /// The pods' own addresses.
    Headless,
    /// A port of the one node that the pod is on.
    HostPort,
}

/// Every kind, and what is said of it.
pub const KINDS: [(&str, Kind); 6] = [
    (
        "a ClusterIP is answered from a pod and from a node",
        Kind::ClusterIp,
    ),
    (
        "a NodePort is answered at every node, from a pod and from another node",
        Kind::NodePort,
    ),
    (
        "a load balancer's address is answered from a pod and from a node",
        Kind::LoadBalancer,
    ),
    (
        "an ExternalName leads to the Service that it names",
        Kind::ExternalName,
    ),
    (
        "a headless Service leads to each of its pods",
        Kind::Headless,
    ),
    (
        "a HostPort is answered at the pod's node, from another node",
        Kind::HostPort,
    ),
];

/// From TEST-NET-3: nobody's, so that only a load balancer's rule can answer there.
const BALANCER: &str = "203.0.113.77";

type Test<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

impl Kind {
    /// Makes one and asks it.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn run(self, world: World) -> Result<()> {
        let nodes = world.nodes();
        let (first, last) = (nodes[0].as_str(), nodes[nodes.len() - 1].as_str());
        world.start(&client("asker", Some(first), None)).await?;
        if self != Self::HostPort {
            world.start(&server("web-a", "web", Some(first))).await?;
            world.start(&server("web-b", "web", Some(last))).await?;
        }
        let test: Test<'_> = match self {
            Self::ClusterIp => Box::pin(cluster_ip(&world, first)),
            Self::NodePort => Box::pin(node_port(&world, &nodes)),
            Self::LoadBalancer => Box::pin(load_balancer(&world, first)),
            Self::ExternalName => Box::pin(external_name(&world)),
            Self::Headless => Box::pin(headless(&world)),
            Self::HostPort => Box::pin(host_port(&world, first, last)),
        };
        test.await
    }
}

/// Until the Service is programmed, which follows its making by a moment.
async fn answered(world: &World, url: &str, node: Option<&str>) -> Result<String> {
    let from = node.unwrap_or("a pod");
    eventually(&format!("an answer of {url} to {from}"), READY, || async {
        match node {
            Some(node) => world.get_on(node, url).await,
            None => world.get("asker", url).await,
        }
    })
    .await
}

async fn cluster_ip(world: &World, node: &str) -> Result<()> {
    let made = world.create(&service("web", "web", &json!({}))).await?;
    let ip = made
        .spec
        .and_then(|spec| spec.cluster_ip)
        .context("no address")?;
    let url = format!("http://{}/hostname", host(&ip));
    answered(world, &url, None).await?;
    answered(world, &url, Some(node)).await?;
    // Both pods get their share.
    for name in ["web-a", "web-b"] {
        eventually(&format!("an answer of {name}"), READY, || async {
            let said = world.get("asker", &url).await?;
            ensure!(said.trim() == name, "{said} answered");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn node_port(world: &World, nodes: &[String]) -> Result<()> {
    let made = world
        .create(&service("web", "web", &json!({ "type": "NodePort" })))
        .await?;
    let port = node_port_of(&made)?;
    for target in world.cluster.nodes() {
        let address = target
            .addresses
            .first()
            .context("the node has no address")?;
        let url = format!("http://{}:{port}/hostname", host(&address.to_string()));
        answered(world, &url, None).await?;
        for from in nodes {
            answered(world, &url, Some(from)).await?;
        }
    }
    Ok(())
}

fn node_port_of(service: &Service) -> Result<i32> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    ports
        .and_then(|ports| ports.first()?.node_port)
        .context("the Service got no NodePort")
}

async fn load_balancer(world: &World, node: &str) -> Result<()> {
    let made = world
        .create(&service("web", "web", &json!({ "type": "LoadBalancer" })))
        .await?;
    let ip = made
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.clone())
        .unwrap_or_default();
    let given = if ip.contains(':') {
        "2001:db8:77::77"
    } else {
        BALANCER
    };
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": given }] } } });
    world
        .api::<Service>()
        .patch_status(
            &made.name_any(),
            &PatchParams::default(),
            &Patch::Merge(&status),
        )
        .await
        .context("cannot write the load balancer's address")?;
    let url = format!("http://{}/hostname", host(given));
    answered(world, &url, None).await?;
    answered(world, &url, Some(node)).await?;
    Ok(())
}

async fn external_name(world: &World) -> Result<()> {
    world.create(&service("web", "web", &json!({}))).await?;
    let target = format!("web.{}.svc.cluster.local", world.namespace);
    let spec = json!({ "type": "ExternalName", "externalName": target });
    world.create(&service("other", "web", &spec)).await?;
    answered(world, "http://other/hostname", None).await?;
    Ok(())
}

async fn headless(world: &World) -> Result<()> {
    world
        .create(&service("web", "web", &json!({ "clusterIP": "None" })))
        .await?;
    for name in ["web-a", "web-b"] {
        let pod = world.api::<Pod>().get(name).await?;
        let ip = address(&pod)?.replace(['[', ']'], "");
        let full = format!("web.{}.svc.cluster.local.", world.namespace);
        eventually(&format!("{name}'s address"), READY, || async {
            let said = world.exec("asker", &["nslookup", &full]).await?;
            ensure!(said.contains(&ip), "the answer is {said}");
            Ok(())
        })
        .await?;
    }
    answered(world, "http://web:8080/hostname", None).await?;
    Ok(())
}

async fn host_port(world: &World, first: &str, last: &str) -> Result<()> {
    let mut pod = serde_json::to_value(server("web-h", "web", Some(last)))?;
    pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 8080, "hostPort": 18080 }]);
    world.start(&typed::<Pod>(pod)).await?;
    let node = world.cluster.nodes().last().context("there is no node")?;
    let address = node.addresses.first().context("the node has no address")?;
    let url = format!("http://{}:18080/hostname", host(&address.to_string()));
    answered(world, &url, None).await?;
    if first != last {
        answered(world, &url, Some(first)).await?;
    }
    Ok(())
}
