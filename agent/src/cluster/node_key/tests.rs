use serde_json::{Value, json};
use weir_net::PublicKey;

use super::*;
use crate::{
    cluster::fake_api::{FakeApi, NODES},
    source::Batch,
    state::{Change, Kept, Object},
};

fn node(key: Option<PublicKey>) -> Value {
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n", "annotations": {"other": "stays"}},
    });
    if let Some(key) = key {
        node["metadata"]["annotations"][KEY_ANNOTATION] = json!(key.to_string());
    }
    node
}

fn deliver(shared: &Shared, node: &Value) {
    let node = serde_json::from_value(node.clone()).unwrap();
    shared.take(&Batch {
        changes: vec![Change::Apply(Kept::from(Object::Node(node)))],
        ..Batch::default()
    });
}

fn annotation(node: &Value) -> Option<String> {
    let text = node["metadata"]["annotations"][KEY_ANNOTATION].as_str();
    text.map(str::to_owned)
}

#[tokio::test]
async fn a_node_says_its_key_while_it_encrypts_and_none_afterwards() {
    let (api, shared) = (FakeApi::default(), Shared::new("n"));
    let path = format!("{NODES}n");
    let [old, new] = [1, 2].map(|number| PublicKey::from_bytes([number; 32]));
    api.put(&path, node(Some(old)));
    let (_, publisher) = api.client();
    let task = {
        let shared = shared.clone();
        tokio::spawn(async move { run(&publisher, "n", &shared).await })
    };
    // Before the Node is known nothing is written, nor before the engine has said what to.
    shared.set_wireguard_key(Some(new));
    tokio::task::yield_now().await;
    assert!(api.writes().is_empty());
    deliver(&shared, &node(Some(old)));
    let text = new.to_string();
    let written = api
        .until(&path, |node| annotation(node) == Some(text.clone()))
        .await;
    assert_eq!(written["metadata"]["annotations"]["other"], "stays");
    deliver(&shared, &node(Some(new)));
    tokio::task::yield_now().await;
    assert_eq!(api.writes().len(), 1);
    shared.set_wireguard_key(None);
    api.until(&path, |node| annotation(node).is_none()).await;
    assert_eq!(api.writes().len(), 2);
    task.abort();
}

#[tokio::test]
async fn a_node_that_never_had_a_key_is_left_alone_without_encryption() {
    let (api, shared) = (FakeApi::default(), Shared::new("n"));
    api.put(&format!("{NODES}n"), node(None));
    let (_, publisher) = api.client();
    let task = {
        let shared = shared.clone();
        tokio::spawn(async move { run(&publisher, "n", &shared).await })
    };
    deliver(&shared, &node(None));
    shared.set_wireguard_key(None);
    tokio::task::yield_now().await;
    assert!(api.writes().is_empty());
    task.abort();
}
