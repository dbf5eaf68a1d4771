//! `bench services`: what a Service costs a request, what programming costs, and what memory.

pub mod bed;
mod load;
mod memory;
mod peer;
mod rules;
mod traffic;
mod world;

use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};

pub use peer::{ask, serve};

use crate::stats::Section;
use load::Load;
use world::World;

/// The parts of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Loading from nothing and changing one endpoint, in this process
    Programming,
    /// The same with nftables, as kube-proxy does it
    Nftables,
    /// The real agent's memory and that of its maps
    Memory,
    /// Requests through a Service
    Traffic,
}

#[derive(Args)]
pub struct ServicesArgs {
    /// Which parts to run
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "programming,nftables,memory,traffic"
    )]
    parts: Vec<Part>,
    /// Numbers of Services for the traffic
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000,30000")]
    sizes: Vec<usize>,
    /// Services to load, each as SERVICESxENDPOINTS
    #[arg(long, value_delimiter = ',', value_parser = load_size, default_value = "10x3,1000x3,10000x3,30000x4")]
    loads: Vec<(usize, usize)>,
    /// Endpoint changes to time at each size
    #[arg(long, default_value_t = 1000)]
    changes: usize,
    /// Rounds of traffic at each size
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Requests of one turn
    #[arg(long, default_value_t = 3000)]
    count: u32,
    /// The processor that both ends of the traffic run on
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Seconds that kube-proxy's rules may take to load; what takes longer is left out
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// The program that reads iptables rules
    #[arg(long, default_value = "iptables-restore")]
    iptables: String,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

fn load_size(text: &str) -> Result<(usize, usize), String> {
    let parsed = text
        .split_once('x')
        .and_then(|(services, endpoints)| Some((services.parse().ok()?, endpoints.parse().ok()?)));
    match parsed {
        Some((services, endpoints)) if services > 0 && endpoints > 0 => Ok((services, endpoints)),
        _ => Err(format!("{text} is not like 30000x4")),
    }
}

/// Takes what a part has found, as soon as it has.
pub type Emit<'a> = &'a mut dyn FnMut(Section);
/// A part's name, and how it is run.
pub type Run<'a> = (&'static str, Box<dyn Fn(Emit<'_>) -> Result<()> + 'a>);

/// What these arguments ask for, in the order in which it runs.
pub fn runs(args: &ServicesArgs) -> Vec<Run<'_>> {
    let world = |&(services, endpoints): &(usize, usize)| World {
        services,
        endpoints,
        served: None,
    };
    let mut runs: Vec<Run<'_>> = Vec::new();
    let wanted = |part| args.parts.contains(&part);
    if wanted(Part::Programming) {
        let work = move |emit: Emit<'_>| {
            let load = |size: &(usize, usize)| Load {
                goal: goal(size.0),
                world: world(size),
            };
            load::run(args.loads.iter().map(load).collect(), args.changes, emit)
        };
        runs.push(("programming …", Box::new(work)));
    }
    if wanted(Part::Nftables) {
        let limit = Duration::from_secs(args.limit);
        let work = move |emit: Emit<'_>| {
            traffic::nftables(args.loads.iter().map(world).collect(), limit, emit)
        };
        runs.push(("programming with nftables …", Box::new(work)));
    }
    if wanted(Part::Memory) {
        let largest = args.loads.iter().max().copied();
        let work = move |emit: Emit<'_>| {
            if let Some(size) = &largest {
                emit(memory::agent(&world(size))?);
            }
            Ok(())
        };
        runs.push(("memory …", Box::new(work)));
    }
    if wanted(Part::Traffic) {
        let plan = traffic::Plan {
            sizes: args.sizes.clone(),
            endpoints: args.loads.iter().map(|size| size.1).min().unwrap_or(3),
            rounds: args.rounds,
            count: args.count,
            cpu: args.cpu,
            limit: Duration::from_secs(args.limit),
            iptables: args.iptables.clone(),
        };
        runs.push(("traffic …", Box::new(move |emit| traffic::run(&plan, emit))));
    }
    runs
}

/// How long loading may take.
fn goal(services: usize) -> Option<Duration> {
    match services {
        10_000 => Some(Duration::from_millis(500)),
        30_000 => Some(Duration::from_secs(3)),
        _ => None,
    }
}
