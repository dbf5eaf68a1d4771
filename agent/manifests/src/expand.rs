//! Workloads to pods, as their controllers would make them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::load::Manifests;
use crate::object::Object;
use crate::parse::{Located, Note};

/// Kinds that make pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    /// apps/v1.
    Deployment,
    /// apps/v1.
    StatefulSet,
    /// apps/v1.
    DaemonSet,
    /// apps/v1.
    ReplicaSet,
    /// v1.
    ReplicationController,
    /// batch/v1.
    Job,
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A workload, and its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Names of its pods, the first first.
    pub pods: Vec<String>,
}

/// A workload as it is read.
struct Plan {
    kind: WorkloadKind,
    metadata: ObjectMeta,
    template: PodTemplateSpec,
    /// How many; a DaemonSet has one on each node.
    count: i32,
    /// The first pod's number (`spec.ordinals.start` of a StatefulSet).
    start: i32,
    located: (std::path::PathBuf, usize),
}

/// Adds the pods of Deployments, StatefulSets, DaemonSets, ReplicaSets, ReplicationControllers and
/// Jobs: `NAME-0…`, of a DaemonSet `NAME-NODE` (`NAME-0` where no node is known). Pods that are there already, and
/// belong to a workload by their owner references, are its pods, and none are added. Returns every
/// workload, sorted by namespace, name and kind.
pub fn expand(manifests: &mut Manifests) -> Vec<Workload> {
    let nodes = nodes(manifests);
    let owners = owners(manifests);
    let mut workloads = Vec::new();
    for plan in plans(manifests) {
        let namespace = plan.metadata.namespace.clone().unwrap_or_default();
        let name = plan.metadata.name.clone().unwrap_or_default();
        let id = (namespace.clone(), plan.kind.to_string(), name.clone());
        let pods = match owners.pods_of(&id) {
            Some(pods) => pods,
            None if owners.is_owned(&plan.metadata, &namespace, manifests) => Vec::new(),
            None => add_pods(manifests, &plan, &nodes),
        };
        workloads.push(Workload {
            kind: plan.kind,
            namespace,
            name,
            pods,
        });
    }
    workloads.sort_by(|a, b| (&a.namespace, &a.name, a.kind).cmp(&(&b.namespace, &b.name, b.kind)));
    workloads
}

/// Every node that is given, or that a pod runs on.
fn nodes(manifests: &Manifests) -> BTreeSet<String> {
    let names = manifests.objects.values().filter_map(|l| match &l.object {
        Object::Node(node) => node.metadata.name.clone(),
        Object::Pod(pod) => pod.spec.as_ref()?.node_name.clone(),
        _ => None,
    });
    names.filter(|name| !name.is_empty()).collect()
}

fn plans(manifests: &Manifests) -> Vec<Plan> {
    let mut plans = Vec::new();
    for located in manifests.objects.values() {
        let (kind, template, count, start) = match &located.object {
            Object::Deployment(d) => {
                let Some(spec) = &d.spec else { continue };
                (
                    WorkloadKind::Deployment,
                    spec.template.clone(),
                    spec.replicas,
                    0,
                )
            }
            Object::StatefulSet(s) => {
                let Some(spec) = &s.spec else { continue };
                let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
                (
                    WorkloadKind::StatefulSet,
                    spec.template.clone(),
                    spec.replicas,
                    start,
                )
            }
            Object::DaemonSet(d) => {
                let Some(spec) = &d.spec else { continue };
                (WorkloadKind::DaemonSet, spec.template.clone(), None, 0)
            }
            Object::ReplicaSet(r) => {
                let Some(spec) = &r.spec else { continue };
                let template = spec.template.clone().unwrap_or_default();
                (WorkloadKind::ReplicaSet, template, spec.replicas, 0)
            }
            Object::ReplicationController(r) => {
                let Some(spec) = &r.spec else { continue };
                let template = spec.template.clone().unwrap_or_default();
                (
                    WorkloadKind::ReplicationController,
                    template,
                    spec.replicas,
                    0,
                )
            }
            Object::Job(j) => {
                let Some(spec) = &j.spec else { continue };
                let parallel = spec.parallelism.unwrap_or(1);
                let count = parallel.min(spec.completions.unwrap_or(parallel));
                (WorkloadKind::Job, spec.template.clone(), Some(count), 0)
            }
            _ => continue,
        };
        plans.push(Plan {
            kind,
            metadata: located.object.metadata().clone(),
            template,
            count: count.unwrap_or(1),
            start,
            located: (located.file.clone(), located.line),
        });
    }
    plans
}

/// (namespace, kind, name) of an owner.
type OwnerId = (String, String, String);

/// Who owns which pod, through however many controllers.
struct Owners {
    pods: BTreeMap<OwnerId, Vec<String>>,
}

fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let mut references = metadata.owner_references.iter().flatten();
    references.find(|reference| reference.controller == Some(true))
}

fn owners(manifests: &Manifests) -> Owners {
    let mut parents: BTreeMap<OwnerId, OwnerId> = BTreeMap::new();
    for (key, located) in &manifests.objects {
        if let Some(owner) = controller(located.object.metadata()) {
            let id = (key.namespace.clone(), key.kind.to_owned(), key.name.clone());
            let owner_id = (
                key.namespace.clone(),
                owner.kind.clone(),
                owner.name.clone(),
            );
            parents.insert(id, owner_id);
        }
    }
    let mut pods: BTreeMap<OwnerId, Vec<String>> = BTreeMap::new();
    for (key, located) in &manifests.objects {
        if !matches!(located.object, Object::Pod(_)) {
            continue;
        }
        let mut id = (key.namespace.clone(), key.kind.to_owned(), key.name.clone());
        // Owner references may be given in a circle.
        let mut steps = 0;
        while let Some(parent) = parents.get(&id)
            && steps < 8
        {
            pods.entry(parent.clone())
                .or_default()
                .push(key.name.clone());
            id = parent.clone();
            steps += 1;
        }
    }
    Owners { pods }
}

impl Owners {
    fn pods_of(&self, id: &OwnerId) -> Option<Vec<String>> {
        self.pods.get(id).cloned()
    }

    /// Whether another workload that is here makes this one's pods.
    fn is_owned(&self, metadata: &ObjectMeta, namespace: &str, manifests: &Manifests) -> bool {
        controller(metadata).is_some_and(|owner| {
            manifests.objects.keys().any(|key| {
                key.kind == owner.kind && key.namespace == namespace && key.name == owner.name
            })
        })
    }
}

fn add_pods(manifests: &mut Manifests, plan: &Plan, nodes: &BTreeSet<String>) -> Vec<String> {
    let name = plan.metadata.name.clone().unwrap_or_default();
    let mut pods: Vec<(String, Option<String>)> = Vec::new();
    if plan.kind == WorkloadKind::DaemonSet && !nodes.is_empty() {
        pods.extend(nodes.iter().map(|n| (n.clone(), Some(n.clone()))));
    } else {
        let last = plan.start.saturating_add(plan.count);
        pods.extend((plan.start..last).map(|i| (i.to_string(), None)));
    }
    let mut names = Vec::new();
    for (suffix, node) in pods {
        let pod = make_pod(plan, format!("{name}-{suffix}"), &suffix, node);
        names.extend(insert(manifests, plan, Object::Pod(pod), &suffix));
    }
    names
}

/// Adds a pod; if its name is taken, under a name with the workload's kind in it.
fn insert(manifests: &mut Manifests, plan: &Plan, mut pod: Object, suffix: &str) -> Option<String> {
    let (file, line) = plan.located.clone();
    if manifests.objects.contains_key(&pod.key()) {
        let name = plan.metadata.name.clone().unwrap_or_default();
        let kind = plan.kind.to_string();
        let other = format!("{name}-{}-{suffix}", kind.to_lowercase());
        let text = format!(
            "{} is there already: the pod of {kind} {name} is taken as {other}",
            pod.key()
        );
        pod.metadata_mut().name = Some(other);
        manifests.warnings.push(Note {
            file: file.clone(),
            line,
            text,
        });
        if manifests.objects.contains_key(&pod.key()) {
            return None;
        }
    }
    let key = pod.key();
    let name = key.name.clone();
    let located = Located {
        object: pod,
        file,
        line,
    };
    manifests.objects.insert(key, located);
    Some(name)
}

fn make_pod(plan: &Plan, name: String, suffix: &str, node: Option<String>) -> Pod {
    let template = plan.template.metadata.clone().unwrap_or_default();
    let mut labels = template.labels.unwrap_or_default();
    let owner = plan.metadata.name.clone().unwrap_or_default();
    // Labels that controllers add and policies may select by.
    let added: &[(&str, &str)] = match plan.kind {
        WorkloadKind::StatefulSet => &[
            ("statefulset.kubernetes.io/pod-name", &name),
            ("apps.kubernetes.io/pod-index", suffix),
        ],
        WorkloadKind::Job => &[
            ("batch.kubernetes.io/job-name", &owner),
            ("job-name", &owner),
        ],
        _ => &[],
    };
    for (key, value) in added {
        labels
            .entry((*key).to_owned())
            .or_insert_with(|| (*value).to_owned());
    }
    let mut spec: PodSpec = plan.template.spec.clone().unwrap_or_default();
    if let Some(node) = node {
        spec.node_name = Some(node);
    }
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: plan.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: template.annotations,
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}
