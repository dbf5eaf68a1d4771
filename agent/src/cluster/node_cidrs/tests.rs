//! Against a server in memory: what one holder does, and that several at once do no harm.

mod schedules;

use serde_json::{Value, json};
use weir_net::IpNetwork;

use super::*;
use crate::{
    cluster::fake_api::{FakeApi, NODES, RECORD},
    compile::node_cidr::Pool,
    source::Batch,
    state::{Change, Kept, Kind, Object, ObjectKey},
};

fn pools(list: &[(&str, u8)]) -> Pools {
    let pools = list
        .iter()
        .map(|(cidr, bits)| Pool::new(cidr.parse().unwrap(), *bits).unwrap());
    Pools::new(pools.collect()).unwrap()
}

fn dual() -> Pools {
    pools(&[("10.244.0.0/22", 24), ("fd44::/62", 64)])
}

fn node(cidr: Option<&str>) -> Value {
    let cidrs = cidr.map(|cidr| vec![cidr]);
    json!({"apiVersion": "v1", "kind": "Node", "spec": {"podCIDR": cidr, "podCIDRs": cidrs}})
}

/// A Node registers: the server has it.
fn register(api: &FakeApi, name: &str, cidr: Option<&str>) {
    let mut node = node(cidr);
    if cidr.is_none() {
        node["spec"] = json!({});
    }
    api.put(&format!("{NODES}{name}"), node);
}

/// The source delivers a Node as the server has it, or that it is gone.
fn deliver(api: &FakeApi, shared: &Shared, name: &str) {
    let change = match api.get(&format!("{NODES}{name}")) {
        Value::Null => Change::Delete(ObjectKey {
            kind: Kind::Node,
            namespace: String::new(),
            name: name.to_owned(),
        }),
        node => Change::Apply(Kept::from(Object::Node(
            serde_json::from_value(node).unwrap(),
        ))),
    };
    shared.take(&Batch {
        changes: vec![change],
        ..Batch::default()
    });
}

fn start(api: &FakeApi, pools: Pools, shared: &Shared) -> tokio::task::JoinHandle<()> {
    let ((_, publisher), shared) = (api.client(), shared.clone());
    tokio::spawn(async move { run(&publisher, &pools, &shared).await })
}

async fn given(api: &FakeApi, name: &str) -> Vec<String> {
    let path = format!("{NODES}{name}");
    let node = api.until(&path, |n| !n["spec"]["podCIDRs"].is_null()).await;
    assert_eq!(node["spec"]["podCIDR"], node["spec"]["podCIDRs"][0]);
    serde_json::from_value(node["spec"]["podCIDRs"].clone()).unwrap()
}

#[tokio::test]
async fn a_node_that_joins_gets_its_cidrs_after_they_were_recorded() {
    let (api, shared) = (FakeApi::default(), Shared::new("n"));
    register(&api, "a", None);
    deliver(&api, &shared, "a");
    let task = start(&api, dual(), &shared);
    assert_eq!(given(&api, "a").await, ["10.244.0.0/24", "fd44::/64"]);
    deliver(&api, &shared, "a");
    register(&api, "b", None);
    deliver(&api, &shared, "b");
    assert_eq!(given(&api, "b").await, ["10.244.1.0/24", "fd44:0:0:1::/64"]);
    let record = api.get(RECORD);
    let uid = api.get(&format!("{NODES}b"))["metadata"]["uid"].clone();
    let entry = format!("10.244.1.0/24,fd44:0:0:1::/64 {}", uid.as_str().unwrap());
    assert_eq!(record["data"]["b"], entry);
    assert_eq!(
        api.writes(),
        [
            "POST /api/v1/namespaces/weir-system/configmaps",
            "PATCH /api/v1/nodes/a",
            "PUT /api/v1/namespaces/weir-system/configmaps/weir-node-cidrs",
            "PATCH /api/v1/nodes/b",
        ]
    );
    task.abort();
}

