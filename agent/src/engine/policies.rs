//! `GET /v1/policies`.

use weir_api::{
    endpoint::{Direction, Endpoint},
    policy::PolicyInfo,
};

use super::Engine;
use crate::{
    compile,
    state::{Kind, Object, ObjectKey},
};

impl Engine {
    /// Every policy, sorted by kind and name, with the endpoints it judges.
    pub(super) fn policies(&self) -> Vec<PolicyInfo> {
        let endpoints = self.endpoint_list();
        let policies = self.store.of(Kind::NetworkPolicy);
        let policies = policies.map(|object| isolating(&object.key(), &endpoints));
        let cluster = self.store.of(Kind::ClusterNetworkPolicy);
        let cluster = cluster.filter_map(|object| match object {
            Object::ClusterNetworkPolicy(policy) => {
                let pods = endpoints.iter().filter_map(|e| e.attachment.pod.as_ref());
                let pods: Vec<_> = pods
                    .filter_map(|pod| {
                        let object = self.store.pod(&pod.namespace, &pod.name)?;
                        Some((object, self.store.namespace(&pod.namespace)))
                    })
                    .collect();
                let pods = pods.iter().map(|(pod, namespace)| (pod, *namespace));
                Some(compile::policy::info(policy, pods))
            }
            _ => None,
        });
        policies.chain(cluster).collect()
    }
}

/// A NetworkPolicy, with the endpoints it isolates.
fn isolating(key: &ObjectKey, endpoints: &[Endpoint]) -> PolicyInfo {
    let full = format!("{}/{}", key.namespace, key.name);
    let isolated = |direction: fn(&Endpoint) -> &Direction| -> Vec<String> {
        let isolated = endpoints
            .iter()
            .filter(|e| direction(e).isolated_by.contains(&full));
        isolated
            .filter_map(|e| e.attachment.pod.as_ref())
            .map(|pod| format!("{}/{}", pod.namespace, pod.name))
            .collect()
    };
    PolicyInfo {
        kind: key.kind.as_str().to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        ingress: isolated(|e| &e.ingress),
        egress: isolated(|e| &e.egress),
        ..PolicyInfo::default()
    }
}
