//! The source against a fake API server.

mod failures;

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use tokio::time::timeout;
use weir_fake_api::{FakeApi, Fault, Verb};

use super::*;
use crate::kube_client::Access;

/// Longest wait for anything: pauses after failures are up to some seconds.
const LONG: Duration = Duration::from_secs(40);
const CRDS: &str = "customresourcedefinitions";
const CNPS: &str = "clusternetworkpolicies";

/// An API server as it is without the custom resource.
fn api() -> FakeApi {
    let api = FakeApi::start().unwrap();
    api.fail(CNPS, &[Verb::List, Verb::Watch], &Fault::NotServed);
    api
}

async fn connection(api: &FakeApi) -> Connection {
    let access = Access {
        kubeconfig: Some(api.kubeconfig()),
        api_server: None,
    };
    Connection::open(access).await.unwrap()
}

/// The source at work, and the picture that its batches give.
struct Run {
    batches: mpsc::Receiver<Batch>,
    /// `Kind namespace/name`.
    held: BTreeSet<String>,
    problems: Vec<String>,
    complete: bool,
    /// Every change of objects, as `+` and `-`.
    log: Vec<String>,
    received: usize,
    questions: mpsc::Sender<Question>,
}

impl Run {
    async fn start(api: &FakeApi) -> Self {
        Self::within(api, Limits::default()).await
    }

    async fn within(api: &FakeApi, limits: Limits) -> Self {
        let (out, batches) = mpsc::channel(1);
        let (questions, asked) = mpsc::channel(8);
        tokio::spawn(run_within(limits, connection(api).await, asked, out));
        Self {
            questions,
            batches,
            held: BTreeSet::new(),
            problems: Vec::new(),
            complete: false,
            log: Vec::new(),
            received: 0,
        }
    }

    /// Started, and with the first complete batch.
    async fn synced(api: &FakeApi) -> Self {
        Self::synced_within(api, Limits::default()).await
    }

    async fn synced_within(api: &FakeApi, limits: Limits) -> Self {
        let mut run = Self::within(api, limits).await;
        run.until("the first picture", |run| run.complete).await;
        run.log.clear();
        run
    }

    async fn next(&mut self) {
        let batch = self.batches.recv().await.expect("the source ended");
        self.received += 1;
        self.problems = batch.problems;
        self.complete |= batch.stage == Stage::Complete;
        for change in batch.changes {
            assert!(self.complete, "a change before everything is listed");
            match change {
                Change::Apply(object) => {
                    let key = object.key().to_string();
                    self.log.push(format!("+{key}"));
                    self.held.insert(key);
                }
                Change::Delete(key) => {
                    self.log.push(format!("-{key}"));
                    self.held.remove(&key.to_string());
                }
            }
        }
    }

    async fn until(&mut self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !is(self) {
                self.next().await;
            }
        };
        if timeout(LONG, wait).await.is_err() {
            panic!(
                "waited for {what}: {:?} {:?} {:?}",
                self.held, self.problems, self.log
            );
        }
    }

    async fn until_problem(&mut self, parts: &[&str]) {
        self.until(&parts.join(" … "), |run| {
            let has_all = |p: &String| parts.iter().all(|part| p.contains(part));
            run.problems.iter().any(has_all)
        })
        .await;
    }

    async fn until_well(&mut self) {
        self.until("no problem", |run| run.problems.is_empty())
            .await;
    }
}

fn named(namespace: &str, name: &str) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}})
}

fn pod(name: &str) -> Value {
    named("shop", name)
}

#[tokio::test]
async fn the_first_batch_has_all_kinds() {
    let api = FakeApi::start().unwrap();
    api.put("namespaces", json!({"metadata": {"name": "shop"}}));
    api.put("nodes", json!({"metadata": {"name": "n1"}}));
    api.put("pods", pod("web"));
    api.put("services", named("shop", "web"));
    api.put(
        "endpointslices",
        json!({"metadata": {"namespace": "shop", "name": "web-1"},
        "addressType": "IPv4", "endpoints": []}),
    );
    api.put("networkpolicies", named("shop", "lock"));
    api.put(CNPS, json!({"metadata": {"name": "admin"}}));
    let mut run = Run::start(&api).await;
    run.next().await;
    assert!(run.complete && run.problems.is_empty());
    let held: Vec<&str> = run.held.iter().map(String::as_str).collect();
    assert_eq!(
        held,
        [
            "ClusterNetworkPolicy admin",
            "EndpointSlice shop/web-1",
            "Namespace shop",
            "NetworkPolicy shop/lock",
            "Node n1",
            "Pod shop/web",
            "Service shop/web",
        ]
    );
}

