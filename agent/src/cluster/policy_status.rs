//! Says in the status of each ClusterNetworkPolicy what of it is refused or not enforced.

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use tokio::time::timeout;
use weir_policy::Condition as Wanted;

use super::{Backoff, Shared, seen::SeenPolicy};
use crate::publish::{Error, PolicyStatus, Publisher};

/// Name of this duty in the log and among problems.
const DUTY: &str = "policy-status";
/// Longest message of a condition (`MaxLength`).
const MOST_MESSAGE: usize = 32_768;

/// Does the duty until it is dropped.
pub(super) async fn run(publisher: &Publisher, shared: &Shared) {
    let mut seen = shared.seen();
    let mut done = BTreeMap::new();
    let mut backoff = Backoff::default();
    loop {
        let policies = seen.borrow_and_update().policies.clone();
        let problems = round(publisher, &policies, &mut done, shared).await;
        let is_whole = problems.is_empty();
        shared.set_problems(DUTY, problems);
        let changed = if is_whole {
            backoff = Backoff::default();
            seen.changed().await
        } else {
            let pause = backoff.next();
            timeout(pause, seen.changed()).await.unwrap_or(Ok(()))
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Writes what is not `done` yet. Returns what is wrong; one policy does not stop the others.
async fn round(
    publisher: &Publisher,
    policies: &BTreeMap<String, SeenPolicy>,
    done: &mut BTreeMap<String, SeenPolicy>,
    shared: &Shared,
) -> Vec<String> {
    done.retain(|name, _| policies.contains_key(name));
    let mut problems = Vec::new();
    for (name, policy) in policies {
        if done.get(name) == Some(policy) {
            continue;
        }
        match write(publisher, name, policy, shared).await {
            Ok(()) => drop(done.insert(name.clone(), policy.clone())),
            Err(error) => problems.push(error.to_string()),
        }
    }
    problems
}

/// Writes what differs.
async fn write(
    publisher: &Publisher,
    name: &str,
    policy: &SeenPolicy,
    shared: &Shared,
) -> Result<(), Error> {
    let Some(status) = publisher.policy_status(name).await? else {
        return Ok(());
    };
    if status.uid != policy.uid || status.generation != policy.generation {
        // What was compiled is another version: that of this one comes.
        return Ok(());
    }
    let Some(conditions) = missing(policy, &status, Timestamp::now()) else {
        return Ok(());
    };
    match publisher
        .set_policy_conditions(name, &status, &conditions)
        .await
    {
        Err(error @ Error::NotFound { .. }) => tracing::debug!("{error}"),
        Err(error) => return Err(error),
        Ok(()) => shared.wrote("policy-status"),
    }
    Ok(())
}

/// The conditions to write, if those that are there say something else.
fn missing(policy: &SeenPolicy, status: &PolicyStatus, now: Timestamp) -> Option<Vec<Condition>> {
    let there = |wanted: &Wanted| {
        let kind = wanted.kind.name();
        status.conditions.iter().find(|c| c.type_ == kind)
    };
    let conditions: Vec<Condition> = policy
        .conditions
        .iter()
        .map(|wanted| condition(wanted, policy.generation, there(wanted), now))
        .collect();
    let differs = |c: &Condition| !status.conditions.contains(c);
    conditions.iter().any(differs).then_some(conditions)
}

/// A condition; the time of its last transition stays where there was none.
fn condition(
    wanted: &Wanted,
    generation: i64,
    there: Option<&Condition>,
    now: Timestamp,
) -> Condition {
    let status = if wanted.holds { "True" } else { "False" };
    let same = there.filter(|condition| condition.status == status);
    Condition {
        type_: wanted.kind.name().to_owned(),
        status: status.to_owned(),
        reason: wanted.reason.to_owned(),
        message: wanted.message.chars().take(MOST_MESSAGE).collect(),
        observed_generation: Some(generation),
        last_transition_time: same.map_or(Time(now), |c| c.last_transition_time.clone()),
    }
}

#[cfg(test)]
mod tests;
