//! Gives Nodes their pod CIDRs. What to give is [`crate::compile::node_cidr`]'s to say, and why two
//! who do this at once do no harm.

use std::collections::BTreeSet;

use tokio::time::timeout;

use super::{Backoff, Seen, Shared};
use crate::{
    compile::node_cidr::{self, Assignment, Nodes, Pools},
    publish::{Error, Publisher, Stored},
};

/// Name of this duty in the log and among problems.
const DUTY: &str = "node-cidrs";

/// What one term of office remembers.
#[derive(Default)]
pub(super) struct Term {
    /// As last read or written.
    stored: Option<Stored>,
    /// UIDs that no Node has any more.
    gone: BTreeSet<String>,
    /// UIDs of Nodes that have been given theirs.
    given: BTreeSet<String>,
}

/// Does the duty until it is dropped.
pub(super) async fn run(publisher: &Publisher, pools: &Pools, shared: &Shared) {
    if pools.is_empty() {
        return std::future::pending().await;
    }
    let mut seen = shared.seen();
    let mut term = Term::default();
    let mut backoff = Backoff::default();
    loop {
        let nodes = synced_nodes(&seen.borrow_and_update());
        let problems = match nodes {
            Some(nodes) => term.round(publisher, pools, &nodes, shared).await,
            None => Ok(Vec::new()),
        };
        let changed = match problems {
            Ok(problems) => {
                shared.set_problems(DUTY, problems);
                backoff = Backoff::default();
                seen.changed().await
            }
            // Somebody else does the same: with what they have written, once more.
            Err(Error::Conflict { .. }) => Ok(()),
            Err(e) => {
                shared.set_problems(DUTY, vec![e.to_string()]);
                let pause = backoff.next();
                timeout(pause, seen.changed()).await.unwrap_or(Ok(()))
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

fn synced_nodes(seen: &Seen) -> Option<Nodes> {
    seen.synced.then(|| seen.nodes.clone())
}

impl Term {
    /// Brings record and Nodes up to date with the Nodes as the source has them. Returns what is wrong.
    ///
    /// # Errors
    /// A request failed: to be tried again, after a conflict at once.
    pub(super) async fn round(
        &mut self,
        publisher: &Publisher,
        pools: &Pools,
        nodes: &Nodes,
        shared: &Shared,
    ) -> Result<Vec<String>, Error> {
        let done = self.try_round(publisher, pools, nodes, shared).await;
        if done.is_err() {
            // What it was based on may be old, or the answer to a write was lost.
            self.stored = None;
        }
        done
    }

    async fn try_round(
        &mut self,
        publisher: &Publisher,
        pools: &Pools,
        nodes: &Nodes,
        shared: &Shared,
    ) -> Result<Vec<String>, Error> {
        let mut now = None;
        let stored = match self.stored.take() {
            Some(stored) => stored,
            None => {
                let stored = publisher.node_cidrs().await?;
                // What Nodes have that the source does not know of yet, or that nobody has recorded,
                // must be in the record before anything is given.
                now = Some(publisher.nodes().await?);
                stored
            }
        };
        let nodes = now.as_ref().unwrap_or(nodes);
        for (name, uid) in node_cidr::maybe_gone(&stored.record, nodes) {
            if !self.gone.contains(&uid) {
                let node = publisher.node(&name).await?;
                if node.is_none_or(|node| node.uid != uid) {
                    self.gone.insert(uid);
                }
            }
        }
        let step = node_cidr::step(pools, &stored.record, nodes, &self.gone);
        let stored = if step.record == stored.record {
            stored
        } else {
            let stored = publisher.put_node_cidrs(&stored, &step.record).await?;
            shared.wrote("node-cidrs");
            stored
        };
        // Their entries are gone now.
        self.gone.clear();
        let waits = |uid: &String| nodes.values().any(|n| n.uid == *uid && n.cidrs.is_empty());
        self.given.retain(waits);
        shared.set_recorded(stored.record.nodes.len());
        self.stored = Some(stored);
        let mut problems = step.problems;
        for assignment in &step.assign {
            problems.extend(self.give(publisher, assignment, shared).await?);
        }
        Ok(problems)
    }

    /// Patches a Node. Returns what is wrong with it.
    async fn give(
        &mut self,
        publisher: &Publisher,
        assignment: &Assignment,
        shared: &Shared,
    ) -> Result<Option<String>, Error> {
        let Assignment { name, uid, cidrs } = assignment;
        if self.given.contains(uid) {
            return Ok(None);
        }
        match publisher.set_pod_cidrs(assignment).await {
            Ok(()) => {
                let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
                tracing::info!(node = name, cidrs = cidrs.join(","), "pod CIDRs given");
                shared.wrote("pod-cidrs");
                self.given.insert(uid.clone());
                Ok(None)
            }
            // The Node is gone, and its news on the way.
            Err(error) if error.is_stale() => {
                tracing::debug!("{error}");
                Ok(None)
            }
            // Another Node of that name, or one that has got others meanwhile: news is on the way, too.
            Err(error @ Error::Invalid { .. }) => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
