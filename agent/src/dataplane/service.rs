//! The service maps: read back at start, written in the order that the plan gives.

use std::time::Duration;

use weir_abi::map;
use weir_abi::policy::IdKey;
use weir_abi::service::{Backend, BackendId, Service, ServiceKey, SlotKey};

use super::Error;
use super::pins::Pins;
use super::table::{Table, Writes};
use crate::compile::service::{Collector, ServiceActual, ServiceIndex, ServiceWrite, plan};

/// How long what nothing refers to stays: no program runs nearly as long, so none can still be
/// reading a set when it is deleted, nor meet its number with another content.
pub const GRACE: Duration = Duration::from_secs(5);

/// The service maps with their mirror.
pub struct ServiceMaps {
    ids: Table<IdKey, u32>,
    services: Table<ServiceKey, Service>,
    slots: Table<SlotKey, BackendId>,
    backends: Table<BackendId, Backend>,
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
            ids: Table::open(pins, map::IDS, writes)?,
            services: Table::open(pins, map::SERVICES, writes)?,
            slots: Table::open(pins, map::SLOTS, writes)?,
            backends: Table::open(pins, map::BACKENDS, writes)?,
            actual: ServiceActual::default(),
            collector: Collector::default(),
            settled: false,
        };
        maps.read_back()?;
        Ok(maps)
    }

    /// Reads the maps again; what was known of them is forgotten.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_back(&mut self) -> Result<(), Error> {
        self.settled = false;
        self.collector = Collector::default();
        self.actual = ServiceActual::new(
            self.ids.entries()?,
            self.services.entries()?,
            self.slots.entries()?,
            self.backends.entries()?,
        );
        Ok(())
    }

    /// What the maps hold.
    pub fn actual(&self) -> &ServiceActual {
        &self.actual
    }

    /// Makes the maps hold what they should, and deletes what has been unused for [`GRACE`]. `now`
    /// is the time since any fixed moment. Returns at which time to call again even if nothing
    /// changes, to delete the rest.
    ///
    /// # Errors
    /// The first write that fails ends it; every frontend then has its old or its new backends,
    /// and the next call goes on from there.
    pub fn sync(
        &mut self,
        index: &mut ServiceIndex,
        now: Duration,
    ) -> Result<Option<Duration>, Error> {
        let changed = self.settled.then(|| index.changed());
        let plan = plan(&self.actual, index.desired(), changed);
        self.settled = false;
        self.collector.note(now, &plan);
        self.perform(plan.writes())?;
        let due = self.collector.due(now, GRACE, &self.actual);
        self.perform(&due)?;
        self.settled = true;
        index.settled();
        Ok(self.collector.next(GRACE))
    }

    fn perform<'a>(
        &mut self,
        writes: impl IntoIterator<Item = &'a ServiceWrite>,
    ) -> Result<(), Error> {
        for write in writes {
            match write {
                ServiceWrite::PutId(key, id) => self.ids.insert(key, id),
                ServiceWrite::DeleteId(key) => self.ids.remove(key),
                ServiceWrite::PutBackend(id, backend) => self.backends.insert(id, backend),
                ServiceWrite::DeleteBackend(id) => self.backends.remove(id),
                ServiceWrite::PutSlot(key, backend) => self.slots.insert(key, backend),
                ServiceWrite::DeleteSlot(key) => self.slots.remove(key),
                ServiceWrite::PutService(key, service) => self.services.insert(key, service),
                ServiceWrite::DeleteService(key) => self.services.remove(key),
            }?;
            self.actual.apply(write);
        }
        Ok(())
    }
}
