//! From requests to answers.

use std::{future, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Request, State as Extract},
    http::{Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};

use crate::{Fault, Shared, Verb, state::Happened, watch};

/// Largest body of a request, bytes.
const BODY: usize = 16 << 20;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(answer).with_state(shared)
}

/// What a path names.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub plural: String,
    pub namespace: Option<String>,
    name: Option<String>,
    /// `metadata.name=` of a field selector.
    selected: Option<String>,
}

impl Target {
    /// `/api/v1/…` or `/apis/GROUP/VERSION/…`.
    fn parse(path: &str, query: &[(String, String)]) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        match parts.next()? {
            "api" => parts.nth(0)?,
            "apis" => parts.nth(1)?,
            _ => return None,
        };
        let rest: Vec<&str> = parts.collect();
        // `namespaces/NAME` is itself an object, and `namespaces/NAME/PLURAL` a place.
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && *rest != ["status"] => {
                (Some((*namespace).to_owned()), rest)
            }
            rest => (None, rest),
        };
        let selector = query.iter().find(|(key, _)| key == "fieldSelector");
        Some(Self {
            plural: (*rest.first()?).to_owned(),
            namespace,
            name: rest.get(1).map(|name| (*name).to_owned()),
            selected: selector
                .and_then(|(_, s)| Some(s.strip_prefix("metadata.name=")?.to_owned())),
        })
    }

    /// Whether a watch of it is told.
    pub fn holds(&self, happened: &Happened) -> bool {
        self.plural == happened.plural
            && self
                .namespace
                .as_ref()
                .is_none_or(|n| *n == happened.namespace)
            && self.selects(&happened.event["object"])
    }

    fn selects(&self, object: &Value) -> bool {
        let name = object["metadata"]["name"].as_str();
        self.selected
            .as_deref()
            .is_none_or(|wanted| name == Some(wanted))
    }
}

/// A `Status` object.
pub(crate) fn status(code: u16) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        503 => "ServiceUnavailable",
        _ => "",
    };
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": format!("the fake API says {code} {reason}"),
    })
}

fn failure(code: u16) -> Response {
    let http = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (http, Json(status(code))).into_response()
}

fn page(code: u16) -> Response {
    let http = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = format!("<html><body><h1>{http}</h1></body></html>\n");
    (http, body).into_response()
}

fn future_version(code: u16) -> Response {
    let http = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut status = status(code);
    status["message"] = json!("Too large resource version: 2000, current: 7");
    (http, Json(status)).into_response()
}

/// As the API server says that it has looked for an object.
fn not_found(target: &Target) -> Response {
    let mut status = status(404);
    status["details"] = json!({"name": target.name, "kind": target.plural});
    (StatusCode::NOT_FOUND, Json(status)).into_response()
}

fn not_served() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

