//! What an API server, and what is between it and here, may do wrong.

use super::*;
use crate::state::{Object, ObjectKey};

const CRD: &str = "clusternetworkpolicies.policy.networking.k8s.io";
/// Of the API group's own list and watch.
const BOTH: [Verb; 2] = [Verb::List, Verb::Watch];

/// So that nothing has to be waited for.
fn short() -> Limits {
    Limits {
        answer: Duration::from_millis(300),
        idle: Duration::from_millis(300),
    }
}

/// An API server with the custom resource, and one policy.
fn api_with_policy() -> FakeApi {
    let api = FakeApi::start().unwrap();
    api.put(CRDS, definition("v1alpha2"));
    api.put(CNPS, json!({"metadata": {"name": "admin"}}));
    api
}

fn definition(version: &str) -> Value {
    json!({"metadata": {"name": CRD}, "spec": {"versions": [
        {"name": version, "served": true}, {"name": "v1alpha1", "served": false},
    ]}})
}

#[tokio::test]
async fn a_list_that_hangs_is_given_up_and_begun_anew() {
    let api = api();
    api.put("pods", pod("a"));
    api.fail("pods", &[Verb::List], &Fault::Hang);
    let mut run = Run::within(&api, short()).await;
    run.until_problem(&["list pods: no answer within 300ms"])
        .await;
    assert!(!run.complete);
    api.heal("pods");
    run.until("the picture", |run| run.complete).await;
    run.until_well().await;
    assert_eq!(run.held.len(), 1);
}

#[tokio::test]
async fn a_watch_that_does_not_begin_is_given_up_and_begun_anew_where_it_was() {
    let api = api();
    let limits = Limits {
        idle: Limits::default().idle,
        ..short()
    };
    let mut run = Run::synced_within(&api, limits).await;
    api.fail("pods", &[Verb::Watch], &Fault::Hang);
    run.until_problem(&["watch pods: no answer within 300ms", "since 20"])
        .await;
    api.put("pods", pod("a"));
    api.heal("pods");
    run.until("what was missed", |run| run.held.len() == 1)
        .await;
    run.until_well().await;
    assert_eq!(api.requests("pods", Verb::List), 1);
}

#[tokio::test]
async fn a_watch_that_stays_deaf_is_followed_by_a_list() {
    let api = api();
    api.put("pods", pod("a"));
    let mut run = Run::synced_within(&api, short()).await;
    api.hold_watches("pods", true);
    api.put("pods", pod("b"));
    api.delete("pods", "shop", "a");
    // No watch tells of it.
    run.until("the list", |run| run.log.len() == 2).await;
    assert_eq!(run.log, ["+Pod shop/b", "-Pod shop/a"]);
    assert_eq!(run.problems, [""; 0]);
    assert!(api.requests("pods", Verb::Watch) >= 2);
}

#[tokio::test]
async fn a_watch_whose_version_is_none_of_the_api_servers_is_followed_by_a_list() {
    for code in [504, 400] {
        let api = api();
        let mut run = Run::synced(&api).await;
        // As after its store came back from a backup.
        api.fail("pods", &[Verb::Watch], &Fault::Future(code));
        run.until_problem(&["watch pods: the API server says"])
            .await;
        api.hold_watches("pods", true);
        api.put("pods", pod("b"));
        api.heal("pods");
        run.until("the list", |run| run.held.contains("Pod shop/b"))
            .await;
        run.until_well().await;
    }
}

#[tokio::test]
async fn a_continue_token_that_expires_amid_a_list_removes_nothing_that_is_there() {
    let api = api();
    for n in 0..1201 {
        api.put("pods", pod(&format!("p{n}")));
    }
    api.expire_continue("pods");
    let mut run = Run::synced(&api).await;
    assert_eq!(run.held.len(), 1201);
    // One page, the refusal, and a list from its beginning.
    assert_eq!(api.requests("pods", Verb::List), 5);
    // And in a later list.
    api.hold_watches("pods", true);
    api.delete("pods", "shop", "p700");
    api.expire_continue("pods");
    api.expire();
    api.hold_watches("pods", false);
    run.until("the deletion", |run| !run.log.is_empty()).await;
    assert_eq!(run.log, ["-Pod shop/p700"]);
    run.until_well().await;
}

#[tokio::test]
async fn watches_that_end_at_once_again_and_again_are_one_problem_until_one_lives() {
    let api = api();
    let mut run = Run::synced(&api).await;
    api.fail("pods", &[Verb::Watch], &Fault::Ends);
    run.until_problem(&["watch pods: it ends as soon as it has begun"])
        .await;
    let begun = api.requests("pods", Verb::Watch);
    assert!(begun >= 3, "{begun}");
    while api.requests("pods", Verb::Watch) < begun + 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It is not over in between.
    let news = timeout(Duration::from_millis(200), run.batches.recv()).await;
    assert!(news.is_err(), "{news:?}");
    api.heal("pods");
    run.until_well().await;
    api.put("pods", pod("a"));
    run.until("what follows", |run| run.held.len() == 1).await;
}

