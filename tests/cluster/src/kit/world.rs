//! A namespace in the cluster, for one test.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::conditions::Condition;
use kube::runtime::wait::await_condition;
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::api::Cluster;

/// Where Weir is installed.
pub const WEIR: &str = "weir-system";
/// How long pods and nodes may take to get ready.
pub const READY: Duration = Duration::from_secs(90);
/// Asks for a URL, for at most three seconds; an error of the server is one.
const CURL: [&str; 6] = ["curl", "-gsSf", "--noproxy", "*", "--max-time", "3"];
/// How often something that sends no event is asked again.
const POLL: Duration = Duration::from_millis(250);

/// A cluster, and a namespace of it that goes when the test ends.
#[derive(Clone)]
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// With all rights.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
}

impl World {
    /// Makes the namespace `weir-NAME` anew, and waits until pods may be made in it.
    ///
    /// # Errors
    /// The API server does not answer, or an older one of that name does not go.
    pub async fn new(cluster: &Cluster, name: &str) -> Result<Self> {
        let world = Self {
            cluster: cluster.clone(),
            client: cluster.client().await?,
            namespace: format!("weir-{name}"),
        };
        world.remove().await?;
        let all: Api<Namespace> = Api::all(world.client.clone());
        let object = json!({ "metadata": { "name": world.namespace } });
        all.create(&PostParams::default(), &serde_json::from_value(object)?)
            .await
            .with_context(|| format!("cannot make the namespace {}", world.namespace))?;
        let accounts: Api<ServiceAccount> = world.api();
        let there = |account: Option<&ServiceAccount>| account.is_some();
        wait(accounts, "default", there, "the service account", READY).await?;
        Ok(world)
    }

    /// Runs a test in a namespace of its own, which goes whether it held or not.
    ///
    /// # Errors
    /// The test's, or that of making and removing the namespace.
    pub async fn with<T, F: Future<Output = Result<T>>>(
        cluster: &Cluster,
        name: &str,
        test: impl FnOnce(Self) -> F,
    ) -> Result<T> {
        let world = Self::new(cluster, name).await?;
        let held = test(world.clone()).await;
        let removed = world.remove().await;
        let held = held?;
        removed?;
        Ok(held)
    }

    async fn remove(&self) -> Result<()> {
        let all: Api<Namespace> = Api::all(self.client.clone());
        if all.get_opt(&self.namespace).await?.is_none() {
            return Ok(());
        }
        // Servers that would go on for their grace have nobody left to serve.
        let at_once = DeleteParams::default().grace_period(0);
        let pods: Api<Pod> = self.api();
        pods.delete_collection(&at_once, &ListParams::default())
            .await?;
        // It may have gone just now.
        let _ = all.delete(&self.namespace, &DeleteParams::default()).await;
        let gone = |namespace: Option<&Namespace>| namespace.is_none();
        wait(all, &self.namespace, gone, "that the namespace goes", READY).await
    }

    /// The objects of a kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes an object.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create<K>(&self, object: &K) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
        K::DynamicType: Default,
    {
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        self.api::<K>()
            .create(&PostParams::default(), object)
            .await
            .with_context(|| format!("cannot make the {kind} {}", object.name_any()))
    }

    /// Makes a pod and waits until it is ready; the pod as it is then.
    ///
    /// # Errors
    /// It does not get ready in time.
    pub async fn start(&self, pod: &Pod) -> Result<Pod> {
        let name = self.create(pod).await?.name_any();
        self.ready(&name).await
    }

    /// Waits until a pod is ready.
    ///
    /// # Errors
    /// It does not get ready in time: what its status says.
    pub async fn ready(&self, name: &str) -> Result<Pod> {
        let what = format!("pod {name}");
        let pods: Api<Pod> = self.api();
        if let Err(late) = wait(pods.clone(), name, pod_ready, &what, READY).await {
            let pod = pods.get(name).await?;
            let status = serde_json::to_string(&pod.status)?;
            bail!("{late:#}; its status: {status}");
        }
        Ok(pods.get(name).await?)
    }

