//! What goes on in a run: results are kept and shown as they come.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use super::results::{Ended, Outcome, Results};
use super::spec::Spec;
use crate::count::Count;
use crate::live::Live;

/// The results of this run, and the live line.
#[derive(Debug)]
pub struct Board {
    live: Live,
    total: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    results: Results,
    ended: BTreeSet<Spec>,
    count: Count,
    running: Vec<String>,
}

impl Board {
    /// A board for a run of `total` specs.
    pub fn new(results: Results, total: usize) -> Self {
        Self {
            live: Live::default(),
            total,
            state: Mutex::new(State {
                results,
                ended: BTreeSet::new(),
                count: Count::default(),
                running: Vec::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch is being run.
    pub fn begin(&self, batch: &[Spec]) {
        let mut state = self.state();
        state
            .running
            .extend(batch.first().map(|spec| spec.name.clone()));
        self.refresh(&state);
    }

    /// A batch is no longer being run.
    pub fn end(&self, batch: &[Spec]) {
        let mut state = self.state();
        let first = batch.first().map(|spec| &spec.name);
        if let Some(at) = state.running.iter().position(|name| Some(name) == first) {
            state.running.remove(at);
        }
        self.refresh(&state);
    }

    /// Keeps and shows a result.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn add(&self, ended: Ended) -> Result<()> {
        let mut state = self.state();
        let count = &mut state.count;
        let (word, counter) = match ended.outcome {
            Outcome::Passed => ("passed ", &mut count.passed),
            Outcome::Failed => ("FAILED ", &mut count.failed),
            Outcome::Skipped => ("skipped", &mut count.skipped),
        };
        *counter += 1;
        let why = ended.reason.lines().next().unwrap_or_default();
        let why = if why.is_empty() {
            String::new()
        } else {
            format!("\n         {why}")
        };
        let name = &ended.spec.name;
        self.live
            .say(&format!("{word} {:>6.1}s  {name}{why}", ended.seconds));
        state.ended.insert(ended.spec.clone());
        state.results.add(ended)?;
        self.refresh(&state);
        Ok(())
    }

    /// As [`Board::add`], unless this run has a result of the spec.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn add_once(&self, ended: Ended) -> Result<()> {
        if self.state().ended.contains(&ended.spec) {
            return Ok(());
        }
        self.add(ended)
    }

    /// Shows that time goes by.
    pub fn tick(&self) {
        self.refresh(&self.state());
    }

    fn refresh(&self, state: &State) {
        let Count {
            passed,
            failed,
            skipped,
        } = state.count;
        let done = passed + failed + skipped;
        self.live.show(&format!(
            "{done} of {}: {passed} passed, {failed} failed, {skipped} skipped; {}",
            self.total,
            state.running.join(" | ")
        ));
    }

    /// The results, when the run is over.
    pub fn into_results(self) -> Results {
        self.live.clear();
        self.state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .results
    }
}
