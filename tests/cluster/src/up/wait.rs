//! The parts of `up` that wait for the API.

use std::{net::IpAddr, path::Path};

use anyhow::{Context, Result, ensure};
use ipnetwork::IpNetwork;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1 as core,
};
use kube::{
    Api, Client,
    runtime::wait::{Condition, await_condition},
};

use super::{LIMIT, POLL, Up};
use crate::{
    api,
    fabric::{BRIDGE, UPLINK},
    install::{bridge, weir},
    state::Node,
    status::{is_ready, pod_cidrs},
};

impl Up {
    /// Until the API server says that it is ready.
    pub(super) async fn await_api(&self, client: &Client) -> Result<()> {
        let ready = async {
            loop {
                let request = kube::client::Body::empty();
                let request = http::Request::get("/readyz").body(request)?;
                if client
                    .send(request)
                    .await
                    .is_ok_and(|r| r.status().is_success())
                {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        self.wait("kube-apiserver is ready", LIMIT, ready).await
    }

    /// Until each node meets a condition, as the API's watch tells.
    async fn await_nodes(
        &self,
        client: &Client,
        what: &str,
        condition: impl Condition<core::Node> + Clone,
    ) -> Result<Vec<core::Node>> {
        let api: Api<core::Node> = Api::all(client.clone());
        let nodes = self.nodes();
        let all = nodes.iter().map(|node| {
            let (api, condition) = (api.clone(), condition.clone());
            async move {
                let object = await_condition(api, &node.name, condition).await?;
                object.with_context(|| format!("the node {} was removed", node.name))
            }
        });
        self.wait(what, LIMIT, futures::future::try_join_all(all))
            .await
    }

    /// Until each kubelet has made its Node.
    pub(super) async fn await_registered(&self, client: &Client) -> Result<()> {
        let there = |node: Option<&core::Node>| node.is_some();
        self.await_nodes(client, "nodes are registered", there)
            .await?;
        Ok(())
    }

    /// Until each node is Ready.
    pub(super) async fn await_ready(&self, client: &Client) -> Result<()> {
        let ready = |node: Option<&core::Node>| node.is_some_and(is_ready);
        self.await_nodes(client, "nodes are Ready", ready).await?;
        Ok(())
    }

    /// Each node's pod CIDRs, once all have them.
    async fn await_pod_cidrs(&self, client: &Client) -> Result<Vec<Vec<IpNetwork>>> {
        let wanted = self.plan.pod_cidrs().len();
        let given = move |node: Option<&core::Node>| {
            node.is_some_and(|node| pod_cidrs(node).len() == wanted)
        };
        let objects = self
            .await_nodes(client, "nodes have pod CIDRs", given)
            .await?;
        let cidrs = objects.iter().map(pod_cidrs);
        cidrs
            .map(|cidrs| cidrs.iter().map(|c| Ok(c.parse()?)).collect())
            .collect()
    }

    /// The gateway knows the way to pods, so that those outside can answer them.
    pub(super) async fn route_to_pods(&self, client: &Client) -> Result<()> {
        let cidrs = self.await_pod_cidrs(client).await?;
        let addresses = self.nodes().into_iter().map(|node| node.addresses);
        let to: Vec<_> = cidrs.into_iter().zip(addresses).collect();
        bridge::routes(self.fabric()?, BRIDGE, &to)
    }

    /// The reference plugins, their configuration, and routes between nodes.
    pub(super) async fn install_bridge(&self, client: &Client) -> Result<()> {
        let cidrs = self.await_pod_cidrs(client).await?;
        let nodes = self.nodes();
        for (node, own) in nodes.iter().zip(&cidrs) {
            let others: Vec<(Vec<IpNetwork>, Vec<IpAddr>)> = nodes
                .iter()
                .zip(&cidrs)
                .filter(|(other, _)| other.name != node.name)
                .map(|(other, cidrs)| (cidrs.clone(), other.addresses.clone()))
                .collect();
            bridge::routes(node.holder.pid, UPLINK, &others)?;
            let root = root(node);
            bridge::reference_plugins(&root.join("opt"))?;
            let list = format!("{:#}\n", bridge::conflist(own));
            // containerd looks at a rename, never at half a file.
            let dir = root.join("etc/cni/net.d");
            super::write(&dir.join("10-bridge.tmp"), &list)?;
            std::fs::rename(dir.join("10-bridge.tmp"), dir.join("10-bridge.conflist"))
                .context("cannot write the conflist")?;
        }
        Ok(())
    }

    /// Weir and CoreDNS, as an operator installs them: by kubectl.
    pub(super) async fn install_weir(&self) -> Result<()> {
        let manifests = self.manifests.as_deref().context("no manifests")?;
        let options = self.state().options.clone();
        let files = weir::write(&self.dir.join("install"), manifests, &self.plan, &options)?;
        let definition = self.bin.join("npa-crd-standard.yaml");
        let apply = async {
            tokio::try_join!(
                self.apply("-k", &files.weir),
                self.apply("-f", &files.coredns),
                self.apply("-f", &definition),
            )
        };
        let what = "Weir, CoreDNS and ClusterNetworkPolicy are applied";
        self.wait(what, LIMIT, apply).await?;
        Ok(())
    }

    async fn apply(&self, flag: &str, path: &Path) -> Result<()> {
        let kubectl = self.bin.join("kubectl");
        let output = tokio::process::Command::new(&kubectl)
            .args(["apply", "--server-side", "--force-conflicts"])
            .arg(flag)
            .arg(path)
            .env("KUBECONFIG", api::kubeconfig(&self.dir))
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("cannot run {}", kubectl.display()))?;
        ensure!(
            output.status.success(),
            "kubectl apply {flag} {}: {}",
            path.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Until Weir's agents are ready, and CoreDNS with them.
    pub(super) async fn await_system(&self, client: &Client) -> Result<()> {
        let agents = await_condition(
            Api::<DaemonSet>::namespaced(client.clone(), "weir-system"),
            "weir",
            |set: Option<&DaemonSet>| {
                let status = set.and_then(|set| set.status.as_ref());
                status.is_some_and(|s| {
                    s.number_ready > 0 && s.number_ready == s.desired_number_scheduled
                })
            },
        );
        let wait = async { Ok(agents.await.map(drop)?) };
        self.wait("Weir's agents are ready", LIMIT, wait).await?;
        let dns = await_condition(
            Api::<Deployment>::namespaced(client.clone(), "kube-system"),
            "coredns",
            |deployment: Option<&Deployment>| {
                let wanted = deployment.and_then(|d| d.spec.as_ref()?.replicas);
                let there = deployment.and_then(|d| d.status.as_ref()?.available_replicas);
                wanted.is_some() && wanted == there
            },
        );
        let wait = async { Ok(dns.await.map(drop)?) };
        self.wait("CoreDNS is available", LIMIT, wait).await
    }
}

/// A node's root, as this process can open it.
pub(super) fn root(node: &Node) -> std::path::PathBuf {
    format!("/proc/{}/root", node.holder.pid).into()
}
