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
    node.metadata.annotations = None;
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
    if let Some(list) = &mut meta.annotations {
        list.retain(|name, _| name == CONFIG_HASH);
    }
    meta.annotations = meta.annotations.take().filter(|list| !list.is_empty());
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
        host_ip: status.host_ip.take(),
        host_ips: status.host_ips.take(),
        ..PodStatus::default()
    });
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
