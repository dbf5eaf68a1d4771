//! When an ADD may be answered: decided from plain data.

use std::time::Instant;

use tokio::sync::oneshot;
use weir_api::{
    endpoint::{AdoptRequest, Endpoint, PodRef},
    error::{ApiError, Reason},
};

use crate::{source::Question, state::Store};

/// The annotation that says which version of a static pod's manifest a mirror Pod stands for: its
/// CNI arguments carry this hash where another pod's carry the API's UID.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// An ADD that waits.
pub struct Pending {
    /// What is asked.
    pub request: AdoptRequest,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Endpoint, ApiError>>,
    /// When to give up.
    pub deadline: Instant,
    /// Whether the API was asked for its Pod.
    pub asked: bool,
    /// The last failure to program it.
    pub failure: Option<String>,
}

impl Pending {
    /// What is asked, once, when the time is over and the Pod is not known as the ADD has it: the
    /// source's watch may be late. Before a complete picture nothing would be gained by it.
    pub fn question(&self, store: &Store, synced: bool, now: Instant) -> Option<Question> {
        if self.deadline > now || self.asked || !synced {
            return None;
        }
        let pod = self.request.pod.as_ref()?;
        let question = Question {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
        };
        let ready = readiness(store, synced, &self.request) == Readiness::Ready;
        (!ready).then_some(question)
    }
}

/// Whether the Pod that an ADD is for is known.
#[derive(Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It is; or there is no Pod behind it.
    Ready,
    /// Not yet, and why.
    Wait(ApiError),
}

/// Judges a request by what the agent knows now.
pub fn readiness(store: &Store, synced: bool, request: &AdoptRequest) -> Readiness {
    let wait = |reason, message| Readiness::Wait(ApiError { reason, message });
    if !synced {
        let message = "the source has not delivered a complete picture yet".into();
        return wait(Reason::TryAgain, message);
    }
    let Some(PodRef {
        namespace,
        name,
        uid,
    }) = &request.pod
    else {
        return Readiness::Ready;
    };
    let Some(pod) = store.pod(namespace, name) else {
        let message = format!("Pod {namespace}/{name} is not known to the source yet");
        return wait(Reason::TryAgain, message);
    };
    let known = pod.metadata.uid.as_deref();
    let hash = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(CONFIG_HASH));
    match (uid.as_deref(), known) {
        // Nothing to compare: manifests of a directory may have no UID.
        (None, _) | (_, None) => Readiness::Ready,
        (Some(uid), Some(known)) if uid == known => Readiness::Ready,
        (Some(uid), _) if hash.is_some_and(|h| h == uid) => Readiness::Ready,
        (Some(uid), Some(known)) => wait(
            Reason::StaleUid,
            format!(
                "Pod {namespace}/{name} has UID {known}, but this ADD is for UID {uid}: either it is for a pod that was replaced, or its successor's event is still to come"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compile::endpoint::tests::request,
        state::{Change, Object},
    };

    fn store(pod: serde_json::Value) -> Store {
        let mut store = Store::default();
        store.apply(Change::Apply(Object::Pod(
            serde_json::from_value(pod).unwrap(),
        )));
        store
    }

    fn asked(uid: Option<&str>) -> AdoptRequest {
        let mut request = request("c", 7, &["10.0.0.5"]);
        request.pod = Some(PodRef {
            namespace: "shop".into(),
            name: "web".into(),
            uid: uid.map(Into::into),
        });
        request
    }

    fn reason(readiness: Readiness) -> (Reason, String) {
        match readiness {
            Readiness::Wait(e) => (e.reason, e.message),
            Readiness::Ready => panic!("ready"),
        }
    }

    fn web(uid: &str) -> serde_json::Value {
        serde_json::json!({"metadata": {"namespace": "shop", "name": "web", "uid": uid}})
    }

    #[test]
    fn the_api_is_asked_once_when_the_time_is_over_and_the_pod_is_unknown_or_another() {
        let now = Instant::now();
        let mut pending = Pending {
            request: asked(Some("u1")),
            reply: oneshot::channel().0,
            deadline: now,
            asked: false,
            failure: None,
        };
        let question = Question {
            namespace: "shop".into(),
            name: "web".into(),
        };
        let none = Store::default();
        assert_eq!(pending.question(&none, true, now), Some(question.clone()));
        let other = store(web("u2"));
        assert_eq!(pending.question(&other, true, now), Some(question));
        assert_eq!(pending.question(&store(web("u1")), true, now), None);
        assert_eq!(pending.question(&none, false, now), None);
        pending.deadline = now + std::time::Duration::from_secs(1);
        assert_eq!(pending.question(&none, true, now), None);
        pending.deadline = now;
        pending.asked = true;
        assert_eq!(pending.question(&none, true, now), None);
        (pending.asked, pending.request.pod) = (false, None);
        assert_eq!(pending.question(&none, true, now), None);
    }

    #[test]
    fn nothing_is_adopted_before_the_source_has_synced() {
        let (reason, _) = reason(readiness(&store(web("u1")), false, &asked(Some("u1"))));
        assert_eq!(reason, Reason::TryAgain);
        assert_ne!(
            readiness(&Store::default(), false, &request("c", 7, &[])),
            Readiness::Ready
        );
    }

    #[test]
    fn an_unknown_pod_waits_and_is_named() {
        let (reason, message) = reason(readiness(&Store::default(), true, &asked(Some("u1"))));
        assert_eq!(reason, Reason::TryAgain);
        assert!(message.contains("shop/web"), "{message}");
    }

    #[test]
    fn a_known_pod_with_its_uid_is_ready() {
        assert_eq!(
            readiness(&store(web("u1")), true, &asked(Some("u1"))),
            Readiness::Ready
        );
        assert_eq!(
            readiness(&store(web("u1")), true, &asked(None)),
            Readiness::Ready
        );
    }

    #[test]
    fn another_uid_is_stale_and_both_are_named() {
        let (reason, message) = reason(readiness(&store(web("u2")), true, &asked(Some("u1"))));
        assert_eq!(reason, Reason::StaleUid);
        assert!(
            message.contains("u1") && message.contains("u2"),
            "{message}"
        );
    }

    #[test]
    fn a_static_pod_is_known_by_its_config_hash() {
        let mut pod = web("u2");
        pod["metadata"]["annotations"] = serde_json::json!({CONFIG_HASH: "abc"});
        assert_eq!(
            readiness(&store(pod.clone()), true, &asked(Some("abc"))),
            Readiness::Ready
        );
        assert_ne!(
            readiness(&store(pod), true, &asked(Some("def"))),
            Readiness::Ready
        );
    }

    #[test]
    fn an_attachment_without_a_pod_needs_no_object() {
        assert_eq!(
            readiness(&Store::default(), true, &request("c", 7, &[])),
            Readiness::Ready
        );
    }

    #[test]
    fn a_pod_without_a_uid_is_taken_by_name() {
        let pod = serde_json::json!({"metadata": {"namespace": "shop", "name": "web"}});
        assert_eq!(
            readiness(&store(pod), true, &asked(Some("u1"))),
            Readiness::Ready
        );
    }
}
