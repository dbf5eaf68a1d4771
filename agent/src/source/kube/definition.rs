//! Whether the custom resource has a definition, and in which versions: asked where the resource itself
//! is said not to be there.

use std::time::Duration;

use axum::http::Request;
use kube::{Client, Error};
use serde::Deserialize;
use tokio::time::timeout;
use weir_crd::ClusterNetworkPolicy;

use super::{
    appearance::{NAME, RESOURCE},
    item::Watched as _,
    trouble::{Verb, text},
};

/// What the API server says of the definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Definition {
    /// It has looked for it, and there is none.
    Gone,
    /// There is one, but not for the version that is watched (or not yet); in words.
    Others(String),
    /// It may not be looked at; in words.
    Forbidden(String),
    /// Nothing is known; why.
    Unknown(String),
}

/// The part of a CustomResourceDefinition that counts.
#[derive(Debug, Deserialize)]
struct Crd {
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Debug, Deserialize)]
struct Version {
    name: String,
    #[serde(default)]
    served: bool,
}

/// Asks for it, and waits no longer than `longest`.
pub(super) async fn look(client: &Client, longest: Duration) -> Definition {
    let path = format!("/apis/apiextensions.k8s.io/v1/{RESOURCE}/{NAME}");
    let request = match Request::get(path).body(Vec::new()) {
        Ok(request) => request,
        Err(e) => return Definition::Unknown(format!("get {RESOURCE}: {e}")),
    };
    match timeout(longest, client.request::<Crd>(request)).await {
        Ok(answer) => judge(answer),
        Err(_) => Definition::Unknown(format!("get {RESOURCE}: no answer within {longest:?}")),
    }
}

fn judge(answer: Result<Crd, Error>) -> Definition {
    let error = match answer {
        Ok(crd) => return Definition::Others(others(&crd)),
        Err(error) => error,
    };
    let why = text(RESOURCE, Verb::Get, &error);
    let Error::Api(status) = error else {
        return Definition::Unknown(why);
    };
    let named = |name: &str| status.details.as_ref().is_some_and(|d| d.name == name);
    match status.code {
        404 if status.reason == "NotFound" && named(NAME) => Definition::Gone,
        403 => Definition::Forbidden(why),
        _ => Definition::Unknown(why),
    }
}

fn others(crd: &Crd) -> String {
    let (plural, wanted) = (ClusterNetworkPolicy::PLURAL, ClusterNetworkPolicy::VERSION);
    let served = crd.spec.versions.iter().filter(|v| v.served);
    let served: Vec<&str> = served.map(|v| v.name.as_str()).collect();
    if served.contains(&wanted) {
        return format!(
            "list {plural}: the API server has their definition, but does not serve it"
        );
    }
    format!(
        "list {plural}: their definition is served as {} and not as {wanted}: policies that were known stay in force, others are not seen: install a definition that serves {wanted}, or a release of Weir for what is served",
        match served.is_empty() {
            true => "nothing".to_owned(),
            false => served.join(", "),
        }
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(code: u16, reason: &str, name: &str) -> Result<Crd, Error> {
        let status = json!({"code": code, "reason": reason, "details": {"name": name}});
        Err(Error::Api(serde_json::from_value(status).unwrap()))
    }

    #[test]
    fn it_is_gone_only_if_the_api_server_has_looked_for_it_by_name() {
        assert_eq!(judge(answer(404, "NotFound", NAME)), Definition::Gone);
        for (code, reason, name) in [
            (404, "NotFound", ""),
            (404, "NotFound", "others.example.org"),
            (404, "Failed to parse error data", NAME),
            (503, "ServiceUnavailable", NAME),
        ] {
            let judged = judge(answer(code, reason, name));
            assert!(matches!(judged, Definition::Unknown(_)), "{judged:?}");
        }
        let forbidden = judge(answer(403, "Forbidden", NAME));
        assert!(matches!(forbidden, Definition::Forbidden(why) if why.contains("ClusterRole")));
    }

    #[test]
    fn versions_that_are_served_are_named() {
        let crd = json!({"spec": {"versions": [
            {"name": "v1alpha2", "served": false}, {"name": "v1beta1", "served": true},
        ]}});
        let Definition::Others(why) = judge(Ok(serde_json::from_value(crd).unwrap())) else {
            panic!("others");
        };
        assert!(
            why.contains("served as v1beta1 and not as v1alpha2"),
            "{why}"
        );
    }
}