#[tokio::test]
async fn a_failing_api_server_or_a_proxys_404_removes_no_cluster_policy() {
    let api = api_with_policy();
    let mut run = Run::synced(&api).await;
    for fault in [Fault::Status(503), Fault::Proxy(404)] {
        api.fail(CNPS, &Verb::ALL, &fault);
        run.until_problem(&["clusternetworkpolicies"]).await;
        api.heal(CNPS);
        run.until_well().await;
    }
    assert_eq!(run.log, [""; 0]);
}

#[tokio::test]
async fn a_404_in_the_api_servers_words_removes_cluster_policies_only_with_their_definition() {
    let api = api_with_policy();
    let mut run = Run::synced(&api).await;
    // Some proxies say the same of paths that they do not know.
    api.fail(CNPS, &BOTH, &Fault::NotServed);
    api.fail(CRDS, &Verb::ALL, &Fault::NotServed);
    run.until_problem(&["get customresourcedefinitions", "404"])
        .await;
    // It may not be looked at.
    api.fail(CRDS, &Verb::ALL, &Fault::Status(403));
    run.until_problem(&["get customresourcedefinitions: forbidden", "ClusterRole"])
        .await;
    // It has other versions by now.
    api.put(CRDS, definition("v1beta1"));
    api.heal(CRDS);
    run.until_problem(&["served as v1beta1 and not as v1alpha2", "stay in force"])
        .await;
    assert_eq!(run.log, [""; 0]);
    api.delete(CRDS, "", CRD);
    run.until("the end", |run| run.held.is_empty()).await;
    run.until_well().await;
}

#[tokio::test]
async fn at_a_start_a_404_that_may_be_a_proxys_is_no_complete_picture() {
    let api = api_with_policy();
    api.fail(CNPS, &BOTH, &Fault::NotServed);
    api.fail(CRDS, &Verb::ALL, &Fault::NotServed);
    let mut run = Run::start(&api).await;
    run.until_problem(&["get customresourcedefinitions", "404"])
        .await;
    assert!(!run.complete);
    api.heal(CRDS);
    api.heal(CNPS);
    run.until("the picture", |run| run.complete).await;
    assert!(run.held.contains("ClusterNetworkPolicy admin"));
    run.until_well().await;
}

#[tokio::test]
async fn at_a_start_a_definition_in_other_versions_is_a_problem_and_no_obstacle() {
    let api = api();
    api.put(CRDS, definition("v1beta1"));
    let mut run = Run::synced(&api).await;
    run.until_problem(&["served as v1beta1 and not as v1alpha2"])
        .await;
}

#[tokio::test]
async fn definitions_that_may_not_be_watched_are_a_problem_and_no_obstacle() {
    let api = api();
    api.fail(CRDS, &Verb::ALL, &Fault::Status(403));
    let mut run = Run::synced(&api).await;
    run.until_problem(&[
        "list customresourcedefinitions: forbidden",
        "get, list and watch on customresourcedefinitions",
    ])
    .await;
    api.heal(CRDS);
    run.until_well().await;
    assert_eq!(run.log, [""; 0]);
}

#[test]
fn until_everything_is_listed_only_the_last_word_on_what_is_there_is_kept() {
    let namespace = |name: &str, label: usize| {
        let object = json!({"metadata": {"name": name, "labels": {"v": label.to_string()}}});
        Kept::from(Object::Namespace(serde_json::from_value(object).unwrap()))
    };
    let mut picture = Picture::new();
    let mut say = |changes| {
        let said = Said {
            changes,
            listed: true,
            problems: Vec::new(),
        };
        picture.take_in(Kind::Namespace, said);
        assert!(picture.changes.len() <= MOST + 2, "memory without bound");
    };
    let rounds = 3 * MOST;
    for n in 0..rounds {
        let gone = ObjectKey {
            kind: Kind::Namespace,
            namespace: String::new(),
            name: format!("gone{n}"),
        };
        let (keep, come) = (namespace("keep", n), namespace(&gone.name, n));
        say(vec![Change::Apply(keep), Change::Apply(come)]);
        say(vec![Change::Delete(gone)]);
    }
    picture.forget_what_is_overtaken();
    assert_eq!(
        picture.changes,
        [Change::Apply(namespace("keep", rounds - 1))]
    );
}
