//! One change at a time: from the event to the last write in the kernel's maps.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use weir_agent::dataplane::policy::PolicyMaps;
use weir_agent::dataplane::table::Writes;
use weir_agent::engine::policy::Policy;
use weir_policy::{Established, Event, Limits};

use crate::pins::{isolated, with_policy_maps};
use crate::stats::{Section, ms, percentile};
use crate::world::{NODE, Size, policy, policy_name};

const GOAL: Duration = Duration::from_millis(10);

/// A kind of change, and the event that makes the `n`th of its kind.
type Kind = (&'static str, fn(&Size, usize) -> Event);

/// Each goes forth and back, so that the cluster stays what it is.
const KINDS: &[Kind] = &[
    ("pod appears or is gone", |size, n| {
        let pod = size.pod(size.pods + n / 2);
        if n % 2 == 0 {
            pod.event()
        } else {
            Event::DeletePod(pod.object_name())
        }
    }),
    ("pod's label changes", |size, n| {
        let pod = size.pod(n / 2 * 37 % size.pods);
        if n % 2 == 0 {
            pod.relabelled("app-5").event()
        } else {
            pod.event()
        }
    }),
    ("local pod's label changes", |size, n| {
        let pod = size.pod(n / 2 * size.nodes() % size.pods);
        if n % 2 == 0 {
            pod.relabelled("app-3").event()
        } else {
            pod.event()
        }
    }),
    ("policy's ports or peers change", |size, n| {
        policy(n / 2 * 13 % size.policies, (n + 1) % 2)
    }),
    ("policy is deleted or created", |size, n| {
        let i = n / 2 * 17 % size.policies;
        if n % 2 == 0 {
            Event::DeletePolicy(policy_name(i))
        } else {
            policy(i, 0)
        }
    }),
];

/// Times `changes` changes.
pub fn run(size: &Size, changes: usize) -> Result<Section> {
    let size = size.clone();
    isolated(move || measure(&size, changes))
}

fn measure(size: &Size, changes: usize) -> Result<Section> {
    let pins = with_policy_maps("change")?;
    let maps = PolicyMaps::open(&pins, &Writes::default())?;
    let mut policy = Policy::new(NODE, maps, Limits::default(), Established::Apply);
    for event in size.all() {
        policy.apply_event(event);
    }
    let start = Instant::now();
    sync(&mut policy)?;
    let first = start.elapsed();
    let mut section = Section::new(format!(
        "One change, event to kernel: {changes} changes of {} kinds in that cluster",
        KINDS.len()
    ));
    let mut all = Vec::new();
    for (name, event) in KINDS {
        let mut times = Vec::new();
        for n in 0..changes / KINDS.len() {
            let event = event(size, n);
            let start = Instant::now();
            policy.apply_event(event);
            sync(&mut policy)?;
            times.push(start.elapsed());
        }
        times.sort();
        all.extend_from_slice(&times);
        section.row(
            format!("{name}: median / p99"),
            format!(
                "{} / {}",
                ms(percentile(&times, 0.5)),
                ms(percentile(&times, 0.99))
            ),
        );
    }
    all.sort();
    let p99 = percentile(&all, 0.99);
    section.row("all: median", ms(percentile(&all, 0.5)));
    section.goal("all: p99", ms(p99), "under 10 ms", p99 < GOAL);
    section.row("all: worst", ms(percentile(&all, 1.0)));
    section.row("everything from nothing into the kernel", ms(first));
    let ratio = percentile(&all, 0.5).as_secs_f64() / first.as_secs_f64();
    section.row("ratio of a change to that", format!("{ratio:.4}"));
    Ok(section)
}

fn sync(policy: &mut Policy) -> Result<()> {
    policy.sync(Instant::now()).map_err(|error| anyhow!(error))
}
