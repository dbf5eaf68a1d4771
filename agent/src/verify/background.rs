//! The pass that the agent runs by itself, all the time, on a thread of its own and at a low rate.
//!
//! It compares the objects of one moment with the maps of the same moment. The engine counts a
//! *generation* whenever policy takes something in or writes: while it stays the same, so do both. When
//! it does not, the pass begins anew, where it was.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{io, thread};

use weir_api::endpoint::PodRef;
use weir_oracle::{Cluster, Evaluator};

use super::objects::whose;
use super::{Disagreement, Endpoint, Pass, Progress, Whose};
use crate::dataplane::{Error, PinnedView};
use crate::engine::{Command, Handle};

/// How long it works at a time.
const SLICE: Duration = Duration::from_millis(5);
/// It rests so many times as long as it worked: about 2 % of one CPU.
const REST: u32 = 49;
/// Least pause before it begins anew after a change.
const AFTER_CHANGE: Duration = Duration::from_secs(1);
/// Most disagreements that the status lists.
const MOST_LISTED: usize = 10;

/// What the engine and the pass tell each other.
#[derive(Debug, Default)]
pub struct Shared {
    generation: AtomicU64,
    checked: AtomicU64,
    last_pass: AtomicU64,
    found: Mutex<Vec<Disagreement>>,
}

impl Shared {
    /// Policy has taken something in, is about to write, or has written.
    pub fn touched(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Rises with each call of [`Shared::touched`].
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Flows compared so far.
    pub fn checked(&self) -> u64 {
        self.checked.load(Ordering::Relaxed)
    }

    /// When the last whole pass ended, in seconds since 1970; 0 for never.
    pub fn last_pass(&self) -> u64 {
        self.last_pass.load(Ordering::Relaxed)
    }

    /// How many disagreements there are.
    pub fn disagreements(&self) -> usize {
        self.lock().len()
    }

    /// Those flows, for the status.
    pub fn problems(&self) -> Vec<String> {
        let found = self.lock();
        let listed = found.iter().take(MOST_LISTED);
        let mut problems: Vec<String> = listed.map(|d| format!("policy verify: {d}")).collect();
        if found.len() > MOST_LISTED {
            let more = found.len() - MOST_LISTED;
            problems.push(format!(
                "policy verify: {more} more; `weir policy verify` lists them"
            ));
        }
        problems
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Disagreement>> {
        // A list is whole whatever happened to who held it.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a pass that is not over yet has found besides what is known.
    fn add<'a>(&self, found: impl Iterator<Item = &'a Disagreement>) {
        let mut known = self.lock();
        for one in found {
            if !known.contains(one) {
                tracing::error!("policy verify: {one}");
                known.push(one.clone());
            }
        }
    }

    /// A whole pass has found just this.
    fn finish<'a>(&self, found: impl Iterator<Item = &'a Disagreement>) {
        let found: Vec<Disagreement> = found.cloned().collect();
        let mut known = self.lock();
        if !known.is_empty() && found.is_empty() {
            tracing::info!("policy verify: kernel and objects agree again");
        }
        *known = found;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.map(|now| now.as_secs()).unwrap_or_default();
        self.last_pass.store(seconds, Ordering::Relaxed);
    }
}

/// What the engine holds, at one moment.
pub struct Snapshot {
    /// The objects, as far as policy looks at them.
    pub cluster: Cluster,
    /// Slot, addresses and pod (with the UID of the object that it was adopted for).
    pub endpoints: Vec<(u32, Vec<std::net::IpAddr>, Option<PodRef>)>,
    /// Of that moment.
    pub generation: u64,
    /// Whether all that the objects ask for is in the maps.
    pub settled: bool,
}

/// Starts the thread. It ends with the engine.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(
    engine: Handle,
    shared: Arc<Shared>,
    bpffs: PathBuf,
    interval: Duration,
) -> io::Result<()> {
    if interval.is_zero() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let work = move || {
        let mut verifier = Verifier {
            shared,
            bpffs,
            first: 0,
            worked: Duration::ZERO,
        };
        loop {
            let asked = Instant::now();
            let Ok(snapshot) = runtime.block_on(engine.ask(Command::Snapshot)) else {
                return;
            };
            verifier.worked += asked.elapsed();
            let generation = snapshot.generation;
            let pause = match verifier.pass(snapshot) {
                Ok(Ended::Whole) => interval,
                Ok(Ended::Changed) => AFTER_CHANGE,
                // The maps were replaced by larger ones meanwhile.
                Err(_) if verifier.shared.generation() != generation => AFTER_CHANGE,
                Err(error) => {
                    tracing::warn!("policy verify: {error}");
                    interval
                }
            };
            // What reading and indexing took is rested for as well.
            let owed = std::mem::take(&mut verifier.worked) * REST;
            thread::sleep(pause.max(owed));
        }
    };
    thread::Builder::new()
        .name("verify".into())
        .spawn(work)
        .map(drop)
}