/// The pairs of a query; `%XX` is decoded.
fn query_of(request: &Request) -> Vec<(String, String)> {
    let query = request.uri().query().unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(k, v)| (k.to_owned(), decoded(v))).collect()
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |b: Option<u8>| char::from(b.unwrap_or(b'0')).to_digit(16).unwrap_or(0) as u8;
        out.push(match byte {
            b'%' => {
                let high = hex(bytes.next());
                high << 4 | hex(bytes.next())
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

async fn answer(Extract(shared): Extract<Arc<Shared>>, request: Request) -> Response {
    let query = query_of(&request);
    let value = |key: &str| query.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let Some(target) = Target::parse(request.uri().path(), &query) else {
        return not_served();
    };
    let is_watch = value("watch").is_some_and(|v| v == "true" || v == "1");
    let verb = match (request.method(), &target.name) {
        (&Method::GET, None) if is_watch => Verb::Watch,
        (&Method::GET, None) => Verb::List,
        (&Method::GET, Some(_)) => Verb::Get,
        _ => Verb::Write,
    };
    let sent = request.headers().get(header::AUTHORIZATION);
    let sent = sent.and_then(|v| v.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned));
    let fault = {
        let mut state = shared.lock();
        let key = (target.plural.clone(), verb);
        *state.requests.entry(key.clone()).or_default() += 1;
        if state.token.is_some() && state.token != sent {
            Some(Fault::Status(401))
        } else {
            state.faults.get(&key).cloned()
        }
    };
    match fault {
        Some(Fault::Status(code)) => return failure(code),
        Some(Fault::NotServed) => return not_served(),
        Some(Fault::Proxy(code)) => return page(code),
        Some(Fault::Future(code)) => return future_version(code),
        Some(Fault::Ends) => return Body::empty().into_response(),
        Some(Fault::Hang) => future::pending().await,
        None => {}
    }
    let number = |key: &str| value(key).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
    match verb {
        Verb::List => list(
            &shared,
            &target,
            number("limit"),
            value("continue").as_deref(),
        ),
        Verb::Watch => {
            let version = number("resourceVersion");
            if version < shared.lock().oldest {
                return failure(410);
            }
            watch::body(shared, target, version).into_response()
        }
        Verb::Get => get(&shared, &target),
        Verb::Write => write(&shared, &target, request).await,
    }
}

/// `continue` is `VERSION-INDEX` here.
fn list(shared: &Shared, target: &Target, limit: u64, token: Option<&str>) -> Response {
    let mut state = shared.lock();
    if token.is_some() && state.stale.remove(&target.plural) {
        return failure(410);
    }
    let (version, from) = match token.and_then(|t| t.split_once('-')) {
        Some((version, from)) => (
            version.parse().unwrap_or(0),
            from.parse::<usize>().unwrap_or(0),
        ),
        None => (state.version, 0),
    };
    if version < state.oldest {
        return failure(410);
    }
    let mut items = state.list(&target.plural, target.namespace.as_deref());
    items.retain(|object| target.selects(object));
    let all = items.len();
    let limit = if limit == 0 {
        all
    } else {
        usize::try_from(limit).unwrap_or(all)
    };
    let page: Vec<Value> = items.into_iter().skip(from).take(limit).collect();
    let end = from + page.len();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if end < all {
        metadata["continue"] = json!(format!("{version}-{end}"));
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": page});
    Json(list).into_response()
}

fn get(shared: &Shared, target: &Target) -> Response {
    let state = shared.lock();
    let (namespace, name) = target.names();
    match state.get(&target.plural, namespace, name) {
        Some(object) => Json(object.clone()).into_response(),
        None => not_found(target),
    }
}

impl Target {
    fn names(&self) -> (&str, &str) {
        (
            self.namespace.as_deref().unwrap_or_default(),
            self.name.as_deref().unwrap_or_default(),
        )
    }
}

async fn write(shared: &Shared, target: &Target, request: Request) -> Response {
    let method = request.method().clone();
    let Ok(bytes) = to_bytes(Body::new(request.into_body()), BODY).await else {
        return failure(400);
    };
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut state = shared.lock();
    let (namespace, name) = target.names();
    let name = match &target.name {
        Some(_) => name.to_owned(),
        None => body["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    };
    let old = state.get(&target.plural, namespace, &name).cloned();
    let said = body["metadata"]["resourceVersion"].as_str();
    let stale = |old: &Value| said.is_some_and(|v| old["metadata"]["resourceVersion"] != *v);
    let mut new = match (method, old) {
        (Method::POST, Some(_)) => return failure(409),
        (Method::POST, None) => body,
        (Method::PUT, Some(old)) if !stale(&old) => body,
        (Method::PATCH, Some(mut old)) if !stale(&old) => {
            merge(&mut old, body);
            old
        }
        (Method::PUT | Method::PATCH, Some(_)) => return failure(409),
        (Method::DELETE, Some(_)) => {
            let gone = state.delete(&target.plural, namespace, &name);
            drop(state);
            shared.wake();
            return Json(gone).into_response();
        }
        _ => return failure(404),
    };
    if !namespace.is_empty() {
        new["metadata"]["namespace"] = json!(namespace);
    }
    new["metadata"]["name"] = json!(name);
    state.put(&target.plural, new);
    let now = state.get(&target.plural, namespace, &name).cloned();
    drop(state);
    shared.wake();
    Json(now).into_response()
}

/// RFC 7386.
fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().map(|o| o.remove(&key));
        } else {
            merge(&mut into[key.as_str()], value);
        }
    }
}
