//! What the background comparison is given of the objects and endpoints.

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use weir_oracle::Cluster;

use super::Engine;
use crate::{
    state::{Kind, Object},
    verify::background::Snapshot,
};

impl Engine {
    /// Objects and endpoints of this moment.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut cluster = Cluster::default();
        let kinds = [
            Kind::Namespace,
            Kind::Node,
            Kind::NetworkPolicy,
            Kind::ClusterNetworkPolicy,
        ];
        for object in kinds.into_iter().flat_map(|kind| self.store.of(kind)) {
            match object {
                Object::Namespace(o) => cluster.namespaces.push((**o).clone()),
                Object::Node(o) => cluster.nodes.push((**o).clone()),
                Object::NetworkPolicy(o) => cluster.policies.push((**o).clone()),
                Object::ClusterNetworkPolicy(o) => cluster.cluster_policies.push((**o).clone()),
                Object::Pod(_) | Object::Service(_) | Object::EndpointSlice(_) => {}
            }
        }
        cluster.pods = self.store.pods().map(|pod| lean(&pod)).collect();
        let records = self.local.records.iter();
        let records = records.filter(|(key, _)| self.local.is_in_place(key));
        let endpoints = records.map(|(_, record)| {
            let mut pod = record.attachment.pod.clone();
            if let Some(pod) = &mut pod {
                pod.uid.clone_from(&record.pod_uid);
            }
            (record.slot, record.attachment.addresses.clone(), pod)
        });
        Snapshot {
            cluster,
            endpoints: endpoints.collect(),
            generation: self.verify.generation(),
            settled: self.in_force && !self.dirty.policy && self.retry.at.is_none(),
        }
    }
}

/// A Pod as far as policy looks at it: there are many, and this is done on the engine's thread.
fn lean(pod: &Pod) -> Pod {
    let ports = |container: &Container| Container {
        name: container.name.clone(),
        ports: container.ports.clone(),
        restart_policy: container.restart_policy.clone(),
        ..Container::default()
    };
    let spec = pod.spec.as_ref().map(|spec| PodSpec {
        node_name: spec.node_name.clone(),
        host_network: spec.host_network,
        containers: spec.containers.iter().map(ports).collect(),
        init_containers: spec
            .init_containers
            .as_ref()
            .map(|list| list.iter().map(ports).collect()),
        ..PodSpec::default()
    });
    let status = pod.status.as_ref().map(|status| PodStatus {
        phase: status.phase.clone(),
        pod_ip: status.pod_ip.clone(),
        pod_ips: status.pod_ips.clone(),
        ..PodStatus::default()
    });
    let metadata = &pod.metadata;
    Pod {
        metadata: ObjectMeta {
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            uid: metadata.uid.clone(),
            labels: metadata.labels.clone(),
            creation_timestamp: metadata.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec,
        status,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lean_pod_keeps_all_that_policy_looks_at_and_nothing_else() {
        let kept = json!({
            "metadata": {"name": "x", "namespace": "a", "uid": "1", "labels": {"app": "x"},
                         "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n1", "hostNetwork": false,
                     "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}],
                     "initContainers": [{"name": "s", "restartPolicy": "Always",
                                         "ports": [{"name": "side", "containerPort": 81}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
        });
        let mut whole = kept.clone();
        whole["metadata"]["annotations"] = json!({"a": "b"});
        whole["spec"]["containers"][0]["image"] = json!("i");
        whole["spec"]["volumes"] = json!([{"name": "v"}]);
        whole["status"]["message"] = json!("m");
        let [kept, whole]: [Pod; 2] = [kept, whole].map(|v| serde_json::from_value(v).unwrap());
        assert_eq!(lean(&whole), kept);
    }
}