enum Ended {
    Whole,
    Changed,
}

struct Verifier {
    shared: Arc<Shared>,
    bpffs: PathBuf,
    /// The pair that the next pass begins with.
    first: usize,
    /// Work that no rest was taken for yet.
    worked: Duration,
}

impl Verifier {
    fn pass(&mut self, snapshot: Snapshot) -> Result<Ended, Error> {
        let Snapshot {
            cluster,
            endpoints,
            generation,
            settled,
        } = snapshot;
        let shared = Arc::clone(&self.shared);
        let changed = || shared.generation() != generation;
        if !settled {
            return Ok(Ended::Changed);
        }
        let began = Instant::now();
        let view = PinnedView::open(&self.bpffs)?;
        let tables = view.tables()?;
        if changed() {
            return Ok(Ended::Changed);
        }
        let evaluator = Evaluator::new(&cluster);
        let endpoints: Vec<Endpoint> = endpoints
            .into_iter()
            .map(|(slot, addresses, pod)| Endpoint {
                slot,
                addresses,
                whose: whose(pod.as_ref(), &cluster),
            })
            .collect();
        let judged = |endpoint: &&Endpoint| !matches!(endpoint.whose, Whose::Gone(..));
        tracing::debug!(
            endpoints = endpoints.iter().filter(judged).count(),
            "policy verify"
        );
        let mut pass = Pass::new(&cluster, &evaluator, tables, &endpoints, self.first);
        self.worked += began.elapsed();
        loop {
            let slice = Instant::now();
            let (checked, found) = (pass.checked(), pass.found_count());
            let progress = pass.step(|_| slice.elapsed() >= SLICE);
            if pass.found_count() > found {
                // It counts only if it is still so in maps that were read again.
                pass.check_again(found, &view.tables()?);
            }
            if changed() {
                self.first = self.first.wrapping_add(pass.looked());
                return Ok(Ended::Changed);
            }
            shared
                .checked
                .fetch_add(pass.checked() - checked, Ordering::Relaxed);
            shared.add(pass.found().skip(found));
            if progress == Progress::Done {
                shared.finish(pass.found());
                return Ok(Ended::Whole);
            }
            thread::sleep(slice.elapsed() * REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disagreement(port: u16) -> Disagreement {
        Disagreement {
            endpoint: "a/x".into(),
            address: "10.0.0.1".parse().unwrap(),
            slot: 1,
            direction: "ingress",
            peer: "10.0.0.2".parse().unwrap(),
            peer_is: "outside".into(),
            ports: vec![format!("{port}/TCP"), "ICMP".into()],
            objects: "deny (isolated by a/p)".into(),
            kernel: "allow (no policy)".into(),
            group: 16,
            class: 0,
            endpoints_alike: 1,
            peers_alike: 1,
        }
    }

    #[test]
    fn what_is_found_shows_at_once_and_goes_with_the_next_whole_pass() {
        let shared = Shared::default();
        assert_eq!((shared.last_pass(), shared.disagreements()), (0, 0));
        shared.add([disagreement(1)].iter());
        shared.add([disagreement(1), disagreement(2)].iter());
        assert_eq!(shared.disagreements(), 2);
        assert_eq!(
            shared.problems()[0],
            "policy verify: a/x (10.0.0.1), ingress from 10.0.0.2 (outside), 1/TCP, ICMP: objects say \
             deny (isolated by a/p); the kernel says allow (no policy)"
        );
        shared.finish([disagreement(2)].iter());
        assert_eq!(shared.problems().len(), 1);
        assert!(shared.last_pass() > 0);
        shared.finish([].iter());
        assert_eq!(shared.disagreements(), 0);
    }

    #[test]
    fn the_status_lists_a_few_and_counts_the_rest() {
        let shared = Shared::default();
        let many: Vec<_> = (0..30).map(disagreement).collect();
        shared.add(many.iter());
        let problems = shared.problems();
        assert_eq!(problems.len(), MOST_LISTED + 1);
        assert!(problems[MOST_LISTED].contains("20 more"));
    }
}