#[tokio::test]
async fn a_list_of_many_pages_is_one_picture() {
    let api = api();
    for n in 0..1201 {
        api.put("pods", pod(&format!("p{n}")));
    }
    let run = Run::synced(&api).await;
    assert_eq!(run.held.len(), 1201);
    assert_eq!(api.requests("pods", Verb::List), 3);
}

#[tokio::test]
async fn changes_follow_and_those_that_come_together_are_one_batch() {
    let api = api();
    api.put("pods", pod("a"));
    let mut run = Run::synced(&api).await;
    api.delete("pods", "shop", "a");
    run.until("the deletion", |run| run.held.is_empty()).await;
    // While nobody takes a batch, changes are gathered.
    let before = run.received;
    for n in 0..500 {
        api.put("pods", pod(&format!("p{n}")));
        api.put("services", named("shop", &format!("s{n}")));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    run.until("all", |run| run.held.len() == 1000).await;
    assert!(
        run.received - before <= 10,
        "{} batches",
        run.received - before
    );
}

#[tokio::test]
async fn a_relist_deletes_exactly_what_is_gone() {
    let api = api();
    for name in ["a", "b", "c"] {
        api.put("pods", pod(name));
    }
    let mut run = Run::synced(&api).await;
    api.hold_watches("pods", true);
    api.delete("pods", "shop", "b");
    api.put("pods", pod("d"));
    api.expire();
    api.hold_watches("pods", false);
    run.until("the relist", |run| run.log.len() == 2).await;
    assert_eq!(run.log, ["+Pod shop/d", "-Pod shop/b"]);
    // And it goes on from there.
    api.put("pods", pod("e"));
    run.until("what follows", |run| run.log.len() == 3).await;
    assert_eq!(run.problems, [""; 0]);
}

#[tokio::test]
async fn watches_that_end_go_on_where_they_were_without_a_list() {
    let api = api();
    api.put("pods", pod("a"));
    let mut run = Run::synced(&api).await;
    api.bookmark();
    for n in 0..3 {
        api.put("pods", pod(&format!("p{n}")));
        run.until("the pod", |run| run.held.len() == n + 2).await;
        api.end_watches();
    }
    api.put("pods", pod("last"));
    run.until("the last", |run| run.held.contains("Pod shop/last"))
        .await;
    assert_eq!(api.requests("pods", Verb::List), 1);
}

#[tokio::test]
async fn an_api_server_that_restarts_takes_nothing_away_and_is_a_problem_until_it_answers() {
    let mut api = api();
    api.put("pods", pod("a"));
    let mut run = Run::synced(&api).await;
    api.stop();
    run.until_problem(&["watch pods", "since 20"]).await;
    run.until_problem(&["watch networkpolicies"]).await;
    api.start_again().unwrap();
    run.until_well().await;
    assert_eq!(run.log, [""; 0]);
    api.put("pods", pod("b"));
    run.until("what follows", |run| run.held.len() == 2).await;
}

#[tokio::test]
async fn an_api_server_that_is_not_there_yet_is_waited_for() {
    let mut api = api();
    api.put("pods", pod("a"));
    api.stop();
    let mut run = Run::start(&api).await;
    run.until_problem(&["list pods"]).await;
    run.until_problem(&["no complete list yet of", "Pod", "nothing is changed"])
        .await;
    assert!(!run.complete);
    api.start_again().unwrap();
    run.until("the picture", |run| run.complete).await;
    run.until_well().await;
    assert_eq!(run.held.len(), 1);
}

#[tokio::test]
async fn a_kind_that_is_forbidden_is_named_with_the_remedy_and_stops_the_first_batch_only() {
    let api = api();
    api.fail("services", &[Verb::List, Verb::Watch], &Fault::Status(403));
    let mut run = Run::start(&api).await;
    run.until_problem(&["list services: forbidden", "ClusterRole"])
        .await;
    run.until("the one missing", |run| {
        run.problems
            .iter()
            .any(|p| p.contains("no complete list yet of Service:"))
    })
    .await;
    assert!(!run.complete);
    api.heal("services");
    run.until("the picture", |run| run.complete).await;
    // From then on the others go on.
    api.fail("services", &[Verb::List, Verb::Watch], &Fault::Status(403));
    run.until_problem(&["watch services: forbidden"]).await;
    api.put("pods", pod("a"));
    run.until("the pod", |run| run.held.contains("Pod shop/a"))
        .await;
    api.heal("services");
    run.until_well().await;
}

#[tokio::test]
async fn a_rotated_token_is_read_anew() {
    let api = api();
    api.put("pods", pod("a"));
    let mut run = Run::synced(&api).await;
    api.accept_token(Some("second"));
    run.until_problem(&["pods", "does not accept the agent's token"])
        .await;
    api.give_token("second").unwrap();
    run.until_well().await;
    assert_eq!(run.log, [""; 0]);
}

#[tokio::test]
async fn what_does_not_parse_is_named_and_keeps_its_last_good_version() {
    let api = api();
    api.put("networkpolicies", named("shop", "lock"));
    api.put("networkpolicies", named("shop", "other"));
    let mut run = Run::synced(&api).await;
    let mut broken = named("shop", "lock");
    broken["spec"] = json!({"podSelector": {}, "policyTypes": "Ingress"});
    api.put("networkpolicies", broken);
    run.until_problem(&[
        "NetworkPolicy shop/lock: spec.policyTypes",
        "stays in force",
    ])
    .await;
    // Neither the watch nor a list stops at it.
    api.put("networkpolicies", named("shop", "third"));
    run.until("the third", |run| run.held.len() == 3).await;
    api.expire();
    api.put("networkpolicies", named("shop", "fourth"));
    run.until("the fourth", |run| run.held.len() == 4).await;
    assert!(
        !run.log.iter().any(|change| change.starts_with('-')),
        "{:?}",
        run.log
    );
    api.put("networkpolicies", named("shop", "lock"));
    run.until_well().await;
}

#[tokio::test]
async fn without_the_custom_resource_the_picture_is_complete_and_it_is_watched_once_it_appears() {
    let api = api();
    let mut run = Run::synced(&api).await;
    assert_eq!(run.problems, [""; 0]);
    api.put(CRDS, json!({"metadata": {"name": "others.example.org"}}));
    api.put(
        CRDS,
        json!({"metadata": {"name": "clusternetworkpolicies.policy.networking.k8s.io"}}),
    );
    api.put(CNPS, json!({"metadata": {"name": "admin"}}));
    // It is served some time after its definition was made.
    tokio::time::sleep(Duration::from_millis(300)).await;
    api.heal(CNPS);
    let seen = run.until("the policy", |run| {
        run.held.contains("ClusterNetworkPolicy admin")
    });
    timeout(Duration::from_secs(10), seen).await.unwrap();
    // Gone again, with its definition.
    api.delete(CRDS, "", "clusternetworkpolicies.policy.networking.k8s.io");
    api.fail(CNPS, &[Verb::List, Verb::Watch], &Fault::NotServed);
    run.until("its end", |run| run.held.is_empty()).await;
    assert_eq!(run.problems, [""; 0]);
}

#[tokio::test]
async fn the_source_ends_with_its_reader() {
    let api = api();
    let (out, batches) = mpsc::channel(1);
    let task = tokio::spawn(run(connection(&api).await, mpsc::channel(1).1, out));
    drop(batches);
    timeout(LONG, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_pod_that_the_watch_is_late_with_is_found_by_asking_and_survives_an_older_list() {
    let api = api();
    let mut run = Run::synced(&api).await;
    api.hold_watches("pods", true);
    api.put("pods", pod("web"));
    let question = |name: &str| Question {
        namespace: "shop".into(),
        name: name.into(),
    };
    run.questions.send(question("nowhere")).await.unwrap();
    run.questions.send(question("web")).await.unwrap();
    run.until("the answer", |run| run.held.contains("Pod shop/web"))
        .await;
    assert_eq!(run.log, ["+Pod shop/web"]);
    // What the watch says later is no news, and its deletion is one.
    api.hold_watches("pods", false);
    api.delete("pods", "shop", "web");
    run.until("the deletion", |run| run.log.len() == 2).await;
    assert_eq!(run.log, ["+Pod shop/web", "-Pod shop/web"]);
    // Asked for what is gone already: it does not come back.
    run.questions.send(question("web")).await.unwrap();
    api.put("pods", pod("next"));
    run.until("what follows", |run| run.log.len() == 3).await;
    assert_eq!(run.log[2], "+Pod shop/next");
}