#[tokio::test]
async fn a_node_that_left_frees_its_cidr_once_the_server_says_so() {
    let (api, shared) = (FakeApi::default(), Shared::new("n"));
    let one = pools(&[("10.244.0.0/24", 24)]);
    for name in ["a", "b"] {
        register(&api, name, None);
        deliver(&api, &shared, name);
    }
    let task = start(&api, one, &shared);
    given(&api, "a").await;
    deliver(&api, &shared, "a");
    api.delete(&format!("{NODES}a"));
    deliver(&api, &shared, "a");
    assert_eq!(given(&api, "b").await, ["10.244.0.0/24"]);
    assert!(api.get(RECORD)["data"]["a"].is_null());
    task.abort();
}

#[tokio::test]
async fn a_404_of_a_proxy_frees_no_cidr() {
    let (api, shared) = (FakeApi::default(), Shared::new("n"));
    let one = pools(&[("10.244.0.0/24", 24)]);
    register(&api, "a", None);
    let (_, publisher) = api.client();
    let mut term = Term::default();
    let nodes = publisher.nodes().await.unwrap();
    term.round(&publisher, &one, &nodes, &shared).await.unwrap();
    assert_eq!(given(&api, "a").await, ["10.244.0.0/24"]);
    // The source has `a` no more, though it is there, and the answer about it is not the server's.
    api.hide(&format!("{NODES}a"));
    register(&api, "b", None);
    let nodes = Nodes::from([("b".into(), publisher.nodes().await.unwrap()["b"].clone())]);
    let round = term.round(&publisher, &one, &nodes, &shared).await;
    let error = round.unwrap_err().to_string();
    assert!(error.contains("Node a: status 404"), "{error}");
    assert!(api.get(&format!("{NODES}b"))["spec"]["podCIDRs"].is_null());
}

#[tokio::test]
async fn a_full_range_is_a_problem_until_there_is_room() {
    let (api, shared) = (FakeApi::default(), Shared::new("n"));
    register(&api, "a", Some("10.244.0.0/24"));
    register(&api, "b", None);
    let (_, publisher) = api.client();
    let one = pools(&[("10.244.0.0/24", 24)]);
    let mut term = Term::default();
    let nodes = publisher.nodes().await.unwrap();
    let problems = term.round(&publisher, &one, &nodes, &shared).await.unwrap();
    assert!(
        problems[0].starts_with("Node b: no pod CIDR"),
        "{problems:?}"
    );
    assert_eq!(shared.told().recorded, 1);
    api.delete(&format!("{NODES}a"));
    let nodes = publisher.nodes().await.unwrap();
    let problems = term.round(&publisher, &one, &nodes, &shared).await.unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(given(&api, "b").await, ["10.244.0.0/24"]);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_stops_everything_and_is_named() {
    let (api, shared) = (FakeApi::default(), Shared::new("n"));
    api.put(RECORD, json!({"data": {"x": "y"}}));
    register(&api, "a", None);
    let (_, publisher) = api.client();
    let nodes = publisher.nodes().await.unwrap();
    let round = Term::default()
        .round(&publisher, &dual(), &nodes, &shared)
        .await;
    let error = round.unwrap_err().to_string();
    for part in ["ConfigMap weir-system/weir-node-cidrs", "\"x\""] {
        assert!(error.contains(part), "{error}");
    }
    assert!(api.writes().is_empty());
}

#[tokio::test]
async fn a_term_knows_also_of_nodes_that_the_source_has_not_delivered() {
    let (api, shared) = (FakeApi::default(), Shared::new("n"));
    // More than one page of them.
    for n in 0..600 {
        let cidr = format!("10.{}.{}.0/24", n / 256, n % 256);
        register(&api, &format!("old{n}"), Some(&cidr));
    }
    register(&api, "a", None);
    deliver(&api, &shared, "a");
    let task = start(&api, pools(&[("10.0.0.0/8", 24)]), &shared);
    assert_eq!(given(&api, "a").await, ["10.2.88.0/24"]);
    task.abort();
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_named_with_the_key() {
    let (api, shared) = (FakeApi::default(), Shared::new("n"));
    register(&api, "a", None);
    let (_, publisher) = api.client_in("gone");
    let nodes = publisher.nodes().await.unwrap();
    let round = Term::default()
        .round(&publisher, &dual(), &nodes, &shared)
        .await;
    let error = round.unwrap_err().to_string();
    assert!(
        error.contains("there is no namespace gone") && error.contains("--namespace"),
        "{error}"
    );
}
