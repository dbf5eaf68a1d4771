//! Which workload a Pod of a live cluster belongs to: the agent holds Pods, not what made them, but
//! controllers say so in labels and names.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The name of the Deployment, StatefulSet, DaemonSet or Job that made a Pod.
pub(super) fn workload(pod: &ObjectMeta) -> Option<&str> {
    let labels = pod.labels.as_ref()?;
    let name = pod.name.as_deref()?;
    if let Some(job) = labels.get("batch.kubernetes.io/job-name") {
        return Some(job);
    }
    // DEPLOYMENT-HASH-SUFFIX, DAEMONSET-SUFFIX, STATEFULSET-NUMBER.
    let (made_by, _) = name.rsplit_once('-')?;
    match labels.get("pod-template-hash") {
        Some(hash) => made_by.strip_suffix(hash.as_str())?.strip_suffix('-'),
        None => labels
            .contains_key("controller-revision-hash")
            .then_some(made_by),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, label: Option<(&str, &str)>) -> Option<String> {
        let pod = ObjectMeta {
            name: Some(name.into()),
            labels: label.map(|(key, value)| [(key.into(), value.into())].into()),
            ..ObjectMeta::default()
        };
        workload(&pod).map(str::to_owned)
    }

    #[test]
    fn pods_of_every_controller_are_told_by_their_labels_and_names() {
        let hash = Some(("pod-template-hash", "d66c4cc79"));
        let revision = Some(("controller-revision-hash", "6d4f"));
        let job = Some(("batch.kubernetes.io/job-name", "import"));
        assert_eq!(
            of("web-v2-d66c4cc79-6mt4m", hash).as_deref(),
            Some("web-v2")
        );
        assert_eq!(of("postgres-0", revision).as_deref(), Some("postgres"));
        assert_eq!(
            of("node-metrics-x7k2p", revision).as_deref(),
            Some("node-metrics")
        );
        assert_eq!(of("import-9fjq2", job).as_deref(), Some("import"));
    }

    #[test]
    fn a_pod_of_its_own_has_none_whatever_its_name() {
        assert_eq!(of("web-d66c4cc79-6mt4m", None), None);
        assert_eq!(of("web-0", Some(("app", "web"))), None);
        assert_eq!(
            of("other-6mt4m", Some(("pod-template-hash", "d66c4cc79"))),
            None
        );
    }
}
