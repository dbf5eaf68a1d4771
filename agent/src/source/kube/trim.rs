//! What the agent has no use for is dropped as objects arrive: there are many Pods, and of most
//! updates (heartbeats of Nodes, conditions of Pods) nothing is left.

use std::mem::take;

use k8s_openapi::{
    api::{
        core::v1::{
            Container, Namespace, Node, NodeSpec, NodeStatus, Pod, PodSpec, PodStatus, Service,
        },
        discovery::v1::EndpointSlice,
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use weir_crd::ClusterNetworkPolicy;

use crate::compile::wireguard::KEY_ANNOTATION;

/// What `kubectl apply` notes for itself, as long as the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Which version of a static pod's manifest a mirror Pod stands for.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// For every kind.
pub(super) fn metadata(meta: &mut ObjectMeta) {
    let mut annotations = meta.annotations.take();
    if let Some(list) = &mut annotations {
        list.remove(LAST_APPLIED);
    }
    *meta = ObjectMeta {
        name: meta.name.take(),
        namespace: meta.namespace.take(),
        uid: meta.uid.take(),
        labels: meta.labels.take(),
        annotations: annotations.filter(|list| !list.is_empty()),
        generation: meta.generation,
        creation_timestamp: meta.creation_timestamp.take(),
        deletion_timestamp: meta.deletion_timestamp.take(),
        ..ObjectMeta::default()
    };
}

pub(super) fn namespace(namespace: &mut Namespace) {
    namespace.metadata.annotations = None;
    namespace.spec = None;
    namespace.status = None;
}

pub(super) fn node(node: &mut Node) {
    keep(&mut node.metadata, KEY_ANNOTATION);
    node.spec = node.spec.take().map(|spec| NodeSpec {
        pod_cidr: spec.pod_cidr,
        pod_cidrs: spec.pod_cidrs,
        taints: spec.taints,
        ..NodeSpec::default()
    });
    node.status = node.status.take().map(|status| NodeStatus {
        addresses: status.addresses,
        // The others carry a heartbeat.
        conditions: status.conditions.map(|mut list| {
            list.retain(|condition| condition.type_ == "NetworkUnavailable");
            list
        }),
        ..NodeStatus::default()
    });
}

pub(super) fn pod(pod: &mut Pod) {
    let meta = &mut pod.metadata;
    meta.generation = None;
    keep(meta, CONFIG_HASH);
    pod.spec = pod.spec.take().map(|mut spec| PodSpec {
        node_name: spec.node_name.take(),
        host_network: spec.host_network,
        containers: take(&mut spec.containers).into_iter().map(ports).collect(),
        init_containers: spec
            .init_containers
            .take()
            .map(|list| list.into_iter().map(ports).collect()),
        ..PodSpec::default()
    });
    pod.status = pod.status.take().map(|mut status| PodStatus {
        phase: status.phase.take(),
        pod_ip: status.pod_ip.take(),
        pod_ips: status.pod_ips.take(),
        ..PodStatus::default()
    });
}

/// Keeps one annotation.
fn keep(meta: &mut ObjectMeta, annotation: &str) {
    if let Some(list) = &mut meta.annotations {
        list.retain(|name, _| name == annotation);
    }
    meta.annotations = meta.annotations.take().filter(|list| !list.is_empty());
}

/// Places are kept, as errors name them.
fn ports(container: Container) -> Container {
    Container {
        name: container.name,
        ports: container.ports,
        restart_policy: container.restart_policy,
        ..Container::default()
    }
}

pub(super) fn service(service: &mut Service) {
    service.metadata.generation = None;
}

pub(super) fn slice(slice: &mut EndpointSlice) {
    // When its last change was triggered, and the like.
    slice.metadata.annotations = None;
    slice.metadata.generation = None;
}

pub(super) fn policy(policy: &mut NetworkPolicy) {
    policy.metadata.annotations = None;
}

pub(super) fn cluster_policy(policy: &mut ClusterNetworkPolicy) {
    policy.metadata.annotations = None;
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{source::kube::item::Watched, state::Object};

    fn trimmed<K: Watched>(object: &Value) -> Value {
        let object: K = serde_json::from_value(object.clone()).unwrap();
        let object: Object = object.trimmed();
        object.to_json()
    }

    #[test]
    fn of_a_pod_is_kept_what_policy_services_and_adoption_look_at() {
        let kept = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "x", "namespace": "a", "uid": "1", "labels": {"app": "x"},
                "annotations": {"kubernetes.io/config.hash": "h"},
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "deletionTimestamp": "2026-01-02T00:00:00Z",
            },
            "spec": {
                "nodeName": "n1", "hostNetwork": false,
                "containers": [
                    {"name": "plain"},
                    {"name": "c", "ports": [{"name": "http", "containerPort": 80, "hostPort": 8080,
                                             "hostIP": "10.0.0.9", "protocol": "TCP"}]},
                ],
                "initContainers": [{"name": "s", "restartPolicy": "Always",
                                    "ports": [{"name": "side", "containerPort": 81}]}],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
        });
        let mut whole = kept.clone();
        whole["metadata"]["annotations"]["note"] = json!("b");
        whole["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "A", "name": "b", "uid": "c"}]);
        whole["metadata"]["resourceVersion"] = json!("7");
        whole["spec"]["containers"][1]["image"] = json!("i");
        whole["spec"]["containers"][1]["env"] = json!([{"name": "A", "value": "b"}]);
        whole["spec"]["volumes"] = json!([{"name": "v"}]);
        whole["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        whole["status"]["hostIP"] = json!("10.1.0.1");
        assert_eq!(trimmed::<super::Pod>(&whole), kept);
    }

    #[test]
    fn a_heartbeat_of_a_node_is_no_change() {
        let node = |time: &str| {
            json!({
                "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"},
                             "resourceVersion": time},
                "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"],
                         "taints": [{"key": "k", "effect": "NoSchedule"}]},
                "status": {
                    "addresses": [{"type": "InternalIP", "address": "10.1.0.1"}],
                    "images": [{"names": ["i"]}],
                    "conditions": [
                        {"type": "Ready", "status": "True", "lastHeartbeatTime": time},
                        {"type": "NetworkUnavailable", "status": "False"},
                    ],
                },
            })
        };
        let first = trimmed::<super::Node>(&node("2026-01-01T00:00:00Z"));
        assert_eq!(first, trimmed::<super::Node>(&node("2026-01-01T00:05:00Z")));
        assert_eq!(first["spec"]["podCIDRs"][0], "10.244.0.0/24");
        assert_eq!(first["spec"]["taints"][0]["key"], "k");
        assert_eq!(first["status"]["addresses"][0]["address"], "10.1.0.1");
        assert_eq!(
            first["status"]["conditions"][0]["type"],
            "NetworkUnavailable"
        );
        assert_eq!(
            first["metadata"]["labels"]["topology.kubernetes.io/zone"],
            "a"
        );
    }
}