    /// Waits until `count` pods labelled `app` are ready and none else of them is there.
    ///
    /// # Errors
    /// That does not come about in time.
    pub async fn all_ready(&self, app: &str, count: usize) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = self.api();
        let chosen = ListParams::default().labels(&format!("app={app}"));
        eventually(&format!("{count} ready pods of {app}"), READY, || async {
            let pods = pods.list(&chosen).await?.items;
            let ready = pods.iter().filter(|pod| pod_ready(Some(pod))).count();
            ensure!(
                ready == count && pods.len() == count,
                "{ready} of {} are ready",
                pods.len()
            );
            Ok(pods)
        })
        .await
    }

    /// What a program in a pod of this namespace prints.
    ///
    /// # Errors
    /// It fails: what it printed.
    pub async fn exec(&self, pod: &str, program: &[&str]) -> Result<String> {
        self.exec_in(&self.namespace, pod, program).await
    }

    /// As [`World::exec`], in another namespace.
    ///
    /// # Errors
    /// It fails: what it printed.
    pub async fn exec_in(&self, namespace: &str, pod: &str, program: &[&str]) -> Result<String> {
        let mut kubectl = self.kubectl();
        kubectl
            .args(["exec", "-n", namespace, pod, "--"])
            .args(program);
        output(&mut kubectl).await
    }

    /// kubectl, as an administrator on the machine.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.cluster.state().bin.join("kubectl"));
        command.env("KUBECONFIG", self.cluster.kubeconfig());
        command
    }

    /// What a program on a node prints.
    ///
    /// # Errors
    /// It fails: what it printed.
    pub async fn on_node(&self, node: &str, program: &[&str]) -> Result<String> {
        let (first, rest) = program.split_first().context("no program is named")?;
        let mut command = Command::from(self.cluster.command_in(node, first)?);
        output(command.args(rest)).await
    }

    /// What a URL answers a pod, within three seconds.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn get(&self, pod: &str, url: &str) -> Result<String> {
        self.exec(pod, &[&CURL[..], &[url]].concat()).await
    }

    /// What a URL answers a node, within three seconds.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn get_on(&self, node: &str, url: &str) -> Result<String> {
        self.on_node(node, &[&CURL[..], &[url]].concat()).await
    }

    /// Names of the nodes.
    pub fn nodes(&self) -> Vec<String> {
        self.cluster
            .nodes()
            .iter()
            .map(|node| node.name.clone())
            .collect()
    }

    /// Weir's pod on a node.
    ///
    /// # Errors
    /// There is none.
    pub async fn agent(&self, node: &str) -> Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), WEIR);
        let chosen = ListParams::default()
            .labels("app.kubernetes.io/name=weir")
            .fields(&format!("spec.nodeName={node}"));
        let pods = pods.list(&chosen).await?.items;
        let running = pods
            .into_iter()
            .find(|pod| pod.metadata.deletion_timestamp.is_none());
        running
            .with_context(|| format!("there is no agent on {node}: is this a cluster of Weir's?"))
    }

    /// What `weir ARGS` prints on a node.
    ///
    /// # Errors
    /// It fails: what it printed.
    pub async fn weir(&self, node: &str, args: &[&str]) -> Result<String> {
        let agent = self.agent(node).await?.name_any();
        let program: Vec<&str> = std::iter::once("weir")
            .chain(args.iter().copied())
            .collect();
        self.exec_in(WEIR, &agent, &program).await
    }

    /// Changes Weir's DaemonSet.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn patch_weir(&self, patch: &Value) -> Result<()> {
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), WEIR);
        sets.patch("weir", &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .context("cannot change the DaemonSet weir")?;
        Ok(())
    }

    /// Waits until every node has the newest agent, ready.
    ///
    /// # Errors
    /// That does not come about in time.
    pub async fn weir_rolled_out(&self) -> Result<()> {
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), WEIR);
        let limit = READY * u32::try_from(self.nodes().len()).unwrap_or(1);
        wait(sets, "weir", rolled_out, "the agents", limit).await
    }

    /// Waits until every node is ready, or, if `ready` is false, until none is.
    ///
    /// # Errors
    /// That does not come about in time.
    pub async fn nodes_ready(&self, ready: bool) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        for name in self.nodes() {
            let wanted =
                move |node: Option<&Node>| node.is_some_and(|node| node_ready(node) == ready);
            let what = format!("node {name} (ready: {ready})");
            wait(nodes.clone(), &name, wanted, &what, READY).await?;
        }
        Ok(())
    }
}

