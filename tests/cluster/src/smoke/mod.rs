//! Whether a fresh cluster works at all: `weir-cluster smoke`. A minute, for every change; the
//! scenarios and upstream's suites are the thorough ones.

use anyhow::Result;

use crate::api::Cluster;
use crate::count::Count;
use crate::e2e::stop_on_signal;
use crate::kit::World;
use crate::kit::checks::Checks;
use crate::scenario;

/// Runs the checks; each prints its line.
///
/// # Errors
/// There is no cluster. A check that fails is none: it is in the count.
pub async fn run(cluster: &Cluster) -> Result<Count> {
    let mut checks = Checks::new(stop_on_signal()?);
    let nodes = World::with(cluster, "smoke-nodes", |world| async move {
        world.nodes_ready(true).await
    });
    checks.check("all nodes are ready", nodes).await;
    let dns = World::with(cluster, "smoke-dns", scenario::dns::names_resolve);
    checks
        .check("names of Services, pods and the API server resolve", dns)
        .await;
    for (name, kind) in scenario::services::KINDS {
        let held = World::with(cluster, "smoke-service", |world| kind.run(world));
        checks.check(name, held).await;
    }
    let policy = World::with(
        cluster,
        "smoke-policy",
        scenario::policies::denied_and_allowed,
    );
    checks
        .check("a NetworkPolicy denies one pod and allows another", policy)
        .await;
    let roll = World::with(cluster, "smoke-roll", scenario::agents::rolling_restart);
    checks
        .check("a rolling restart of the agents fails no connection", roll)
        .await;
    Ok(checks.count())
}
