//! Tables that are too small grow while the agent runs, up to their limits.
//!
//! The bigger map is made beside the old one and filled, and every program is loaded anew over it;
//! until the last link has its new program nothing is written, so that old and new programs say the
//! same.

use std::{collections::BTreeMap, time::Instant};

use weir_policy::CapacityError;

use super::{Engine, local};
use crate::dataplane::{
    Error, PinnedView, load, resize,
    sizes::{RESIZABLE, Shortage, Sizes},
};

/// A part of the agent that writes to tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Policy.
    Policy,
    /// Services.
    Services,
}

/// Why a part is not in the kernel as it should be.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For people.
    pub message: String,
    /// The tables whose sizes are to blame.
    pub shortages: Vec<Shortage>,
}

impl From<CapacityError> for Failure {
    fn from(error: CapacityError) -> Self {
        let CapacityError {
            map, size, needed, ..
        } = error;
        Self {
            message: error.to_string(),
            shortages: vec![Shortage { map, size, needed }],
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let shortages = match &error {
            Error::TooSmall(shortages) => shortages.clone(),
            Error::Full { map, size } => vec![Shortage {
                map,
                size: *size,
                needed: *size as usize + 1,
            }],
            _ => Vec::new(),
        };
        Self {
            message: error.to_string(),
            shortages,
        }
    }
}

/// Tables that grew, and those that cannot.
#[derive(Debug, Default)]
pub struct Growth {
    /// Tables at their limits, with the part that wants more.
    pub full: BTreeMap<&'static str, Part>,
    /// How often tables grew.
    pub times: u64,
    /// How long that took, together.
    pub seconds: f64,
}

impl Engine {
    /// Has a part write; where a table is too small it grows, and the part writes again.
    pub(super) fn growing(
        &mut self,
        part: Part,
        mut write: impl FnMut(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        // Each time round a table has grown, and all have limits.
        loop {
            let Err(failure) = write(self) else {
                self.growth.full.retain(|_, whose| *whose != part);
                return Ok(());
            };
            match self.grow(part, &failure.shortages) {
                Ok(true) => {}
                Ok(false) => return Err(failure),
                Err(error) => {
                    let maps = failure.shortages.iter().map(|shortage| shortage.map);
                    let maps = maps.collect::<Vec<_>>().join(", ");
                    return Err(Failure {
                        message: format!("map {maps}: too small, and could not grow: {error}"),
                        shortages: Vec::new(),
                    });
                }
            }
        }
    }

    fn note_full(&mut self, part: Part, shortage: &Shortage) {
        let Shortage { map, size, needed } = *shortage;
        if self.growth.full.insert(map, part).is_none() {
            tracing::error!(
                map,
                size,
                needed,
                "table full: what was programmed stays, what is new is not"
            );
        }
    }

    /// Grows tables, all at once; false if one is at its limit, or none is too small.
    fn grow(&mut self, part: Part, shortages: &[Shortage]) -> Result<bool, Error> {
        let mut sizes = Sizes::new();
        for shortage in shortages {
            let Shortage { map, size, needed } = *shortage;
            let size = resize::pinned_size(&self.kernel.pins, map)?.unwrap_or(size);
            match self.config.map_limits.grown(map, size, needed) {
                Some(larger) => drop(sizes.insert(map, larger)),
                None => {
                    self.note_full(part, shortage);
                    return Ok(false);
                }
            }
        }
        if sizes.is_empty() {
            return Ok(false);
        }
        let began = Instant::now();
        let live = self.kernel.live.clone();
        let _suspended = live.suspend();
        self.verify.touched();
        // Also where it fails: some maps may have been replaced by then.
        self.stale = true;
        let loaded = load::grow(&self.kernel.object, &self.kernel.pins, &sizes)?;
        self.kernel.loaded.replaced += loaded.replaced;
        self.take_up()?;
        self.verify.touched();
        let seconds = began.elapsed().as_secs_f64();
        self.growth.times += 1;
        self.growth.seconds += seconds;
        tracing::info!(?sizes, seconds, "tables have grown");
        Ok(true)
    }

    /// Opens the pinned maps again and gives the links the pinned programs, if something has put
    /// others there. Nothing may be written before that.
    ///
    /// # Errors
    /// The kernel's: to be tried again.
    pub(super) fn take_up(&mut self) -> Result<(), Error> {
        if !self.stale {
            return Ok(());
        }
        self.policy.reopen(&self.kernel.pins, &self.writes)?;
        self.services.reopen(&self.kernel.pins, &self.writes)?;
        self.view = PinnedView::open(&self.config.bpffs)?;
        self.attacher.refresh()?;
        if !self.kernel.features.tcx {
            let pods = self.local.records.iter();
            let pods = pods.flat_map(|(_, record)| local::hooks(record));
            for hook in pods.chain(self.node.hooks(&self.attacher)) {
                // One whose device has gone is found out by whoever looks after it.
                if let Err(e) = self.attacher.ensure(&hook) {
                    tracing::warn!("{e}");
                }
            }
        }
        self.stale = false;
        Ok(())
    }

    /// Name, entries, size and limit of each table that grows.
    pub(super) fn tables(&self) -> Vec<(&'static str, usize, u32, u32)> {
        let policy = self.policy.sizes();
        let mut tables: Vec<_> = policy.into_iter().chain(self.services.sizes()).collect();
        tables.sort_unstable();
        let limit = |map| self.config.map_limits.of(map).unwrap_or(0);
        let tables = tables.into_iter();
        tables
            .map(|(map, entries, size)| (map, entries, size, limit(map)))
            .collect()
    }

    /// Of each table that grows, whether it is full.
    pub(super) fn full(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let full = &self.growth.full;
        RESIZABLE
            .iter()
            .map(|resizable| (resizable.map, full.contains_key(resizable.map)))
    }
}

#[cfg(test)]
mod tests {
    use weir_abi::map;

    use super::*;

    #[test]
    fn a_full_map_wants_one_more_entry_and_other_errors_none() {
        let full = Failure::from(Error::Full {
            map: map::SERVICES,
            size: 16,
        });
        let shortage = Shortage {
            map: map::SERVICES,
            size: 16,
            needed: 17,
        };
        assert_eq!(full.shortages, [shortage]);
        assert!(full.message.contains("--max-services"), "{}", full.message);
        let other = Failure::from(Error::Object("x".into()));
        assert!(other.shortages.is_empty());
    }

    #[test]
    fn what_policy_needs_is_what_the_table_is_asked_to_hold() {
        let failure = Failure::from(CapacityError {
            map: map::RULES,
            size: 16,
            needed: 99,
            flag: "--max-rules",
        });
        assert_eq!(failure.shortages[0].needed, 99);
        assert!(failure.message.contains("--max-rules"));
    }
}
