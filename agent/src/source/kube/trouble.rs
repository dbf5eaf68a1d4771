//! How a list or a watch ends, and what is wrong with it, in words.

use k8s_openapi::jiff::Timestamp;
use kube::Error;

use crate::causes::chain;

/// What was asked of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// A list.
    List,
    /// A watch.
    Watch,
    /// One object.
    Get,
}

impl Verb {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Watch => "watch",
            Self::Get => "get",
        }
    }
}

/// Why a list or a watch ended.
pub(super) enum End {
    /// Nothing is wrong: go on where it was.
    Resume,
    /// What the watch is at is too old for the API server: list anew, at once.
    Gone,
    /// The API server has no such resource.
    NotServed,
    /// Try again after a while.
    Failed(Again),
    /// Nobody listens any more.
    Closed,
}

/// What is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The watch, where it was; or the list.
    Same,
    /// The list.
    Anew,
}

/// Something that is wrong until the next success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Since when.
    pub since: Timestamp,
    /// The last error's text.
    pub text: String,
}

impl Trouble {
    /// Notes an error; the time is the first one's.
    pub fn note(now: &mut Option<Self>, text: String) {
        let since = now.as_ref().map_or_else(Timestamp::now, |old| old.since);
        *now = Some(Self { since, text });
    }

    /// For `weir status`.
    pub fn say(&self) -> String {
        format!("{} (since {:.0})", self.text, self.since)
    }
}

/// An error, with the remedy where there is one.
pub(super) fn text(resource: &str, verb: Verb, error: &Error) -> String {
    let verb = verb.as_str();
    let what = format!("{verb} {resource}");
    match error {
        Error::Api(status) if status.code == 403 => format!(
            "{what}: forbidden: {}: give the agent's service account the verbs get, list and watch on {resource} (ClusterRole weir)",
            status.message
        ),
        Error::Api(status) if status.code == 401 => format!(
            "{what}: the API server does not accept the agent's token (HTTP 401): is the service account's token, or the kubeconfig, of this cluster and not expired?",
        ),
        Error::Api(status) => {
            format!(
                "{what}: the API server says {}: {}",
                status.code, status.message
            )
        }
        other => format!("{what}: {}", chain(other)),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api(code: u16) -> Error {
        Error::Api(Box::new(Status::failure("no", "").with_code(code)))
    }

    #[test]
    fn what_is_forbidden_names_resource_verb_and_the_rbac_remedy() {
        let text = text("pods", Verb::Watch, &api(403));
        assert!(text.starts_with("watch pods: forbidden"), "{text}");
        assert!(text.contains("get, list and watch on pods"), "{text}");
    }

    #[test]
    fn a_refused_token_is_said_to_be_one() {
        let text = text("pods", Verb::List, &api(401));
        assert!(text.contains("token") && text.contains("401"), "{text}");
    }

    #[test]
    fn the_time_is_that_of_the_first_error() {
        let mut trouble = None;
        Trouble::note(&mut trouble, "a".into());
        let since = trouble.as_ref().unwrap().since;
        Trouble::note(&mut trouble, "b".into());
        let trouble = trouble.unwrap();
        assert_eq!((trouble.since, trouble.text.as_str()), (since, "b"));
    }
}
