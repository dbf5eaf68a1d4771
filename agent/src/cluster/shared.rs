//! What source, engine and duties tell each other.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use weir_net::PublicKey;

use super::{Seen, node_key::NodeKey};
use crate::source::Batch;

/// What source, engine and duties tell each other.
#[derive(Clone, Debug)]
pub struct Shared {
    node_name: Arc<str>,
    seen: watch::Sender<Seen>,
    ready: watch::Sender<bool>,
    key: watch::Sender<NodeKey>,
    told: Arc<Mutex<Told>>,
}

/// What the duties have to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Whether this agent holds the Lease.
    pub is_holder: bool,
    /// How often it has become the holder.
    pub terms: u64,
    /// Nodes that have an entry in the record, as the holder knows it.
    pub recorded: usize,
    /// Writes to the API that were done, by what was written.
    pub writes: BTreeMap<&'static str, u64>,
    /// What is wrong, by duty.
    problems: BTreeMap<&'static str, Vec<String>>,
}

impl Shared {
    /// Of an agent on that node.
    pub fn new(node_name: &str) -> Self {
        Self {
            node_name: node_name.into(),
            seen: watch::Sender::default(),
            ready: watch::Sender::default(),
            key: watch::Sender::default(),
            told: Arc::default(),
        }
    }

    /// Takes in what the source delivers.
    pub fn take(&self, batch: &Batch) {
        let take = |seen: &mut Seen| seen.take(&self.node_name, batch);
        self.seen.send_if_modified(take);
    }

    /// Says whether pods can be added on this node.
    pub fn set_ready(&self, ready: bool) {
        self.ready.send_if_modified(|now| {
            let changed = *now != ready;
            *now = ready;
            changed
        });
    }

    /// Says by which key other nodes are to know this one; `None`: by none, as nothing is encrypted.
    pub fn set_wireguard_key(&self, key: Option<PublicKey>) {
        let key = NodeKey::of(key.map(|key| key.to_string()));
        self.key.send_if_modified(|now| {
            let changed = *now != key;
            *now = key;
            changed
        });
    }

    /// What is wrong, of all duties.
    pub fn problems(&self) -> Vec<String> {
        self.lock().problems.values().flatten().cloned().collect()
    }

    /// For metrics.
    pub fn told(&self) -> Told {
        self.lock().clone()
    }

    /// What the source has delivered, and when more comes.
    pub(super) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// By which key other nodes are to know this one.
    pub(super) fn key(&self) -> watch::Receiver<NodeKey> {
        self.key.subscribe()
    }

    /// Whether pods can be added on this node.
    pub(super) fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Replaces what is wrong with a duty, and logs what is new.
    pub(super) fn set_problems(&self, duty: &'static str, problems: Vec<String>) {
        let mut told = self.lock();
        let known = told.problems.insert(duty, problems.clone());
        let known = known.unwrap_or_default();
        for problem in problems.iter().filter(|problem| !known.contains(problem)) {
            tracing::warn!(duty, "{problem}");
        }
        for problem in known.iter().filter(|problem| !problems.contains(problem)) {
            tracing::info!(duty, "no longer: {problem}");
        }
    }

    /// Notes that this agent has become the holder, or is it no longer.
    pub(super) fn set_holder(&self, is_holder: bool) {
        let mut told = self.lock();
        told.terms += u64::from(is_holder && !told.is_holder);
        told.is_holder = is_holder;
        if !is_holder {
            told.recorded = 0;
        }
    }

    /// Notes how many Nodes are in the record.
    pub(super) fn set_recorded(&self, nodes: usize) {
        self.lock().recorded = nodes;
    }

    /// Counts a write.
    pub(super) fn wrote(&self, what: &'static str) {
        *self.lock().writes.entry(what).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // Each value is whole whatever happened to who held it.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
