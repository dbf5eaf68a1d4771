//! What the kernel should hold, by content instead of by number.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::Addr;
use weir_abi::service::{BackendState, RangeKey, Service, ServiceKey, SetId};

use super::compile::Compiled;
use super::hash::{Content, RangesHash, SetHash};
use crate::refill::Refill as _;

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
    /// See [`Service::affinity_secs`].
    pub affinity_secs: u32,
    /// Whose clients may use it; `None` everyone's.
    pub ranges: Option<RangesHash>,
}

impl Frontend {
    /// Its value in `SERVICES`, if set and ranges have these numbers.
    pub(super) fn value(
        &self,
        desired: &Desired,
        set_id: impl Fn(&SetHash) -> Option<SetId>,
        ranges_id: impl Fn(&RangesHash) -> Option<u32>,
    ) -> Option<Service> {
        let (set, count) = match &self.set {
            Some(hash) => {
                let count = desired.sets.get(hash)?.len();
                (set_id(hash)?, u32::try_from(count).unwrap_or(u32::MAX))
            }
            None => Default::default(),
        };
        let ranges = match &self.ranges {
            Some(hash) if *hash == RangesHash::of([]) => NOBODY,
            Some(hash) => ranges_id(hash)?,
            None => 0,
        };
        Some(Service {
            set,
            count,
            flags: self.flags,
            affinity_secs: self.affinity_secs,
            ranges,
        })
    }
}

/// Number of source ranges that has no prefix, ever: no client is in it.
const NOBODY: u32 = u32::MAX;

/// A list of source ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    hash: RangesHash,
    prefixes: Box<[RangeKey]>,
}

impl Ranges {
    /// A sorted list of keys whose [`RangeKey::ranges`] is 0.
    pub(super) fn new(prefixes: Box<[RangeKey]>) -> Self {
        Self {
            hash: RangesHash::of(&prefixes),
            prefixes,
        }
    }

    /// Of the list.
    pub(super) fn hash(&self) -> RangesHash {
        self.hash
    }

    /// The keys under a number.
    pub(super) fn keys(&self, ranges: u32) -> Box<[RangeKey]> {
        let prefixes = self.prefixes.iter();
        prefixes.map(|key| RangeKey { ranges, ..*key }).collect()
    }
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
    /// `SOURCE_RANGES`, and how many objects use each.
    pub ranges: BTreeMap<RangesHash, (u32, Ranges)>,
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
        if let Some(ranges) = &compiled.ranges
            && let Some((count, _)) = self.ranges.get_mut(&ranges.hash)
        {
            *count -= 1;
            if *count == 0 {
                self.ranges.remove(&ranges.hash);
            }
        }
    }

    /// Takes less memory from now on.
    pub(super) fn refill(&mut self) {
        self.frontends.refill();
        self.sets.refill();
        self.backends.refill();
        self.markers.refill();
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
        if let Some(ranges) = compiled.ranges.as_ref().filter(|r| !r.prefixes.is_empty()) {
            let new = || (0, ranges.clone());
            self.ranges.entry(ranges.hash).or_insert_with(new).0 += 1;
        }
    }
}

/// What has changed in [`Desired`] since the kernel last agreed with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changed {
    pub(super) frontends: BTreeSet<ServiceKey>,
    pub(super) sets: BTreeSet<SetHash>,
    pub(super) backends: BTreeSet<Content>,
    pub(super) ranges: BTreeSet<RangesHash>,
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
        self.ranges
            .extend(compiled.ranges.as_ref().map(Ranges::hash));
    }
}
