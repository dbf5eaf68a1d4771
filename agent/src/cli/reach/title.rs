//! What a set of like pods is called.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

/// Labels that controllers give to each pod or each version of a template: they tell apart what
/// people see as one.
const OF_ONE_POD: [&str; 7] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "controller-revision-hash",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// The labels by which people group pods.
pub(super) fn labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| !OF_ONE_POD.contains(&key.as_str()));
    labels
}

/// The name of what made the pod, by its owner references.
pub(super) fn owner(pod: &Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.iter().flatten();
    let owner = owners.into_iter().find(|o| o.controller == Some(true))?;
    let hash = pod.metadata.labels.iter().flatten();
    let hash = hash
        .into_iter()
        .find(|(key, _)| *key == "pod-template-hash");
    // A Deployment's ReplicaSet is named by the Deployment and a hash.
    let stem = hash.and_then(|(_, hash)| owner.name.strip_suffix(hash)?.strip_suffix('-'));
    match (owner.kind.as_str(), stem) {
        ("ReplicaSet", Some(stem)) => Some(stem.to_owned()),
        _ => Some(owner.name.clone()),
    }
}

/// What the names of pods have in common.
pub(super) fn common(names: &[&str]) -> String {
    let Some((first, rest)) = names.split_first() else {
        return String::new();
    };
    let mut common = (*first).to_owned();
    for name in rest {
        let same = common.chars().zip(name.chars()).take_while(|(a, b)| a == b);
        let end = same.map(|(a, _)| a.len_utf8()).sum();
        common.truncate(end);
    }
    let stem = if rest.is_empty() {
        common.as_str()
    } else {
        common.trim_end_matches(['-', '.'])
    };
    if stem.is_empty() {
        (*first).to_owned()
    } else {
        stem.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_of_a_deployment_are_called_by_it() {
        let pod = |kind: &str, owner: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {
                "name": "web-5d4-x", "labels": {"app": "web", "pod-template-hash": "5d4"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": "u", "controller": true}],
            }}))
            .unwrap()
        };
        assert_eq!(owner(&pod("ReplicaSet", "web-5d4")).unwrap(), "web");
        assert_eq!(owner(&pod("StatefulSet", "db")).unwrap(), "db");
        assert_eq!(labels(&pod("ReplicaSet", "web-5d4")).len(), 1);
        assert_eq!(owner(&Pod::default()), None);
    }

    #[test]
    fn pods_without_an_owner_are_called_by_what_their_names_share() {
        assert_eq!(common(&["web-a", "web-b"]), "web");
        assert_eq!(common(&["web-0"]), "web-0");
        assert_eq!(common(&["a", "b"]), "a");
        assert_eq!(common(&["é1", "é2"]), "é");
    }
}
