//! An API server in memory: resource versions, UIDs and patches as the real one has them, and requests
//! that wait until the test lets them through.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use crate::publish::Publisher;

/// Where Nodes are.
pub const NODES: &str = "/api/v1/nodes/";
/// Where ClusterNetworkPolicies are.
pub const POLICIES: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies/";
/// The record of pod CIDRs.
pub const RECORD: &str = "/api/v1/namespaces/weir-system/configmaps/weir-node-cidrs";
/// The Lease.
pub const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/weir-system/leases/weir";

type Answer = (StatusCode, Json<Value>);

/// What is asked.
struct Request {
    method: Method,
    path: String,
    query: String,
    kind: String,
    body: Value,
}

/// A request on its way.
struct Waiting {
    client: usize,
    request: Request,
    reply: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, Value>,
    version: u64,
    clients: usize,
    is_slow: bool,
    waiting: Vec<Waiting>,
    down: BTreeSet<usize>,
    foreign: BTreeSet<String>,
    writes: Vec<String>,
}

/// The server.
#[derive(Clone, Default)]
pub struct FakeApi {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<watch::Sender<()>>,
}

impl FakeApi {
    /// A server whose requests wait for [`FakeApi::let_through`].
    pub fn slow() -> Self {
        let api = Self::default();
        api.lock().is_slow = true;
        api
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// A client of its own, and its number.
    pub fn client(&self) -> (usize, Publisher) {
        self.client_in("weir-system")
    }

    /// With Weir's own in that namespace; all exist but `gone`.
    pub fn client_in(&self, namespace: &str) -> (usize, Publisher) {
        let mut inner = self.lock();
        inner.clients += 1;
        let number = inner.clients;
        let router = Router::new()
            .fallback(serve)
            .with_state((self.clone(), number));
        let client = Client::new(router, "default");
        (number, Publisher::new(client.into(), namespace.to_owned()))
    }

    /// Lets no request of that client through any more.
    pub fn cut_off(&self, client: usize) {
        self.lock().down.insert(client);
    }

    /// Puts something between clients and the server that answers a path with a 404 of its own.
    pub fn hide(&self, path: &str) {
        self.lock().foreign.insert(path.to_owned());
    }

    /// Makes or replaces an object as another client would.
    pub fn put(&self, path: &str, mut object: Value) {
        let mut inner = self.lock();
        inner.version += 1;
        let version = inner.version.to_string();
        object["metadata"]["name"] = json!(path.rsplit('/').next());
        object["metadata"]["resourceVersion"] = json!(version);
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{version}"));
        }
        inner.objects.insert(path.to_owned(), object);
        drop(inner);
        self.changed.send_replace(());
    }

    /// Removes an object.
    pub fn delete(&self, path: &str) -> bool {
        let removed = self.lock().objects.remove(path).is_some();
        self.changed.send_replace(());
        removed
    }

    /// An object as it is; null if there is none.
    pub fn get(&self, path: &str) -> Value {
        self.lock().objects.get(path).cloned().unwrap_or_default()
    }

    /// All objects below a path.
    pub fn below(&self, path: &str) -> Vec<Value> {
        let inner = self.lock();
        let all = inner.objects.iter().filter(|(at, _)| at.starts_with(path));
        all.map(|(_, object)| object.clone()).collect()
    }

    /// Every write that changed something: `VERB PATH`.
    pub fn writes(&self) -> Vec<String> {
        self.lock().writes.clone()
    }

    /// Waits until an object is as wanted.
    pub async fn until(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            loop {
                let object = self.get(path);
                if is_so(&object) {
                    return object;
                }
                changed.changed().await.unwrap();
            }
        };
        let patience = std::time::Duration::from_secs(20);
        match tokio::time::timeout(patience, waiting).await {
            Ok(object) => object,
            Err(_) => panic!("{path} stays {}", self.get(path)),
        }
    }

    /// The clients whose requests wait.
    pub fn waiting(&self) -> Vec<usize> {
        self.lock().waiting.iter().map(|w| w.client).collect()
    }

    /// What a client waits for: `VERB PATH`.
    pub fn asked(&self, client: usize) -> Option<String> {
        let inner = self.lock();
        let waiting = inner.waiting.iter().find(|w| w.client == client)?;
        let Request { method, path, .. } = &waiting.request;
        Some(format!("{method} {path}"))
    }

    /// Performs one of the waiting requests, and answers it, or loses the answer.
    pub fn let_through(&self, index: usize, answer: bool) {
        let mut inner = self.lock();
        let Waiting { request, reply, .. } = inner.waiting.remove(index);
        let done = inner.perform(&request);
        let lost = failure(StatusCode::GATEWAY_TIMEOUT, "the answer was lost");
        // Whoever asked may be gone.
        let _ = reply.send(if answer { done } else { lost });
    }
}

