//! What a cluster goes through: `weir-cluster scenario NAME…`. Each scenario is by itself in a namespace
//! of its own, and leaves the cluster as it found it.

pub mod agents;
mod check;
pub mod dns;
mod node_view;
mod outage;
pub mod pods;
pub mod policies;
mod rulesets;
pub mod services;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::absent::Away;
use crate::api::Cluster;
use crate::args::{Dirs, Which};
use crate::count::Count;
use crate::e2e::stop_on_signal;
use crate::kit::World;
use crate::kit::checks::{Checks, Held};

/// Arguments of `scenario`.
#[derive(Args, Clone, Debug)]
pub struct ScenarioArgs {
    /// Which cluster
    #[command(flatten)]
    pub which: Which,
    /// Which scenarios
    #[arg(value_enum, required_unless_present = "all")]
    names: Vec<Scenario>,
    /// All of them
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// `api-outage`: how long the API server is away each time, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    outage: u32,
    /// `api-outage`: how it is away, one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["hangs", "refuses"])]
    away: Vec<Away>,
}

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Pods are made and deleted: the agents list exactly them, and they reach each other
    PodLifecycle,
    /// CNI CHECK, which containerd never calls, of a sound pod and of one that has lost its address
    Check,
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
    /// The API server hangs, then refuses, while connections are made and kept, and containers restart
    ApiOutage,
    /// The rulesets of nft and iptables on Weir's nodes equal those of a node without any CNI
    Rulesets,
}

/// Runs scenarios; each check prints its line.
///
/// # Errors
/// There is no cluster. A scenario that fails is none: it is in the count.
pub async fn run(args: &ScenarioArgs) -> Result<Count> {
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
    async fn run(self, cluster: &Cluster, args: &ScenarioArgs, checks: &mut Checks) {
        let checks = &mut Of { cluster, checks };
        match self {
            Self::PodLifecycle => {
                let name = "agents list exactly the pods of their nodes, which reach each other";
                checks.world("pods", name, pods::lifecycle).await;
            }
            Self::Check => {
                let name = "CHECK holds for a sound pod and not for another";
                checks.world("check", name, check::check).await;
            }
            Self::Status => {
                let name = "nodes without an agent are not ready until it is back";
                checks.world("status", name, agents::status).await;
            }
            Self::Dns => {
                let name = "names of Services, pods and the API server resolve";
                checks.world("dns", name, dns::names_resolve).await;
            }
            Self::Services => {
                for (name, kind) in services::KINDS {
                    checks.world("service", name, |world| kind.run(world)).await;
                }
            }
            Self::Policies => {
                let name = "a NetworkPolicy denies one pod and allows another";
                let test = policies::denied_and_allowed;
                checks.world("ingress", name, test).await;
                let name = "a pod that may ask DNS only reaches nothing else";
                let test = policies::egress_to_dns_only;
                checks.world("egress", name, test).await;
            }
            Self::RollingRestart => {
                let name = "a rolling restart of the agents fails no connection";
                checks.world("roll", name, agents::rolling_restart).await;
            }
            Self::AgentDeleted => {
                let name = "an agent that is deleted fails no connection";
                checks.world("deleted", name, agents::agent_deleted).await;
            }
            Self::Upgrade => {
                let name = "another image and back fail no connection";
                checks.world("upgrade", name, agents::upgrade).await;
            }
            Self::Drain => {
                let name = "a node that is drained fails no connection";
                checks.world("drain", name, pods::drain).await;
            }
            Self::ApiOutage => {
                for away in args.away.iter().copied() {
                    let name = match away {
                        Away::Hangs => "an API server that hangs",
                        Away::Refuses => "an API server that is gone",
                    };
                    let name = format!("{name} fails no connection and keeps no container down");
                    let test = |world| outage::outage(world, away, args.outage);
                    checks.world("outage", &name, test).await;
                }
            }
            Self::Rulesets => {
                let name = "nft and iptables on each node are as without any CNI";
                let test = rulesets::as_without_cni(cluster);
                checks.checks.check(name, test).await;
            }
        }
    }
}

/// The checks of a cluster.
struct Of<'a> {
    cluster: &'a Cluster,
    checks: &'a mut Checks,
}

impl Of<'_> {
    /// One in a namespace of its own.
    async fn world<T: Into<Held>, F: Future<Output = Result<T>>>(
        &mut self,
        namespace: &str,
        name: &str,
        test: impl FnOnce(World) -> F,
    ) {
        let test = World::with(self.cluster, namespace, test);
        self.checks.check(name, test).await;
    }
}
