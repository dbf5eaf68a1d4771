use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::cluster::{
    ballot::Timing,
    fake_api::{FakeApi, LEASE},
};

/// The least that whole seconds of a Lease allow.
const QUICK: Timing = Timing {
    duration: Duration::from_secs(1),
    deadline: Duration::from_millis(600),
    retry: Duration::from_millis(100),
};

/// A candidate whose duty counts how many do theirs.
fn candidate(
    api: &FakeApi,
    name: &str,
    active: &'static AtomicUsize,
) -> (usize, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    struct Active(&'static AtomicUsize);
    impl Drop for Active {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let (number, publisher) = api.client();
    let ballot = Ballot::with_identity(name.to_owned(), QUICK);
    let shared = Shared::new(name);
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        let duties = || async {
            let before = active.fetch_add(1, Ordering::SeqCst);
            let _active = Active(active);
            assert_eq!(before, 0, "two do the duties at once");
            std::future::pending::<()>().await;
        };
        run(&publisher, ballot, &shared, duties, stopped).await;
    });
    (number, stop, task)
}

async fn held_by(api: &FakeApi, name: &str) {
    api.until(LEASE, |lease| lease["spec"]["holderIdentity"] == name)
        .await;
}

#[tokio::test]
async fn a_lease_given_back_at_a_stop_is_taken_before_it_would_run_out() {
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);
    let api = FakeApi::default();
    let (_, stop_a, a) = candidate(&api, "a", &ACTIVE);
    held_by(&api, "a").await;
    let (_, stop_b, b) = candidate(&api, "b", &ACTIVE);
    let asked = Instant::now();
    stop_a.send(()).unwrap();
    a.await.unwrap();
    held_by(&api, "b").await;
    assert!(asked.elapsed() < QUICK.duration, "{:?}", asked.elapsed());
    stop_b.send(()).unwrap();
    b.await.unwrap();
    assert_eq!(api.get(LEASE)["spec"]["holderIdentity"], "");
    assert_eq!(ACTIVE.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_holder_that_is_cut_off_stops_before_another_takes_the_lease() {
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);
    let api = FakeApi::default();
    let (number, _stop_a, a) = candidate(&api, "a", &ACTIVE);
    held_by(&api, "a").await;
    let (_, stop_b, b) = candidate(&api, "b", &ACTIVE);
    api.cut_off(number);
    held_by(&api, "b").await;
    assert_eq!(api.get(LEASE)["spec"]["leaseTransitions"], 2);
    stop_b.send(()).unwrap();
    b.await.unwrap();
    // A goes on trying, and has nothing left to do.
    assert!(!a.is_finished());
    assert_eq!(ACTIVE.load(Ordering::SeqCst), 0);
    a.abort();
}
