//! What the kernel should hold, by content instead of by number.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::Addr;
use weir_abi::service::{BackendState, ServiceKey};

use super::compile::Compiled;
use super::hash::{Content, SetHash};

/// What a key of `SERVICES` leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The key is an address's marker with these flags ([`weir_abi::service::marker`]).
    Marker(u32),
    /// The key is a frontend.
    Frontend(Frontend),
}

/// What a frontend leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frontend {
    /// Its set; `None` has no backends.
    pub set: Option<SetHash>,
    /// Bits of [`weir_abi::service::frontend`].
    pub flags: u32,
    /// See [`weir_abi::service::Service::affinity_secs`].
    pub affinity_secs: u32,
}

/// What the kernel should hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// `SERVICES`.
    pub frontends: BTreeMap<ServiceKey, Target>,
    /// Members of the sets, by the hash of each: `SLOTS`.
    pub sets: BTreeMap<SetHash, Box<[Content]>>,
    /// `BACKENDS`. One that is not [`BackendState::Active`] is kept if it is there, never added.
    pub backends: BTreeMap<Content, BackendState>,
    /// How many of those that have frontends at an address need its marker.
    markers: BTreeMap<Addr, u32>,
}

impl Desired {
    /// Takes out what one object has put in. Frontends have one owner, and the contents of sets and backends
    /// tell whose they are; only markers may be of several.
    pub(super) fn remove(&mut self, compiled: &Compiled) {
        for (key, _) in &compiled.frontends {
            self.frontends.remove(key);
        }
        for (addr, _) in &compiled.markers {
            if let Some(count) = self.markers.get_mut(addr) {
                *count -= 1;
                if *count == 0 {
                    self.markers.remove(addr);
                    self.frontends.remove(&ServiceKey::marker(*addr));
                }
            }
        }
        for (set, _) in &compiled.sets {
            self.sets.remove(set);
        }
        for (content, _) in &compiled.backends {
            self.backends.remove(content);
        }
    }

    /// Puts in what one object wants.
    pub(super) fn add(&mut self, compiled: &Compiled) {
        for (key, frontend) in &compiled.frontends {
            self.frontends.insert(*key, Target::Frontend(*frontend));
        }
        for (addr, flags) in &compiled.markers {
            *self.markers.entry(*addr).or_default() += 1;
            let target = Target::Marker(*flags);
            self.frontends.insert(ServiceKey::marker(*addr), target);
        }
        self.sets.extend(compiled.sets.iter().cloned());
        self.backends.extend(compiled.backends.iter().copied());
    }
}

/// What has changed in [`Desired`] since the kernel last agreed with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changed {
    pub(super) frontends: BTreeSet<ServiceKey>,
    pub(super) sets: BTreeSet<SetHash>,
    pub(super) backends: BTreeSet<Content>,
}

impl Changed {
    /// Everything of an object that comes or goes.
    pub(super) fn note(&mut self, compiled: &Compiled) {
        self.frontends
            .extend(compiled.frontends.iter().map(|(k, _)| *k));
        let markers = compiled.markers.iter();
        self.frontends
            .extend(markers.map(|(addr, _)| ServiceKey::marker(*addr)));
        self.sets.extend(compiled.sets.iter().map(|(set, _)| *set));
        self.backends
            .extend(compiled.backends.iter().map(|(c, _)| *c));
    }
}
