//! `bench network`: what a packet between pods costs, in the kernel alone: frames are put into the
//! sender's interface by the kernel and end in the receiver's, so that neither sockets nor system calls
//! hide the way between them.

mod bed;
mod end;
mod sys;

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::services::{Emit, Run};
use crate::stats::{Section, median};
use bed::{Bed, Between, Nodes};
use end::{Way, What};

/// Arguments of `bench network`.
#[derive(Args)]
pub struct NetworkArgs {
    /// Pairs of turns of which the median counts
    #[arg(long, default_value_t = 8)]
    pairs: usize,
    /// Milliseconds of a turn
    #[arg(long, default_value_t = 300)]
    turn: u64,
    /// The processor that everything runs on
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// What these arguments ask for.
pub fn runs(args: &NetworkArgs) -> Vec<Run<'_>> {
    vec![(
        "packets between pods …",
        Box::new(move |emit| run(args, emit)),
    )]
}

/// Frames of the first turn, by which the others are measured.
const TRIAL: u32 = 20_000;

fn run(args: &NetworkArgs, emit: Emit<'_>) -> Result<()> {
    let beds: [(Between, &[(Nodes, &str)]); 2] = [
        (
            Between::Routes,
            &[
                (Nodes::One, "Pod to pod on one node"),
                (Nodes::Two, "Pod to pod across two nodes, native routing"),
            ],
        ),
        (
            Between::Vxlan,
            &[(
                Nodes::Two,
                "Pod to pod across two nodes, VXLAN beside the kernel's own",
            )],
        ),
    ];
    for (between, ways) in beds {
        let bed = Bed::new(between)?;
        for &(nodes, title) in ways {
            for what in [What::Established, What::New] {
                emit(section(args, &bed, nodes, what, title)?);
            }
        }
    }
    Ok(())
}

/// One table: every way beside plain routing.
fn section(
    args: &NetworkArgs,
    bed: &Bed,
    nodes: Nodes,
    what: What,
    title: &str,
) -> Result<Section> {
    let kind = match what {
        What::Established => "segments of an open connection",
        What::New => "SYNs never seen",
    };
    let mut section = Section::new(format!(
        "{title}, {kind}: time of one processor for a packet, policy at both ends (median of {} \
         pairs of turns)",
        args.pairs
    ));
    let plain = bed.plain(nodes);
    for other in bed.others(nodes) {
        let result = compare(args, &plain, &other.way, what)?;
        let goal = match what {
            What::Established => other.goal,
            What::New => None,
        };
        section.row(
            format!("{}: plain routing beside it", other.name),
            format!("{:.0} ns", result.plain),
        );
        section.row(other.name, format!("{:.0} ns", result.other));
        let name = format!("{}: ratio", other.name);
        let value = format!("{:.3}", result.ratio);
        match goal {
            Some(goal) => {
                let at_most = format!("at most {goal:.2}");
                section.goal(name, value, at_most, result.ratio <= goal);
            }
            None => section.row(name, value),
        }
    }
    Ok(section)
}

/// Nanoseconds a packet, and the median of the pairs' ratios.
struct Compared {
    plain: f64,
    other: f64,
    ratio: f64,
}

/// Takes turns on two ways.
fn compare(args: &NetworkArgs, plain: &Way<'_>, other: &Way<'_>, what: What) -> Result<Compared> {
    let sides = [plain, other].map(|way| Side::new(way, what, args));
    let [plain, other] = sides;
    let (plain, other) = (plain?, other?);
    let (mut of_plain, mut of_other, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.pairs.max(1) {
        let (a, b) = (plain.cost()?, other.cost()?);
        of_plain.push(a);
        of_other.push(b);
        ratios.push(b / a);
    }
    Ok(Compared {
        plain: median(of_plain),
        other: median(of_other),
        ratio: median(ratios),
    })
}

/// One way, and how many frames make a turn on it.
struct Side<'a> {
    way: &'a Way<'a>,
    source: sys::Source,
    count: u32,
    cpu: usize,
}

impl<'a> Side<'a> {
    fn new(way: &'a Way<'a>, what: What, args: &NetworkArgs) -> Result<Self> {
        let source = way.source(what)?;
        let took = way.send(&source, TRIAL, args.cpu)?;
        let turn = Duration::from_millis(args.turn.clamp(10, 5000));
        let count = f64::from(TRIAL) * turn.as_secs_f64() / took.as_secs_f64();
        Ok(Self {
            way,
            source,
            count: count.clamp(1e3, 1e7) as u32,
            cpu: args.cpu,
        })
    }

    /// Nanoseconds a packet.
    fn cost(&self) -> Result<f64> {
        let took = self.way.send(&self.source, self.count, self.cpu)?;
        Ok(took.as_secs_f64() * 1e9 / f64::from(self.count))
    }
}
