//! What a cluster goes through: `weir-cluster test NAME…`. Each scenario is by itself in a namespace
//! of its own, and leaves the cluster as it found it.

pub mod agents;
pub mod dns;
mod outage;
pub mod pods;
pub mod policies;
mod rulesets;
pub mod services;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::api::Cluster;
use crate::args::{Dirs, Which};
use crate::count::Count;
use crate::e2e::stop_on_signal;
use crate::kit::World;
use crate::kit::checks::Checks;

/// Arguments of `test`.
#[derive(Args, Clone, Debug)]
pub struct TestArgs {
    /// Which cluster
    #[command(flatten)]
    pub which: Which,
    /// Which scenarios
    #[arg(value_enum, required_unless_present = "all")]
    names: Vec<Scenario>,
    /// All of them
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// How long the API server is away, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    outage: u32,
}

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Pods are made and deleted: the agents list exactly them, and they reach each other
    PodLifecycle,
    /// No agents: the nodes are not ready (CNI STATUS), connections go on; then they are ready again
    Status,
    /// Names through CoreDNS
    Dns,
    /// A Service of each kind
    Services,
    /// NetworkPolicies that let one in and keep another out
    Policies,
    /// All agents are replaced while connections are made
    RollingRestart,
    /// An agent's pod is deleted while connections are made
    AgentDeleted,
    /// The agents' image is replaced, and back, while connections are made
    Upgrade,
    /// A node is drained while connections are made
    Drain,
    /// The API server is away for minutes while connections are made and containers restart
    ApiOutage,
    /// The rulesets of nft and iptables on Weir's nodes equal those of a node without any CNI
    Rulesets,
}

/// Runs scenarios; each check prints its line.
///
/// # Errors
/// There is no cluster. A scenario that fails is none: it is in the count.
pub async fn run(args: &TestArgs) -> Result<Count> {
    let cluster = Cluster::open(&Dirs::of(&args.which)?.state)?;
    let mut checks = Checks::new(stop_on_signal()?);
    let names = if args.all {
        Scenario::value_variants().to_vec()
    } else {
        args.names.clone()
    };
    for scenario in names {
        scenario.run(&cluster, args, &mut checks).await;
    }
    Ok(checks.count())
}

impl Scenario {
    async fn run(self, cluster: &Cluster, args: &TestArgs, checks: &mut Checks) {
        match self {
            Self::PodLifecycle => {
                let test = World::with(cluster, "pods", pods::lifecycle);
                checks
                    .check(
                        "agents list exactly the pods of their nodes, which reach each other",
                        test,
                    )
                    .await;
            }
            Self::Status => {
                let test = World::with(cluster, "status", agents::status);
                checks
                    .check(
                        "nodes without an agent are not ready until it is back",
                        test,
                    )
                    .await;
            }
            Self::Dns => {
                let test = World::with(cluster, "dns", dns::names_resolve);
                checks
                    .check("names of Services, pods and the API server resolve", test)
                    .await;
            }
            Self::Services => {
                for (name, kind) in services::KINDS {
                    let test = World::with(cluster, "service", |world| kind.run(world));
                    checks.check(name, test).await;
                }
            }
            Self::Policies => {
                let test = World::with(cluster, "ingress", policies::denied_and_allowed);
                checks
                    .check("a NetworkPolicy denies one pod and allows another", test)
                    .await;
                let test = World::with(cluster, "egress", policies::egress_to_dns_only);
                checks
                    .check("a pod that may ask DNS only reaches nothing else", test)
                    .await;
            }
            Self::RollingRestart => {
                let test = World::with(cluster, "roll", agents::rolling_restart);
                checks
                    .check("a rolling restart of the agents fails no connection", test)
                    .await;
            }
            Self::AgentDeleted => {
                let test = World::with(cluster, "deleted", agents::agent_deleted);
                checks
                    .check("an agent that is deleted fails no connection", test)
                    .await;
            }
            Self::Upgrade => {
                let test = World::with(cluster, "upgrade", agents::upgrade);
                checks
                    .check("another image and back fail no connection", test)
                    .await;
            }
            Self::Drain => {
                let test = World::with(cluster, "drain", pods::drain);
                checks
                    .check("a node that is drained fails no connection", test)
                    .await;
            }
            Self::ApiOutage => {
                let test = World::with(cluster, "outage", |world| {
                    outage::outage(world, args.outage)
                });
                checks.check("an API server that is away fails no connection and keeps no container down", test).await;
            }
            Self::Rulesets => {
                let test = rulesets::as_without_cni(cluster);
                checks
                    .check("nft and iptables on each node are as without any CNI", test)
                    .await;
            }
        }
    }
}