/// Waits for an event.
async fn wait<K>(
    api: Api<K>,
    name: &str,
    wanted: impl Condition<K>,
    what: &str,
    limit: Duration,
) -> Result<()>
where
    K: Clone + Debug + Send + DeserializeOwned + Resource + 'static,
{
    tokio::time::timeout(limit, await_condition(api, name, wanted))
        .await
        .with_context(|| format!("waited {} s for {what}", limit.as_secs()))?
        .with_context(|| format!("cannot wait for {what}"))?;
    Ok(())
}

/// Asks again until it holds; for what sends no event.
///
/// # Errors
/// The last one, after `limit`.
pub async fn eventually<T, F: Future<Output = Result<T>>>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> F,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match ask().await {
            Ok(held) => return Ok(held),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("waited {} s for {what}", limit.as_secs())));
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

async fn output(command: &mut Command) -> Result<String> {
    let name = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let out = command
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot start {name}"))?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        let error = String::from_utf8_lossy(&out.stderr);
        let args: Vec<_> = command
            .as_std()
            .get_args()
            .map(|a| a.to_string_lossy())
            .collect();
        bail!(
            "{name} {}: {} {}",
            args.join(" "),
            error.trim(),
            said.trim()
        );
    }
    Ok(said)
}

fn pod_ready(pod: Option<&Pod>) -> bool {
    let conditions = pod
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn node_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn rolled_out(set: Option<&DaemonSet>) -> bool {
    let Some((set, status)) = set.and_then(|set| Some((set, set.status.as_ref()?))) else {
        return false;
    };
    status.observed_generation == set.metadata.generation
        && status.desired_number_scheduled > 0
        && status.updated_number_scheduled == Some(status.desired_number_scheduled)
        && status.number_ready == status.desired_number_scheduled
}

/// The address of a pod in the cluster's first family, as a URL has it.
///
/// # Errors
/// It has none yet.
pub fn address(pod: &Pod) -> Result<String> {
    let address = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.as_deref());
    Ok(host(address.context("the pod has no address")?))
}

/// An address as a URL has it.
pub fn host(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::objects::typed;
    use super::*;

    fn set(generation: i64, observed: i64, updated: i32, ready: i32) -> DaemonSet {
        typed(json!({
            "metadata": { "generation": generation },
            "spec": { "selector": {}, "template": {} },
            "status": {
                "currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberMisscheduled": 0,
                "numberReady": ready, "observedGeneration": observed, "updatedNumberScheduled": updated,
            },
        }))
    }

    #[test]
    fn a_roll_out_has_ended_when_every_node_has_the_newest_agent_ready() {
        assert!(rolled_out(Some(&set(3, 3, 2, 2))));
        assert!(
            !rolled_out(Some(&set(4, 3, 2, 2))),
            "the controller has not seen it"
        );
        assert!(!rolled_out(Some(&set(3, 3, 1, 2))), "one is old");
        assert!(!rolled_out(Some(&set(3, 3, 2, 1))), "one is not ready");
        assert!(!rolled_out(None));
    }

    #[test]
    fn a_pod_that_is_going_is_not_ready() {
        let conditions = json!([{ "type": "Ready", "status": "True" }]);
        let ready = json!({ "metadata": {}, "status": { "conditions": conditions } });
        assert!(pod_ready(Some(&typed(ready.clone()))));
        let mut going = ready;
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!pod_ready(Some(&typed(going))));
    }

    #[test]
    fn an_address_in_a_url_has_brackets_if_it_has_colons() {
        assert_eq!(host("10.0.0.1"), "10.0.0.1");
        assert_eq!(host("fd44::1"), "[fd44::1]");
    }

    #[tokio::test]
    async fn what_does_not_come_about_ends_with_its_last_error() {
        let error = eventually("it", Duration::from_millis(10), || async {
            Err::<(), _>(anyhow::anyhow!("not yet"))
        })
        .await
        .expect_err("late");
        let text = format!("{error:#}");
        assert!(
            text.contains("for it") && text.contains("not yet"),
            "{text}"
        );
    }
}
