//! What a request costs through a Service, beside the same request to the pod's own address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use weir_api::service::ServiceInfo;

use super::Emit;
use super::bed::{BEHIND, Bed, Client, Measured, NFTABLES, Rules, WEIR};
use super::peer::{Mode, Order};
use super::rules;
use super::world::{PORT, TARGET, World};
use crate::stats::{Section, median, ms, percentile};

/// How much more a request through a Service may cost than one to the pod's address.
const GOAL: f64 = 1.08;
/// How long the agent may take to program a cluster.
const PROGRAMMING: Duration = Duration::from_secs(300);
/// Changes of nftables rules to time.
const NFT_CHANGES: usize = 11;

/// How to measure.
pub struct Plan {
    /// Numbers of Services.
    pub sizes: Vec<usize>,
    /// Endpoints of each.
    pub endpoints: usize,
    /// Rounds; in each every path has one turn.
    pub rounds: usize,
    /// Operations of one turn.
    pub count: u32,
    /// Both ends run on this processor.
    pub cpu: usize,
    /// How long nftables and iptables may take to load rules.
    pub limit: Duration,
    /// What reads the rules of iptables.
    pub iptables: String,
}

/// A way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    PodAddress,
    SocketHook,
    PacketPath,
    Plain,
    Nftables,
    Iptables,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::PodAddress => "weir, pod's own address",
            Self::SocketHook => "weir, Service by socket hook",
            Self::PacketPath => "weir, Service by packet path",
            Self::Plain => "plain routing, own address",
            Self::Nftables => "kube-proxy, nftables",
            Self::Iptables => "kube-proxy, iptables",
        }
    }

    /// What it is compared with: the same node without a Service.
    fn beside(self) -> Self {
        match self {
            Self::PodAddress | Self::SocketHook | Self::PacketPath => Self::PodAddress,
            Self::Plain | Self::Nftables | Self::Iptables => Self::Plain,
        }
    }
}

