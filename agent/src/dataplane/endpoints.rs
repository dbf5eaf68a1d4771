//! `ENDPOINTS`, `LOCAL_PODS` and `INCARNATIONS`, with a mirror of what the kernel holds: only differences are
//! written.

use std::collections::HashMap;

use weir_abi::{Addr, endpoint::Endpoint, map};

use super::{
    Error,
    incarnations::Incarnations,
    pins::Pins,
    table::{Table, Writes},
};
use crate::compile::endpoint::addresses;

/// The maps.
pub struct EndpointMaps {
    endpoints: Table<u32, Endpoint>,
    local_pods: Table<Addr, Endpoint>,
    incarnations: Incarnations,
    by_ifindex: HashMap<u32, Endpoint>,
    by_address: HashMap<Addr, Endpoint>,
}

impl EndpointMaps {
    /// Opens the pinned maps and reads them.
    ///
    /// # Errors
    /// They are not pinned, or the kernel's.
    pub fn open(pins: &Pins, writes: &Writes) -> Result<Self, Error> {
        let endpoints: Table<u32, Endpoint> = Table::open(pins, map::ENDPOINTS, writes)?;
        let local_pods: Table<Addr, Endpoint> = Table::open(pins, map::LOCAL_PODS, writes)?;
        let (by_ifindex, by_address) = (endpoints.entries()?, local_pods.entries()?);
        Ok(Self {
            incarnations: Incarnations::open(pins, writes, &by_ifindex)?,
            endpoints,
            local_pods,
            by_ifindex,
            by_address,
        })
    }

    /// What the kernel holds, by interface index.
    pub fn by_ifindex(&self) -> &HashMap<u32, Endpoint> {
        &self.by_ifindex
    }

    /// Makes the programs know the endpoint by its device: before they are attached to it.
    ///
    /// # Errors
    /// The map is full, or the kernel's.
    pub fn set_device(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        let old = self.by_ifindex.get(&endpoint.ifindex).copied();
        if old != Some(*endpoint) {
            self.end(old)?;
            self.endpoints.insert(&endpoint.ifindex, endpoint)?;
            self.by_ifindex.insert(endpoint.ifindex, *endpoint);
        }
        Ok(())
    }

    /// Makes the endpoint's addresses local: after the programs are attached. From then on it has flows.
    ///
    /// # Errors
    /// The map is full, or the kernel's.
    pub fn set_addresses(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        for address in addresses(endpoint) {
            let old = self.by_address.get(&address).copied();
            if old != Some(*endpoint) {
                self.end(old)?;
                self.local_pods.insert(&address, endpoint)?;
                self.by_address.insert(address, *endpoint);
            }
        }
        self.incarnations.add(endpoint)
    }

    /// Ends the flows' short way to and from what stood in another's place.
    fn end(&mut self, old: Option<Endpoint>) -> Result<(), Error> {
        old.map_or(Ok(()), |old| self.incarnations.remove(old.incarnation))
    }

    /// Takes the endpoint's addresses away, unless they are another endpoint's by now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_addresses(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        self.incarnations.remove(endpoint.incarnation)?;
        for address in addresses(endpoint) {
            let same = |e: &Endpoint| e.incarnation == endpoint.incarnation;
            if self.by_address.get(&address).is_some_and(same) {
                self.local_pods.remove(&address)?;
                self.by_address.remove(&address);
            }
        }
        Ok(())
    }

    /// Takes the endpoint's device away, unless it is another endpoint's by now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_device(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        let same = |e: &Endpoint| e.incarnation == endpoint.incarnation;
        if self.by_ifindex.get(&endpoint.ifindex).is_some_and(same) {
            self.endpoints.remove(&endpoint.ifindex)?;
            self.by_ifindex.remove(&endpoint.ifindex);
        }
        Ok(())
    }

    /// Entries of either map that are of none of these incarnations: leftovers of endpoints that
    /// nothing remembers.
    pub fn strangers(&self, known: impl Fn(u32) -> bool) -> Vec<Endpoint> {
        let all = self.by_ifindex.values().chain(self.by_address.values());
        let mut strangers: Vec<Endpoint> = all.filter(|e| !known(e.incarnation)).copied().collect();
        strangers.sort_by_key(|e| e.incarnation);
        strangers.dedup_by_key(|e| e.incarnation);
        strangers
    }

    /// The largest incarnation the kernel holds.
    pub fn last_incarnation(&self) -> u32 {
        let all = self.by_ifindex.values().chain(self.by_address.values());
        all.map(|e| e.incarnation).max().unwrap_or(0)
    }
}
