//! The service maps: read back at start, written in the order that the plan gives.

use std::time::Duration;

use weir_abi::map;
use weir_abi::service::{Service, ServiceKey};

use super::Error;
use super::pins::Pins;
use super::service_arrays::{BackendArray, SlotArray};
use super::sizes::Shortage;
use super::source_ranges::SourceRanges;
use super::table::{Table, Writes};
use crate::compile::service::{
    Collector, Needs, Plan, Retired, ServiceActual, ServiceIndex, ServiceWrite, plan,
};

/// How long what nothing refers to stays: no program runs nearly as long, so none can still be
/// reading a set when it is deleted, nor meet its number with another content.
pub const GRACE: Duration = Duration::from_secs(5);

/// The service maps with their mirror.
pub struct ServiceMaps {
    services: Table<ServiceKey, Service>,
    slots: SlotArray,
    backends: BackendArray,
    ranges: SourceRanges,
    actual: ServiceActual,
    collector: Collector,
    /// The maps are known to hold what the index last said, but for what it has noted as changed.
    settled: bool,
}

impl ServiceMaps {
    /// Opens the pinned maps and reads what they hold.
    ///
    /// # Errors
    /// A map is not pinned or not of its shape; the kernel's.
    pub fn open(pins: &Pins, writes: &Writes) -> Result<Self, Error> {
        let mut maps = Self {
            services: Table::open(pins, map::SERVICES, writes)?,
            slots: SlotArray::open(pins, writes)?,
            backends: BackendArray::open(pins, writes)?,
            ranges: SourceRanges::open(pins, writes)?,
            actual: ServiceActual::default(),
            collector: Collector::default(),
            settled: false,
        };
        maps.read_back()?;
        Ok(maps)
    }

    /// Opens the maps again that can get another size, with the same content: what is known of them
    /// stays.
    ///
    /// # Errors
    /// As [`ServiceMaps::open`]; the former ones stay open then.
    pub fn reopen(&mut self, pins: &Pins, writes: &Writes) -> Result<(), Error> {
        let services = Table::open(pins, map::SERVICES, writes)?;
        let slots = SlotArray::open(pins, writes)?;
        let backends = BackendArray::open(pins, writes)?;
        (self.services, self.slots, self.backends) = (services, slots, backends);
        Ok(())
    }

    /// Name, entries and size of each map; of `SLOTS` the elements up to the last in use.
    pub fn sizes(&self) -> [(&'static str, usize, u32); 3] {
        let actual = &self.actual;
        let entries = [
            actual.services.len(),
            actual.slots().len(),
            actual.backends().count(),
        ];
        let [services, slots, backends] = self.room();
        [
            (services, entries[0]),
            (slots, entries[1]),
            (backends, entries[2]),
        ]
        .map(|((map, size), entries)| (map, entries, size))
    }

    /// Name and size of each map.
    fn room(&self) -> [(&'static str, u32); 3] {
        [
            (map::SERVICES, self.services.size()),
            (map::SLOTS, self.slots.size()),
            (map::BACKENDS, self.backends.size()),
        ]
    }

    /// The maps that are too small.
    fn shortages(&self, needs: Needs) -> Vec<Shortage> {
        let needs = [needs.services, needs.slots, needs.backends];
        let all = self.room().into_iter().zip(needs);
        all.filter(|((_, size), needed)| needed > size)
            .map(|((map, size), needed)| Shortage {
                map,
                size,
                needed: needed as usize,
            })
            .collect()
    }

    /// Reads the maps again; what was known of them is forgotten.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_back(&mut self) -> Result<(), Error> {
        self.settled = false;
        self.collector = Collector::default();
        self.actual = ServiceActual::new(
            self.services.entries()?,
            self.slots.entries(),
            self.backends.entries(),
            self.ranges.entries()?,
        );
        Ok(())
    }

    /// Takes less memory from now on, after many writes.
    pub fn refill(&mut self) {
        self.actual.refill();
    }

    /// What the maps hold.
    pub fn actual(&self) -> &ServiceActual {
        &self.actual
    }

    /// The writes that make the maps hold what they should, and how large the maps must be for them
    /// ([`Plan::needs`]).
    pub fn plan(&self, index: &ServiceIndex) -> Plan {
        let changed = index.changed().filter(|_| self.settled);
        plan(&self.actual, index.desired(), changed)
    }

    /// Makes the maps hold what they should, and deletes what has been unused for [`GRACE`]. `now`
    /// is the time since any fixed moment, `elapsed` the same after the writes: what they have made
    /// garbage rests from then on.
    ///
    /// # Errors
    /// [`Error::TooSmall`], and nothing was written but deletions. The first write that fails ends it; every frontend then has its old or its new backends,
    /// and the next call goes on from there.
    pub fn sync(
        &mut self,
        index: &mut ServiceIndex,
        now: Duration,
        elapsed: impl Fn() -> Duration,
    ) -> Result<Synced, Error> {
        let plan = self.plan(index);
        let shortages = self.shortages(plan.needs);
        if !shortages.is_empty() {
            // What has been unused for long enough may be all that is in its way.
            let due = self.collector.due(now, GRACE, &self.actual);
            self.settled &= due.is_empty();
            self.perform(&due)?;
            return Err(Error::TooSmall(shortages));
        }
        self.settled = false;
        self.collector.forget(&plan);
        self.perform(plan.writes())?;
        self.collector.note(elapsed(), &plan);
        let due = self.collector.due(now, GRACE, &self.actual);
        self.perform(&due)?;
        self.settled = true;
        index.settled();
        Ok(Synced {
            next: self.collector.next(GRACE),
            retired: plan.retired,
        })
    }

    fn perform<'a>(
        &mut self,
        writes: impl IntoIterator<Item = &'a ServiceWrite>,
    ) -> Result<(), Error> {
        for write in writes {
            match write {
                ServiceWrite::PutBackend(id, backend) => self.backends.put(*id, backend),
                ServiceWrite::DeleteBackend(id) => self.backends.delete(*id),
                ServiceWrite::PutSet(set, slots) => self.slots.put(*set, slots),
                ServiceWrite::DeleteSet(set, len) => self.slots.delete(*set, *len),
                ServiceWrite::PutService(key, service) => self.services.insert(key, service),
                ServiceWrite::DeleteService(key) => self.services.remove(key),
                ServiceWrite::PutRanges(_, keys) => self.ranges.put(keys),
                ServiceWrite::DeleteRanges(_, keys) => self.ranges.delete(keys),
            }?;
            self.actual.apply(write);
        }
        Ok(())
    }
}

/// What [`ServiceMaps::sync`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// At which time to call again even if nothing changes, to delete what is unused.
    pub next: Option<Duration>,
    /// Backends that take nothing any more. One that the slices give up after that is in it twice.
    pub retired: Vec<Retired>,
}
