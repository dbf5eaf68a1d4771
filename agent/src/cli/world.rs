//! The objects that questions are asked about: of manifests, or those the agent holds.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context as _, bail};
use weir_api::client::Client;
use weir_manifests::{Located, Manifests, Object, Workload, WorkloadKind};
use weir_oracle::Cluster;

use super::args::ManifestArgs;
use super::maker;
use super::output::{Done, ERROR};

/// Objects, workloads expanded to pods.
#[derive(Debug, Default)]
pub(super) struct World {
    pub cluster: Cluster,
    /// Every Pod's namespace and name.
    pods: HashSet<(String, String)>,
    /// By namespace and name: the workloads of that name.
    pub workloads: BTreeMap<(String, String), Vec<Workload>>,
    /// Documents that do not parse: exit status 2.
    pub errors: Vec<String>,
    /// What is easily a mistake.
    pub warnings: Vec<String>,
    /// Kinds and fields that were passed over.
    pub passed_over: Vec<String>,
}

impl World {
    /// Of `--manifests`, else of the agent that `socket` belongs to.
    pub fn load(args: &ManifestArgs, socket: &Path) -> anyhow::Result<Self> {
        Ok(Self::of_manifests(Self::manifests(args, socket)?))
    }

    /// What `GET /v1/objects` answers.
    pub fn of_agent(socket: &Path) -> anyhow::Result<Self> {
        Ok(Self::of_manifests(agent_manifests(socket)?))
    }

    /// The objects as they are, workloads not yet expanded.
    pub fn manifests(args: &ManifestArgs, socket: &Path) -> anyhow::Result<Manifests> {
        let Some(path) = &args.manifests else {
            return agent_manifests(socket);
        };
        let manifests = weir_manifests::load(path)?;
        if manifests.objects.is_empty() && manifests.errors.is_empty() {
            bail!(
                "{} holds no Kubernetes objects that Weir reads (.yaml, .yml, .json)",
                path.display()
            );
        }
        Ok(manifests)
    }

    pub fn of_manifests(mut manifests: Manifests) -> Self {
        let expanded = weir_manifests::expand(&mut manifests);
        let mut workloads: BTreeMap<_, Vec<Workload>> = BTreeMap::new();
        for workload in expanded {
            let key = (workload.namespace.clone(), workload.name.clone());
            workloads.entry(key).or_default().push(workload);
        }
        let text =
            |notes: Vec<weir_manifests::Note>| notes.iter().map(ToString::to_string).collect();
        let cluster = cluster(manifests.objects.into_values());
        let pods = cluster.pods.iter().map(|pod| {
            let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
            (
                namespace.clone().unwrap_or_default(),
                name.clone().unwrap_or_default(),
            )
        });
        Self {
            pods: pods.collect(),
            cluster,
            workloads,
            errors: text(manifests.errors),
            warnings: text(manifests.warnings),
            passed_over: text(manifests.passed_over),
        }
    }

    /// The pod of a name: a Pod, else the first pod of the workload of that name.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<(String, String), String> {
        let key = (namespace.to_owned(), name.to_owned());
        if self.pods.contains(&key) {
            return Ok(key);
        }
        let named = self
            .workloads
            .get(&key)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let with_pods: Vec<&Workload> = named.iter().filter(|w| !w.pods.is_empty()).collect();
        match (with_pods.as_slice(), named) {
            ([one], _) => Ok((namespace.to_owned(), one.pods[0].clone())),
            ([], []) => {
                // The agent holds pods, not what made them.
                let first = (namespace.to_owned(), format!("{name}-0"));
                if self.pods.contains(&first) {
                    return Ok(first);
                }
                self.first_made_by(namespace, name)
                    .ok_or_else(|| self.unknown_pod(namespace, name))
            }
            ([], [workload, ..]) => {
                Err(format!("{} {namespace}/{name} has no pods", workload.kind))
            }
            (several, _) => {
                let kinds: Vec<WorkloadKind> = several.iter().map(|w| w.kind).collect();
                Err(format!(
                    "{namespace}/{name} is more than one workload ({kinds:?}): name the pod"
                ))
            }
        }
    }

    /// The first by name of the Pods that a workload of a live cluster has made.
    fn first_made_by(&self, namespace: &str, name: &str) -> Option<(String, String)> {
        let all = self.cluster.pods.iter().map(|pod| &pod.metadata);
        let made = all.filter(|pod| {
            pod.namespace.as_deref() == Some(namespace) && maker::workload(pod) == Some(name)
        });
        let pod = made.filter_map(|pod| pod.name.clone()).min()?;
        Some((namespace.to_owned(), pod))
    }

    /// Names the nearest pod or workload, if one is near.
    fn unknown_pod(&self, namespace: &str, name: &str) -> String {
        let wanted = format!("{namespace}/{name}");
        let pods = self.cluster.pods.iter().map(|pod| {
            let metadata = &pod.metadata;
            let namespace = metadata.namespace.as_deref().unwrap_or("default");
            format!(
                "{namespace}/{}",
                metadata.name.as_deref().unwrap_or_default()
            )
        });
        let workloads = self
            .workloads
            .keys()
            .map(|(ns, name)| format!("{ns}/{name}"));
        let nearest = pods
            .chain(workloads)
            .map(|other| (strsim::damerau_levenshtein(&wanted, &other), other))
            .min();
        match nearest {
            Some((distance, other)) if distance <= 3 => {
                format!("no pod or workload {wanted} in the objects; did you mean {other}?")
            }
            _ => format!("no pod or workload {wanted} in the objects"),
        }
    }

    /// What there is to say about the objects themselves: on standard error, and as exit status.
    pub fn complain(&self, args: &ManifestArgs, with_warnings: bool, done: &mut Done) {
        for error in &self.errors {
            done.complain(error);
            done.at_least(ERROR);
        }
        if with_warnings {
            for warning in &self.warnings {
                done.complain(&format!("warning: {warning}"));
            }
        }
        if args.show_ignored || args.strict {
            for note in &self.passed_over {
                done.complain(&format!("ignored: {note}"));
            }
        }
        if args.strict && !self.passed_over.is_empty() {
            done.at_least(ERROR);
        }
    }
}

fn agent_manifests(socket: &Path) -> anyhow::Result<Manifests> {
    let list: serde_json::Value = Client::new(socket)
        .get("/v1/objects")
        .context("cannot get the objects from the agent (--manifests DIR reads them from files)")?;
    let mut manifests = Manifests::default();
    manifests.add_file(Path::new("agent"), &serde_json::to_vec(&list)?);
    manifests.imply_namespaces();
    // What the agent passed over is not the business of who asks.
    manifests.passed_over.clear();
    Ok(manifests)
}

fn cluster(objects: impl Iterator<Item = Located>) -> Cluster {
    let mut cluster = Cluster::default();
    for located in objects {
        match located.object {
            Object::Namespace(o) => cluster.namespaces.push(o),
            Object::Node(o) => cluster.nodes.push(o),
            Object::Pod(o) => cluster.pods.push(o),
            Object::Service(o) => cluster.services.push(o),
            Object::EndpointSlice(o) => cluster.endpoint_slices.push(o),
            Object::NetworkPolicy(o) => cluster.policies.push(o),
            Object::ClusterNetworkPolicy(o) => cluster.cluster_policies.push(o),
            Object::Deployment(_)
            | Object::StatefulSet(_)
            | Object::DaemonSet(_)
            | Object::ReplicaSet(_)
            | Object::ReplicationController(_)
            | Object::Job(_) => {}
        }
    }
    cluster
}
