use serde_json::{Value, json};

use super::*;
use crate::{
    cluster::fake_api::{FakeApi, NODES},
    source::Batch,
    state::{Change, Kept, Object},
};

fn node(unavailable: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "status": {"conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "NetworkUnavailable", "status": unavailable, "reason": "NoRouteCreated"},
        ]},
    })
}

fn deliver(shared: &Shared, node: &Value) {
    let node = serde_json::from_value(node.clone()).unwrap();
    shared.take(&Batch {
        changes: vec![Change::Apply(Kept::from(Object::Node(node)))],
        ..Batch::default()
    });
}

fn is_available(node: &Value) -> bool {
    let all = node["status"]["conditions"].as_array().unwrap();
    all.iter().any(|c| {
        c["type"] == "NetworkUnavailable" && c["status"] == "False" && c["reason"] == "WeirIsUp"
    })
}

#[tokio::test]
async fn a_node_is_said_to_be_available_only_when_pods_can_be_added_and_only_if_it_was_not() {
    let (api, shared) = (FakeApi::default(), Shared::new("n"));
    let path = format!("{NODES}n");
    api.put(&path, node("True"));
    deliver(&shared, &node("False"));
    let (_, publisher) = api.client();
    let task = {
        let shared = shared.clone();
        tokio::spawn(async move { run(&publisher, "n", &shared).await })
    };
    // A cloud that says so after the agent has become ready is answered, too.
    shared.set_ready(true);
    tokio::task::yield_now().await;
    assert!(api.writes().is_empty());
    shared.set_ready(false);
    deliver(&shared, &node("True"));
    tokio::task::yield_now().await;
    assert!(api.writes().is_empty());
    shared.set_ready(true);
    let written = api.until(&path, is_available).await;
    let all = written["status"]["conditions"].as_array().unwrap();
    assert!(all.len() == 2 && all[0]["type"] == "Ready", "{all:?}");
    deliver(&shared, &node("False"));
    deliver(&shared, &node("True"));
    api.put(&path, node("True"));
    api.until(&path, is_available).await;
    assert_eq!(api.writes().len(), 2);
    task.abort();
}
