//! Takes part in the election, and does the duties as long as the Lease is held.

use std::{
    future::Future,
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout_at},
};

use super::{
    Shared,
    ballot::{Ballot, Whose},
};
use crate::publish::{Error, Publisher};

/// Name of this part in the log and among problems.
const DUTY: &str = "lease";

/// Runs `duties` whenever the Lease is held; they are dropped at once when it is lost. Ends when told
/// to, having given the Lease back.
pub(super) async fn run<F: Future<Output = ()>>(
    publisher: &Publisher,
    mut ballot: Ballot,
    shared: &Shared,
    mut duties: impl FnMut() -> F,
    mut stopped: oneshot::Receiver<()>,
) {
    loop {
        let since = tokio::select! {
            since = acquire(publisher, &mut ballot, shared) => since,
            _ = &mut stopped => return,
        };
        tracing::info!("this agent holds {}", publisher.lease_name());
        shared.set_holder(true);
        let is_over = tokio::select! {
            () = duties() => true,
            () = keep(publisher, &mut ballot, since) => false,
            _ = &mut stopped => true,
        };
        shared.set_holder(false);
        if is_over {
            if let Err(e) = give_back(publisher, &ballot).await {
                tracing::info!("not given back, it will run out: {e}");
            }
            return;
        }
        tracing::warn!("{} is lost: another agent goes on", publisher.lease_name());
    }
}

/// Until the Lease is this agent's; since when it is valid, at the latest.
async fn acquire(publisher: &Publisher, ballot: &mut Ballot, shared: &Shared) -> Instant {
    loop {
        let asked = Instant::now();
        let tried = attempt(publisher, ballot).await;
        let nodes = shared.seen().borrow().nodes.len();
        let follow = jitter(ballot.timing.follow(nodes));
        let (pause, problems) = match tried {
            Ok(Whose::Mine) => {
                shared.set_problems(DUTY, Vec::new());
                return asked;
            }
            // When it runs out, at the latest.
            Ok(Whose::Theirs(until)) => {
                let (lease, holder) = (publisher.lease_name(), ballot.holder());
                tracing::debug!(holder, "{lease} is another's");
                let left = until.saturating_duration_since(Instant::now());
                (follow.min(left), Vec::new())
            }
            Ok(Whose::Nobodys) | Err(Error::Conflict { .. }) => {
                (jitter(ballot.timing.retry), Vec::new())
            }
            Err(e) => (follow, vec![e.to_string()]),
        };
        shared.set_problems(DUTY, problems);
        sleep(pause).await;
    }
}

/// Renews until the Lease is another's, or may soon be.
async fn keep(publisher: &Publisher, ballot: &mut Ballot, mut renewed: Instant) {
    loop {
        sleep(ballot.timing.retry).await;
        let asked = Instant::now();
        let deadline = renewed + ballot.timing.deadline;
        match timeout_at(deadline.into(), attempt(publisher, ballot)).await {
            // It is valid from before the request on.
            Ok(Ok(Whose::Mine)) => renewed = asked,
            Ok(Ok(Whose::Theirs(_) | Whose::Nobodys)) => return,
            Ok(Err(e)) => tracing::debug!("renewing: {e}"),
            Err(_) => return,
        }
        if Instant::now() >= deadline && renewed != asked {
            return;
        }
    }
}

/// Looks at the Lease, and takes or renews it if that is allowed.
async fn attempt(publisher: &Publisher, ballot: &mut Ballot) -> Result<Whose, Error> {
    let mut lease = publisher.lease().await?.unwrap_or_else(Lease::default);
    let now = Instant::now();
    let spec = lease.spec.take().unwrap_or_default();
    ballot.observe(&spec, now);
    let whose = ballot.whose(now);
    if let Whose::Theirs(_) = whose {
        return Ok(whose);
    }
    let claim = ballot.claim(&spec, Timestamp::now());
    lease.spec = Some(claim);
    lease.metadata.managed_fields = None;
    let written = publisher.put_lease(lease).await?;
    ballot.observe(&written.spec.unwrap_or_default(), Instant::now());
    Ok(Whose::Mine)
}

async fn give_back(publisher: &Publisher, ballot: &Ballot) -> Result<(), Error> {
    let Some(mut lease) = publisher.lease().await? else {
        return Ok(());
    };
    let spec = lease.spec.take().unwrap_or_default();
    let mut now = ballot.clone();
    now.observe(&spec, Instant::now());
    if now.whose(Instant::now()) == Whose::Mine {
        lease.spec = Some(ballot.release(&spec, Timestamp::now()));
        lease.metadata.managed_fields = None;
        publisher.put_lease(lease).await?;
    }
    Ok(())
}

/// Up to a fifth more, so that agents started together do not ask together.
fn jitter(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 1000;
    pause + pause * (random as u32) / 5000
}

#[cfg(test)]
mod tests;
