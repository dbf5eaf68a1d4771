//! Programming Services: everything from nothing, and one endpoint at a time, into real maps.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use weir_abi::map;
use weir_agent::compile::service::ServiceIndex;
use weir_agent::dataplane::pins::Pins;
use weir_agent::dataplane::service::ServiceMaps;
use weir_agent::dataplane::sizes::MapLimits;
use weir_agent::dataplane::table::Writes;

use super::world::World;
use super::{Emit, memory};
use crate::pins::{isolated, with_maps};
use crate::stats::{Section, ms, percentile};

/// How long one change may take.
const GOAL_CHANGE: Duration = Duration::from_millis(3);

/// A size, and how long loading it may take.
pub struct Load {
    pub world: World,
    pub goal: Option<Duration>,
}

/// Loads each and then changes an endpoint `changes` times.
pub fn run(loads: Vec<Load>, changes: usize, emit: Emit<'_>) -> Result<()> {
    for load in loads {
        emit(isolated(move || measure(&load, changes))?);
    }
    Ok(())
}

fn measure(load: &Load, changes: usize) -> Result<Section> {
    let world = &load.world;
    let mut section = Section::new(format!(
        "Programming {} Services × {} endpoints into maps of a bpffs of its own",
        world.services, world.endpoints
    ));
    let pins: Pins = with_maps("services", &sizes(world))?;
    let mut maps = ServiceMaps::open(&pins, &Writes::default())?;
    let mut index = ServiceIndex::default();
    // The objects are made one at a time: making them is not the agent's work.
    let (mut compiling, mut busy) = (Duration::ZERO, Duration::ZERO);
    let empty = memory::resident()?;
    for change in world.all() {
        let (start, before) = (Instant::now(), processor_time()?);
        index.apply(&change);
        compiling += start.elapsed();
        busy += processor_time()?.saturating_sub(before);
    }
    let indexed = memory::resident()?;
    let (start, before) = (Instant::now(), processor_time()?);
    let epoch = start;
    sync(&mut maps, &mut index, epoch)?;
    let writing = start.elapsed();
    busy += processor_time()?.saturating_sub(before);
    let total = compiling + writing;
    match load.goal {
        Some(goal) => section.goal(
            "objects to the last write",
            ms(total),
            format!("under {}", ms(goal)),
            total < goal,
        ),
        None => section.row("objects to the last write", ms(total)),
    }
    section.row("  compiling", ms(compiling));
    section.row("  planning and writing", ms(writing));
    section.row("  processor time of both", ms(busy));
    let programmed = memory::resident()?;
    section.row("memory of the index", format!("{:.1} MiB", indexed - empty));
    section.row(
        "memory of what is known of the maps",
        format!("{:.1} MiB", programmed - indexed),
    );
    let mut times = Vec::with_capacity(changes);
    for n in 0..changes {
        let i = n * 7919 % world.services;
        let change = world.slice_change(i, n / world.services + 1);
        let start = Instant::now();
        index.apply(&change);
        sync(&mut maps, &mut index, epoch)?;
        times.push(start.elapsed());
    }
    times.sort();
    let p99 = percentile(&times, 0.99);
    section.row("one endpoint changes: median", ms(percentile(&times, 0.5)));
    section.goal(
        "one endpoint changes: p99",
        ms(p99),
        "at most 3 ms",
        p99 <= GOAL_CHANGE,
    );
    memory::maps(&pins.maps(), &mut section)?;
    Ok(section)
}

/// Maps that the world does not fit in at first, in the sizes to which an agent has them grow.
fn sizes(world: &World) -> Vec<(&'static str, u32)> {
    let backends = world.services * world.endpoints + 1;
    let needs = [
        (map::SERVICES, map::MAX_SERVICES, 2 * world.services),
        (map::SLOTS, map::MAX_SLOTS, backends),
        (map::BACKENDS, map::MAX_BACKENDS, backends),
    ];
    let short = needs
        .into_iter()
        .filter(|(_, first, n)| *n > *first as usize);
    let grown = |(map, first, needed)| Some((map, MapLimits::default().grown(map, first, needed)?));
    short.filter_map(grown).collect()
}

fn sync(maps: &mut ServiceMaps, index: &mut ServiceIndex, epoch: Instant) -> Result<()> {
    maps.sync(index, epoch.elapsed(), || epoch.elapsed())
        .map(drop)
        .map_err(|error| anyhow!(error))
}

/// What this thread has used of a processor: others may want it at the same time.
fn processor_time() -> Result<Duration> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(Duration::from(time))
}
