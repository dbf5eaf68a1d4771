use serde_json::{Value, json};

use super::*;
use crate::{
    cluster::fake_api::{FakeApi, POLICIES},
    source::Batch,
    state::{Change, Kept, Object},
};

fn policy(name: &str, generation: i64, priority: i64) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": generation},
        "spec": {"tier": "Admin", "priority": priority, "subject": {"namespaces": {}}},
    })
}

/// The server has it, and the source has delivered it.
fn apply(api: &FakeApi, shared: &Shared, object: &Value) {
    let name = object["metadata"]["name"].as_str().unwrap();
    let path = format!("{POLICIES}{name}");
    let mut stored = object.clone();
    stored["status"] = api.get(&path)["status"].clone();
    api.put(&path, stored);
    deliver(shared, object);
}

fn deliver(shared: &Shared, object: &Value) {
    let object = serde_json::from_value(object.clone()).unwrap();
    shared.take(&Batch {
        changes: vec![Change::Apply(Kept::from(Object::ClusterNetworkPolicy(
            object,
        )))],
        ..Batch::default()
    });
}

fn start(api: &FakeApi, shared: &Shared) -> tokio::task::JoinHandle<()> {
    let ((_, publisher), shared) = (api.client(), shared.clone());
    tokio::spawn(async move { run(&publisher, &shared).await })
}

/// (type, status, observedGeneration) of each condition.
fn conditions(object: &Value) -> Vec<(String, String, i64)> {
    let list = object["status"]["conditions"].as_array();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |c: &Value| {
        let observed = c["observedGeneration"].as_i64().unwrap_or(-1);
        (text(&c["type"]), text(&c["status"]), observed)
    };
    list.into_iter().flatten().map(one).collect()
}

fn expected(accepted: &str, generation: i64) -> Vec<(String, String, i64)> {
    vec![
        ("Accepted".into(), accepted.into(), generation),
        ("PartiallySupported".into(), "False".into(), generation),
    ]
}

#[tokio::test]
async fn conditions_name_the_field_and_follow_the_generation() {
    let (api, shared) = (FakeApi::default(), Shared::new("n"));
    let path = format!("{POLICIES}p");
    apply(&api, &shared, &policy("p", 1, 5000));
    let task = start(&api, &shared);
    let refused = api
        .until(&path, |o| conditions(o) == expected("False", 1))
        .await;
    let accepted = &refused["status"]["conditions"][0];
    assert_eq!(accepted["reason"], "Refused");
    let message = accepted["message"].as_str().unwrap();
    assert!(message.starts_with("spec.priority: 5000"), "{message}");
    apply(&api, &shared, &policy("p", 2, 5));
    api.until(&path, |o| conditions(o) == expected("True", 2))
        .await;
    task.abort();
}

#[tokio::test]
async fn what_is_said_already_is_not_written_again_and_others_conditions_stay() {
    let (api, shared) = (FakeApi::default(), Shared::new("n"));
    let path = format!("{POLICIES}p");
    let mut object = policy("p", 1, 5);
    object["status"] = json!({"conditions": [{
        "type": "Audited", "status": "True", "reason": "X", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]});
    api.put(&path, object.clone());
    deliver(&shared, &object);
    let task = start(&api, &shared);
    let written = api.until(&path, |o| conditions(o).len() == 3).await;
    assert_eq!(written["status"]["conditions"][0]["type"], "Audited");
    task.abort();
    // The next holder finds it said; what it does after is the sign that it has looked.
    let task = start(&api, &shared);
    apply(&api, &shared, &policy("z", 1, 5));
    api.until(&format!("{POLICIES}z"), |o| {
        conditions(o) == expected("True", 1)
    })
    .await;
    assert_eq!(api.get(&path), written);
    let writes = api.writes();
    assert_eq!(writes.len(), 2, "{writes:?}");
    task.abort();
}

#[tokio::test]
async fn what_was_said_of_a_former_version_is_not_written_over_the_present_one() {
    let (api, shared) = (FakeApi::default(), Shared::new("n"));
    api.put(&format!("{POLICIES}p"), policy("p", 2, 5));
    deliver(&shared, &policy("p", 1, 5000));
    let task = start(&api, &shared);
    apply(&api, &shared, &policy("z", 1, 5));
    api.until(&format!("{POLICIES}z"), |o| {
        conditions(o) == expected("True", 1)
    })
    .await;
    assert!(api.get(&format!("{POLICIES}p"))["status"].is_null());
    task.abort();
}

#[test]
fn the_time_of_a_transition_stays_while_the_status_does() {
    let (then, now) = (Timestamp::UNIX_EPOCH, Timestamp::now());
    let wanted = Wanted {
        kind: weir_policy::ConditionType::Accepted,
        holds: true,
        reason: "Accepted",
        message: "x".repeat(MOST_MESSAGE + 1),
    };
    let first = condition(&wanted, 1, None, then);
    assert_eq!(first.message.len(), MOST_MESSAGE);
    let second = condition(&wanted, 2, Some(&first), now);
    assert_eq!(second.last_transition_time, Time(then));
    let turned = Wanted {
        holds: false,
        ..wanted
    };
    let third = condition(&turned, 3, Some(&second), now);
    assert_eq!(third.last_transition_time, Time(now));
}
