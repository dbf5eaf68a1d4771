//! The live change: which policy to touch so that something shows.

use anyhow::Result;
use serde_json::{Value, json};
use weir_oracle::Cluster;

use super::cells::{self, Cell, Party};
use super::plan::{self, Plan};

/// A change of one NetworkPolicy.
#[derive(Clone, Debug)]
pub struct Change {
    /// What is done, for people.
    pub text: String,
    /// The policy's namespace and name.
    pub policy: (String, String),
    /// The object to create; none to delete the policy.
    pub create: Option<Value>,
    /// What is expected of every cell afterwards.
    pub expected: Vec<Vec<(String, bool)>>,
    /// Indices of the cells that change.
    pub changes: Vec<usize>,
}

/// Chooses the policy whose deletion changes most cells, but not more than can be read; if none
/// changes any, a new policy that lets nothing into the namespace that answers most.
///
/// # Errors
/// When the oracle has no answer to a question.
pub fn choose(
    plan: &Plan,
    addresses: &[Vec<std::net::IpAddr>],
    cluster: &Cluster,
    cells: &[Cell],
) -> Result<Option<Change>> {
    let mut best: Option<Change> = None;
    for (index, policy) in cluster.policies.iter().enumerate() {
        let mut without = cluster.clone();
        without.policies.remove(index);
        let namespace = policy
            .metadata
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let name = policy.metadata.name.clone().unwrap_or_default();
        let text = format!("NetworkPolicy {namespace}/{name} is deleted");
        let change = Change {
            text,
            policy: (namespace, name),
            create: None,
            ..evaluate(plan, addresses, &without, cells)?
        };
        if rank(&change) > best.as_ref().map_or(0, rank) {
            best = Some(change);
        }
    }
    if best.is_some() {
        return Ok(best);
    }
    let Some(namespace) = busiest_namespace(plan, cells) else {
        return Ok(None);
    };
    let name = "weir-demo-nothing-in";
    let object = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    });
    let mut with = cluster.clone();
    with.policies.push(serde_json::from_value(object.clone())?);
    let change = Change {
        text: format!("NetworkPolicy {namespace}/{name} is created: nothing may come in"),
        policy: (namespace, name.to_owned()),
        create: Some(object),
        ..evaluate(plan, addresses, &with, cells)?
    };
    Ok((!change.changes.is_empty()).then_some(change))
}

/// Most cells that a change should change, so that a reader can follow it.
const READABLE: usize = 48;

/// More is better up to [`READABLE`]; beyond, the smaller change is better, and any is better than
/// none.
fn rank(change: &Change) -> usize {
    let count = change.changes.len();
    match count {
        0 => 0,
        1..=READABLE => usize::MAX / 2 + count,
        _ => usize::MAX / 2 - count,
    }
}

fn evaluate(
    plan: &Plan,
    addresses: &[Vec<std::net::IpAddr>],
    cluster: &Cluster,
    cells: &[Cell],
) -> Result<Change> {
    let expected = cells::expect_anew(plan, addresses, cluster)?;
    let changes = cells
        .iter()
        .zip(&expected)
        .enumerate()
        .filter(|(_, (cell, expected))| cell.backends != **expected)
        .map(|(index, _)| index)
        .collect();
    Ok(Change {
        text: String::new(),
        policy: (String::new(), String::new()),
        create: None,
        expected,
        changes,
    })
}

fn busiest_namespace(plan: &Plan, cells: &[Cell]) -> Option<String> {
    let mut counts: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for cell in cells.iter().filter(|cell| cell.some_allowed()) {
        if let Party::Pod(index) = cell.to {
            *counts
                .entry(plan::namespace(&plan.pods[index].object))
                .or_default() += 1;
        }
    }
    counts
        .into_iter()
        .max_by_key(|(_, count)| *count)
        .map(|(name, _)| name.to_owned())
}
