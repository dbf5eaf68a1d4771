//! Services' way into the kernel, and the socket hooks' to their cgroup.

use std::{collections::HashMap, path::PathBuf, time::Instant};

use weir_api::service::ServiceInfo;

use crate::{
    compile::{
        health::HealthCheck,
        service::{ServiceIndex, ServiceOptions},
    },
    dataplane::{Error, cgroup, pins::Pins, service::ServiceMaps, table::Writes},
    state::Change,
};

use super::closer::{Closed, Closer, Order};

/// The service index and the kernel's maps.
pub struct Services {
    index: ServiceIndex,
    maps: ServiceMaps,
    /// The collector counts from here.
    epoch: Instant,
    due: Option<Instant>,
    cgroup: PathBuf,
    links_changed: u64,
    /// [`ServiceIndex::problems_version`] when the problems were last asked for.
    told: Option<u64>,
    closer: Closer,
    /// What the closer has not been told yet.
    order: Order,
}

impl Services {
    /// With the maps read back. `cgroup`: where the socket hooks belong.
    pub fn new(
        options: ServiceOptions,
        maps: ServiceMaps,
        cgroup: PathBuf,
        closer: Closer,
    ) -> Self {
        Self {
            index: ServiceIndex::new(options),
            told: None,
            maps,
            epoch: Instant::now(),
            due: None,
            cgroup,
            links_changed: 0,
            closer,
            // A former agent may have been killed before it had closed what it had to.
            order: Order {
                survey: true,
                ..Order::default()
            },
        }
    }

    /// Takes an object's change in; whether Services depend on it.
    pub fn apply(&mut self, change: &Change) -> bool {
        self.index.apply(change)
    }

    /// Brings the maps up to date.
    ///
    /// # Errors
    /// The first write that fails; every frontend then has its old or its new backends.
    pub fn sync(&mut self, now: Instant) -> Result<(), Error> {
        // After a failure the next call is the retry's business.
        self.due = None;
        let elapsed = || self.epoch.elapsed();
        let since = now.saturating_duration_since(self.epoch);
        let synced = self
            .maps
            .sync(&mut self.index, since, elapsed)
            .inspect_err(|_| {
                // It may have retired backends before it failed.
                self.order.survey = true;
            })?;
        for retired in &synced.retired {
            self.order.gone.note(retired);
        }
        self.due = synced.next.map(|next| self.epoch + next);
        Ok(())
    }

    /// Has the sockets closed whose backends have been retired. `pods`: the paths of the pods' network
    /// namespaces by their cookies, asked for only then.
    pub fn close_sockets(&mut self, pods: impl FnOnce() -> HashMap<u64, String>) {
        if self.order.is_empty() {
            return;
        }
        let order = std::mem::take(&mut self.order);
        self.closer.send(Order {
            pods: pods(),
            ..order
        });
    }

    /// How many sockets were closed.
    pub fn closed(&self) -> &Closed {
        self.closer.closed()
    }

    /// Opens the maps again: they have another size.
    ///
    /// # Errors
    /// As [`ServiceMaps::reopen`].
    pub fn reopen(&mut self, pins: &Pins, writes: &Writes) -> Result<(), Error> {
        self.maps.reopen(pins, writes)
    }

    /// Name, entries and size of each map.
    pub fn sizes(&self) -> Vec<(&'static str, usize, u32)> {
        self.maps.sizes().to_vec()
    }

    /// Takes less memory from now on, after many objects were taken in.
    pub fn refill(&mut self) {
        self.index.refill();
        self.maps.refill();
    }

    /// Attaches the socket hooks, or replaces their programs.
    ///
    /// # Errors
    /// The cgroup is not there, or the kernel refuses.
    pub fn attach(&mut self, pins: &Pins) -> Result<(), Error> {
        self.links_changed += cgroup::ensure(pins, &self.cgroup)? as u64;
        Ok(())
    }

    /// How many links were attached, or given another program, so far.
    pub fn links_changed(&self) -> u64 {
        self.links_changed
    }

    /// When `sync` wants to be called again.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What load balancers may ask about.
    pub fn health_checks(&self) -> Vec<HealthCheck> {
        let all = self.index.health_checks();
        all.map(|check| HealthCheck {
            namespace: check.service.namespace.to_string(),
            name: check.service.name.to_string(),
            port: check.port,
            local: check.local_endpoints as usize,
        })
        .collect()
    }

    /// Every Service, compared with what the kernel holds.
    pub fn list(&self) -> Vec<ServiceInfo> {
        self.index.list(self.maps.actual())
    }

    /// What is wrong with Services, EndpointSlices and HostPorts, unless it is what was told last.
    pub fn problems(&mut self) -> Option<Vec<String>> {
        let version = self.index.problems_version();
        if self.told.replace(version) == Some(version) {
            return None;
        }
        let problems = self.index.problems();
        Some(problems.iter().map(ToString::to_string).collect())
    }
}
