//! Workloads to pods.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use weir_manifests::{Manifests, Object, Workload, expand};

fn expanded(text: &str) -> (Manifests, Vec<Workload>) {
    let mut manifests = Manifests::default();
    manifests.add_file(Path::new("f.yaml"), text.as_bytes());
    assert!(manifests.errors.is_empty(), "{:?}", manifests.errors);
    assert!(manifests.warnings.is_empty(), "{:?}", manifests.warnings);
    let workloads = expand(&mut manifests);
    (manifests, workloads)
}

fn pods(manifests: &Manifests) -> Vec<&Pod> {
    let objects = manifests.objects.values();
    objects
        .filter_map(|l| match &l.object {
            Object::Pod(pod) => Some(pod),
            _ => None,
        })
        .collect()
}

fn names(manifests: &Manifests) -> Vec<String> {
    pods(manifests)
        .iter()
        .map(|p| p.metadata.name.clone().unwrap())
        .collect()
}

fn workload(kind: &str, name: &str, spec: &str) -> String {
    let version = match kind {
        "Job" => "batch/v1",
        "ReplicationController" => "v1",
        _ => "apps/v1",
    };
    format!(
        "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: ns}}\nspec:\n  selector: {{}}\n  {spec}\n  \
         template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{{name: c, ports: [{{name: http, containerPort: 80}}]}}]}}}}\n"
    )
}

#[test]
fn replicas_become_pods_with_the_templates_labels_and_containers() {
    for kind in ["Deployment", "ReplicaSet", "StatefulSet"] {
        let (manifests, workloads) = expanded(&workload(kind, "w", "replicas: 2"));
        assert_eq!(names(&manifests), ["w-0", "w-1"], "{kind}");
        assert_eq!(workloads[0].pods, ["w-0", "w-1"]);
        let pod = pods(&manifests)[0];
        assert_eq!(pod.metadata.namespace.as_deref(), Some("ns"));
        assert_eq!(pod.metadata.labels.as_ref().unwrap()["app"], "w");
        assert_eq!(pod.spec.as_ref().unwrap().containers.len(), 1);
    }
    let (none, workloads) = expanded(&workload("Deployment", "w", "replicas: 0"));
    assert!(names(&none).is_empty() && workloads[0].pods.is_empty());
    let (one, _) = expanded(&workload("Deployment", "w", ""));
    assert_eq!(names(&one), ["w-0"]);
}

#[test]
fn stateful_sets_and_jobs_add_the_labels_that_policies_may_select() {
    let (manifests, _) = expanded(&workload("StatefulSet", "w", "ordinals: {start: 5}"));
    assert_eq!(names(&manifests), ["w-5"]);
    let labels = pods(&manifests)[0].metadata.labels.clone().unwrap();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "w-5");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "5");
    let (manifests, _) = expanded(&workload("Job", "w", "parallelism: 3\n  completions: 2"));
    assert_eq!(names(&manifests), ["w-0", "w-1"]);
    assert_eq!(
        pods(&manifests)[0].metadata.labels.as_ref().unwrap()["job-name"],
        "w"
    );
}

#[test]
fn a_daemon_set_has_a_pod_on_each_node() {
    let nodes = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n2}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";
    let (manifests, workloads) = expanded(&(workload("DaemonSet", "d", "") + nodes));
    assert_eq!(names(&manifests), ["d-n1", "d-n2"]);
    assert_eq!(workloads[0].pods, ["d-n1", "d-n2"]);
    assert_eq!(
        pods(&manifests)[0]
            .spec
            .as_ref()
            .unwrap()
            .node_name
            .as_deref(),
        Some("n1")
    );
    let (manifests, _) = expanded(&workload("DaemonSet", "d", ""));
    assert_eq!(names(&manifests), ["d-0"]);
}

#[test]
fn cron_jobs_make_no_pods() {
    let (manifests, workloads) = expanded(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: c}\nspec: {jobTemplate: {spec: {template: {}}}}\n",
    );
    assert!(names(&manifests).is_empty() && workloads.is_empty());
}

#[test]
fn pods_that_are_there_already_are_the_workloads_pods() {
    let owned = |kind: &str, name: &str, owner_kind: &str, owner: &str| {
        let version = if kind == "Pod" { "v1" } else { "apps/v1" };
        format!(
            "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: ns, ownerReferences: [{{apiVersion: apps/v1, \
             kind: {owner_kind}, name: {owner}, uid: u, controller: true}}]}}\nspec: {{containers: [], selector: {{}}}}\n"
        )
    };
    let text = workload("Deployment", "w", "replicas: 2")
        + &owned("ReplicaSet", "w-5d4", "Deployment", "w")
        + &owned("Pod", "w-5d4-abc", "ReplicaSet", "w-5d4");
    let mut manifests = Manifests::default();
    manifests.add_file(Path::new("f.yaml"), text.as_bytes());
    let workloads = expand(&mut manifests);
    assert_eq!(names(&manifests), ["w-5d4-abc"]);
    for workload in &workloads {
        assert_eq!(workload.pods, ["w-5d4-abc"], "{}", workload.name);
    }
    // Without the pods the Deployment makes them, not its ReplicaSet as well.
    let text = workload("Deployment", "w", "replicas: 2")
        + &owned("ReplicaSet", "w-5d4", "Deployment", "w");
    let mut manifests = Manifests::default();
    manifests.add_file(Path::new("f.yaml"), text.as_bytes());
    expand(&mut manifests);
    assert_eq!(names(&manifests), ["w-0", "w-1"]);
}

#[test]
fn two_workloads_of_one_name_both_get_pods() {
    let (manifests, workloads) =
        expanded(&(workload("Deployment", "w", "") + &workload("StatefulSet", "w", "")));
    assert_eq!(names(&manifests), ["w-0", "w-statefulset-0"]);
    assert_eq!(workloads.len(), 2);
    assert_eq!(manifests.warnings.len(), 1);
}