async fn serve(
    State((api, client)): State<(FakeApi, usize)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let kind = headers.get(header::CONTENT_TYPE);
    let request = Request {
        method,
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        kind: kind.map_or("", |k| k.to_str().unwrap()).to_owned(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let answer = {
        let mut inner = api.lock();
        if inner.down.contains(&client) {
            return failure(StatusCode::SERVICE_UNAVAILABLE, "cut off");
        }
        if inner.is_slow {
            let (reply, answer) = oneshot::channel();
            inner.waiting.push(Waiting {
                client,
                request,
                reply,
            });
            answer
        } else {
            let done = inner.perform(&request);
            drop(inner);
            api.changed.send_replace(());
            return done;
        }
    };
    answer.await.unwrap()
}

fn failure(code: StatusCode, message: &str) -> Answer {
    let reason = code.canonical_reason().map(|words| words.replace(' ', ""));
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code.as_u16(), "message": message, "reason": reason,
    });
    (code, Json(status))
}

/// As the API server says that it has looked for an object.
fn not_found(path: &str) -> Answer {
    let (code, Json(mut status)) = failure(StatusCode::NOT_FOUND, "no such object");
    status["details"] = json!({"name": path.rsplit('/').next()});
    (code, Json(status))
}

impl Inner {
    fn perform(&mut self, request: &Request) -> Answer {
        let path = request.path.trim_end_matches("/status");
        if self.foreign.contains(path) {
            return (StatusCode::NOT_FOUND, Json(json!("no such page")));
        }
        match request.method {
            Method::GET if path == NODES.trim_end_matches('/') => self.list(&request.query),
            Method::GET => match self.objects.get(path) {
                Some(object) => (StatusCode::OK, Json(object.clone())),
                None => not_found(path),
            },
            Method::POST => {
                let name = request.body["metadata"]["name"].as_str().unwrap_or("");
                let path = format!("{path}/{name}");
                if path.starts_with("/api/v1/namespaces/gone/") {
                    return failure(StatusCode::NOT_FOUND, "namespaces \"gone\" not found");
                }
                if self.objects.contains_key(&path) {
                    return failure(StatusCode::CONFLICT, "already exists");
                }
                let mut object = request.body.clone();
                object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
                self.store(request, &path, object)
            }
            _ => {
                let Some(old) = self.objects.get(path).cloned() else {
                    return failure(StatusCode::NOT_FOUND, "no such object");
                };
                self.change(request, path, &old)
            }
        }
    }

    /// In pages, as asked.
    fn list(&self, query: &str) -> Answer {
        let number = |key: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let value = pairs.rfind(|(name, _)| *name == key);
            value.and_then(|(_, text)| text.parse::<usize>().ok())
        };
        let all: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(path, _)| path.starts_with(NODES))
            .map(|(_, object)| object)
            .collect();
        let from = number("continue").unwrap_or(0);
        let to = (from + number("limit").unwrap_or(all.len())).min(all.len());
        let next = (to < all.len()).then(|| to.to_string());
        let metadata = json!({"resourceVersion": "1", "continue": next});
        let list = json!({
            "kind": "NodeList", "apiVersion": "v1", "metadata": metadata, "items": all[from..to],
        });
        (StatusCode::OK, Json(list))
    }

    fn change(&mut self, request: &Request, path: &str, old: &Value) -> Answer {
        let (meta, had) = (&request.body["metadata"], &old["metadata"]);
        let version = &meta["resourceVersion"];
        if !version.is_null() && *version != had["resourceVersion"] {
            return failure(StatusCode::CONFLICT, "the object has been modified");
        }
        if !meta["uid"].is_null() && meta["uid"] != had["uid"] {
            return failure(
                StatusCode::UNPROCESSABLE_ENTITY,
                "metadata.uid: field is immutable",
            );
        }
        let mut object = match request.method {
            Method::PUT => request.body.clone(),
            _ => {
                let mut object = old.clone();
                let by_type = request.kind != "application/merge-patch+json";
                merge(&mut object, &request.body, by_type);
                object
            }
        };
        object["metadata"]["uid"] = had["uid"].clone();
        let cidrs = &old["spec"]["podCIDRs"];
        if path.starts_with(NODES) && !cidrs.is_null() && *cidrs != object["spec"]["podCIDRs"] {
            return failure(
                StatusCode::UNPROCESSABLE_ENTITY,
                "node updates may not change podCIDR except from \"\" to valid",
            );
        }
        self.store(request, path, object)
    }

    /// What changes nothing keeps its resource version.
    fn store(&mut self, request: &Request, path: &str, mut object: Value) -> Answer {
        let old = self.objects.get(path);
        let version = old.map(|old| old["metadata"]["resourceVersion"].clone());
        object["metadata"]["resourceVersion"] = version.unwrap_or_default();
        if old != Some(&object) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.writes
                .push(format!("{} {}", request.method, request.path));
            self.objects.insert(path.to_owned(), object.clone());
        }
        (StatusCode::OK, Json(object))
    }
}

/// RFC 7386; lists of conditions by their type if that is asked for.
fn merge(into: &mut Value, patch: &Value, by_type: bool) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value, by_type);
                }
            }
        }
        (Value::Array(into), Value::Array(patch)) if by_type => {
            for value in patch {
                into.retain(|old| old["type"] != value["type"]);
                into.push(value.clone());
            }
        }
        (into, patch) if patch.is_object() => {
            *into = json!({});
            merge(into, patch, by_type);
        }
        (into, patch) => *into = patch.clone(),
    }
}