/// One way's turns.
struct Turns {
    way: Way,
    cpu: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// Measures all sizes.
pub fn run(plan: &Plan, emit: Emit<'_>) -> Result<()> {
    let mut bed = Bed::new(plan.cpu)?;
    let mut socket = Vec::new();
    for &services in &plan.sizes {
        eprintln!("  {services} Services …");
        let mut section = Section::new(format!(
            "Traffic through one of {services} Services: CPU of client, server and kernel for one request \
             (medians of {} rounds of {} in turns)",
            plan.rounds, plan.count
        ));
        let world = |served| World {
            services,
            endpoints: plan.endpoints,
            served: Some(served),
        };
        let weir = world(bed.pod);
        program(&bed, &weir, &mut section)?;
        let routed = world(BEHIND);
        let mut ways = vec![
            Way::PodAddress,
            Way::SocketHook,
            Way::PacketPath,
            Way::Plain,
        ];
        ways.extend(load(&bed, &routed, plan, &mut section)?);
        for (mode, name) in [
            (Mode::Short, "connect + request + close"),
            (Mode::Keep, "request on an open connection"),
        ] {
            let turns = measure(&mut bed, &weir, &ways, plan, mode)?;
            let ratio = report(&turns, name, &mut section);
            if mode == Mode::Short {
                socket.push((services, ratio));
            }
        }
        emit(section);
    }
    if let (Some((few, first)), Some((many, last))) = (socket.first(), socket.last())
        && few != many
    {
        let mut section = Section::new("Flat: the socket hook's ratio to the pod's own address");
        let growth = last / first;
        section.goal(
            format!("{many} Services beside {few}"),
            format!("{growth:.3}"),
            "at most 1.05",
            growth <= 1.05,
        );
        emit(section);
    }
    Ok(())
}

/// kube-proxy's nftables rules from nothing, and one endpoint at a time.
pub fn nftables(worlds: Vec<World>, limit: Duration, emit: Emit<'_>) -> Result<()> {
    let lab = weir_lab::Lab::builder().nodes(3).without_agents().start()?;
    let rules_of = Rules { node: NFTABLES };
    for world in worlds {
        let mut section = Section::new(format!(
            "The same with kube-proxy's nftables rules: {} Services × {} endpoints",
            world.services, world.endpoints
        ));
        let took = rules_of.load(&lab, &["nft", "-f", "-"], &rules::nftables(&world)?, limit)?;
        if loaded(&mut section, Way::Nftables, took, limit).is_some() {
            let mut times = Vec::new();
            for version in 0..NFT_CHANGES {
                let text = rules::nftables_change(&world, world.middle(), version)?;
                times.push(rules_of.change(&lab, &text)?);
            }
            times.sort();
            section.row("one endpoint changes: median", ms(percentile(&times, 0.5)));
        }
        emit(section);
    }
    Ok(())
}

/// Gives the agent the world's Services, and waits until the kernel has them.
fn program(bed: &Bed, world: &World, section: &mut Section) -> Result<()> {
    let start = Instant::now();
    world.write(&bed.lab.path(&format!("{}/source", weir_lab::hold::ROOT)))?;
    let node = &bed.lab.nodes[WEIR];
    loop {
        let services: Vec<ServiceInfo> = node.client().timeout(PROGRAMMING).get("/v1/services")?;
        let done = |s: &ServiceInfo| {
            s.frontends
                .iter()
                .all(|f| f.programmed && !f.backends.is_empty())
        };
        if services.len() == world.services && services.iter().all(done) {
            break;
        }
        if start.elapsed() > PROGRAMMING {
            bail!(
                "the agent has not programmed it in {PROGRAMMING:?}: {}",
                node.log_tail(20)
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    section.row(
        "weir: files written, read and programmed",
        format!("{:.2} s", start.elapsed().as_secs_f64()),
    );
    Ok(())
}

/// Loads kube-proxy's rules; which of them are there.
fn load(bed: &Bed, world: &World, plan: &Plan, section: &mut Section) -> Result<Vec<Way>> {
    let mut there = Vec::new();
    let nftables = rules::nftables(world)?;
    let iptables = rules::iptables(world)?;
    let took = bed
        .nftables
        .rules
        .load(&bed.lab, &["nft", "-f", "-"], &nftables, plan.limit);
    let took = took.context("loading kube-proxy's rules with nft")?;
    there.extend(loaded(section, Way::Nftables, took, plan.limit));
    let took = bed
        .iptables
        .rules
        .load(&bed.lab, &[&plan.iptables], &iptables, plan.limit);
    let took =
        took.with_context(|| format!("loading kube-proxy's rules with {}", plan.iptables))?;
    there.extend(loaded(section, Way::Iptables, took, plan.limit));
    Ok(there)
}

fn loaded(section: &mut Section, way: Way, took: Option<Duration>, limit: Duration) -> Option<Way> {
    let name = format!("{}: loaded in one go", way.name());
    match took {
        Some(took) => section.row(name, format!("{:.2} s", took.as_secs_f64())),
        None => section.row(name, format!("left out, > {} s", limit.as_secs())),
    }
    took.map(|_| way)
}

fn measure(
    bed: &mut Bed,
    world: &World,
    ways: &[Way],
    plan: &Plan,
    mode: Mode,
) -> Result<Vec<Turns>> {
    let pod = SocketAddr::from((bed.pod, TARGET));
    let service = SocketAddr::from((world.cluster_ip(world.middle()), PORT));
    let behind = SocketAddr::from((BEHIND, TARGET));
    let mut all: Vec<Turns> = ways
        .iter()
        .map(|&way| Turns {
            way,
            cpu: Vec::new(),
            p50: Vec::new(),
            p99: Vec::new(),
        })
        .collect();
    // The first round only warms up.
    for round in 0..=plan.rounds {
        for turns in &mut all {
            let (client, target): (&mut Client, _) = match turns.way {
                Way::PodAddress => (&mut bed.covered, pod),
                Way::SocketHook => (&mut bed.covered, service),
                Way::PacketPath => (&mut bed.uncovered, service),
                Way::Plain => (&mut bed.plain.client, behind),
                Way::Nftables => (&mut bed.nftables.client, service),
                Way::Iptables => (&mut bed.iptables.client, service),
            };
            let order = Order {
                target,
                mode,
                count: plan.count,
            };
            let Measured { cpu, report } = client.run(&order).context(turns.way.name())?;
            if round > 0 {
                turns.cpu.push(cpu);
                turns.p50.push(report.p50);
                turns.p99.push(report.p99);
            }
        }
    }
    Ok(all)
}

/// Writes the rows of one mode; the socket hook's ratio.
fn report(all: &[Turns], mode: &str, section: &mut Section) -> f64 {
    section.row(format!("{mode}:"), "µs CPU, ratio, p50 / p99 µs");
    let of = |way| all.iter().find(|turns| turns.way == way);
    // Each round's two turns are compared with each other.
    let ratio =
        |a: &Turns, b: &Turns| median(a.cpu.iter().zip(&b.cpu).map(|(a, b)| a / b).collect());
    let mut socket = f64::NAN;
    for turns in all {
        let ratio = of(turns.way.beside()).map_or(f64::NAN, |base| ratio(turns, base));
        let name = format!("  {}", turns.way.name());
        let value = format!(
            "{:.1}, {ratio:.3}, {:.0} / {:.0}",
            median(turns.cpu.clone()),
            median(turns.p50.clone()),
            median(turns.p99.clone())
        );
        if turns.way == Way::SocketHook {
            socket = ratio;
            section.goal(name, value, format!("at most {GOAL:.2}"), ratio <= GOAL);
        } else {
            section.row(name, value);
        }
    }
    if let Some(nftables) = of(Way::Nftables) {
        for way in [Way::SocketHook, Way::PacketPath] {
            if let Some(turns) = of(way) {
                let ratio = ratio(turns, nftables);
                let name = format!("  {} beside nftables", turns.way.name());
                section.goal(name, format!("{ratio:.3}"), "below 1", ratio < 1.0);
            }
        }
    }
    socket
}
