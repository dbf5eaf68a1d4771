//! Duties for the whole cluster, done by the agent that holds the Lease: pod CIDRs of Nodes and
//! conditions of ClusterNetworkPolicies. And two that each agent has for its own Node: the condition
//! NetworkUnavailable, and its WireGuard key. They know what the source has delivered; all writing is [`crate::publish`]'s.
//!
//! The Lease only keeps agents from doing the same work twice. That two who both take themselves for
//! the holder do no harm follows from how each duty writes.

mod ballot;
mod duty;
mod election;
#[cfg(test)]
mod fake_api;
mod node_cidrs;
mod node_condition;
mod node_key;
mod policy_status;
mod seen;
mod shared;

use std::{fs, time::Duration};

use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

pub use seen::Seen;
pub use shared::Shared;

use crate::{compile::node_cidr::Pools, kube_client::Connection, publish::Publisher};
use ballot::{Ballot, Timing};

/// Where the namespace of a pod stands.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// The namespace where there is no such file.
const NAMESPACE: &str = "weir-system";
/// Longest wait for the Lease to be given back at a stop.
const FAREWELL: Duration = Duration::from_secs(2);
/// First pause after a failed request; doubles up to [`MOST_RETRY`].
const RETRY: Duration = Duration::from_secs(1);
/// Longest pause after a failed request.
const MOST_RETRY: Duration = Duration::from_secs(30);

/// What the duties depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Name of this node's Node object.
    pub node_name: String,
    /// What Nodes without pod CIDRs are given; empty: nothing.
    pub pools: Pools,
    /// `namespace` as configured.
    pub namespace: Option<String>,
}

impl Options {
    fn namespace(&self) -> String {
        let own = || fs::read_to_string(NAMESPACE_FILE).ok();
        let own = self.namespace.clone().or_else(own);
        let own = own.map(|text| text.trim().to_owned());
        own.filter(|name| !name.is_empty())
            .unwrap_or_else(|| NAMESPACE.to_owned())
    }
}

/// The duties while they are done.
pub struct Duties {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Duties {
    /// Begins.
    pub fn start(connection: Connection, options: Options, shared: Shared) -> Self {
        let publisher = Publisher::new(connection, options.namespace());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let own = node_condition::run(&publisher, &options.node_name, &shared);
            let key = node_key::run(&publisher, &options.node_name, &shared);
            let of_all = of_the_cluster(&publisher, &options, &shared, stopped);
            tokio::select! {
                () = own => {}
                () = key => {}
                () = of_all => {}
            }
        });
        Self { stop, task }
    }

    /// Ends, and gives the Lease back, so that another agent goes on at once.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let abort = self.task.abort_handle();
        if timeout(FAREWELL, self.task).await.is_err() {
            // The Lease will run out by itself.
            abort.abort();
        }
    }
}

/// Until told to stop.
async fn of_the_cluster(
    publisher: &Publisher,
    options: &Options,
    shared: &Shared,
    stopped: oneshot::Receiver<()>,
) {
    let ballot = Ballot::new(&options.node_name, Timing::default());
    let duties = || async {
        let cidrs = node_cidrs::run(publisher, &options.pools, shared);
        let policies = policy_status::run(publisher, shared);
        tokio::join!(cidrs, policies);
    };
    election::run(publisher, ballot, shared, duties, stopped).await;
}

/// Pauses after failures, longer each time.
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(RETRY)
    }
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(MOST_RETRY);
        pause
    }
}
