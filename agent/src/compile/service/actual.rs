//! What the kernel's maps hold, mirrored as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use weir_abi::policy::{IdKey, IdKind};
use weir_abi::service::{Backend, BackendId, Service, ServiceKey, SetId, SlotKey};

use super::hash::Hash;

/// One write of one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceWrite {
    /// `IDS`: a number gets its content.
    PutId(IdKey, u32),
    /// `IDS`: a number is free.
    DeleteId(IdKey),
    /// `BACKENDS`.
    PutBackend(BackendId, Backend),
    /// `BACKENDS`.
    DeleteBackend(BackendId),
    /// `SLOTS`.
    PutSlot(SlotKey, BackendId),
    /// `SLOTS`.
    DeleteSlot(SlotKey),
    /// `SERVICES`.
    PutService(ServiceKey, Service),
    /// `SERVICES`.
    DeleteService(ServiceKey),
}

/// The maps' content, as read back at start and as changed by every write since.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceActual {
    /// `SERVICES`.
    pub services: BTreeMap<ServiceKey, Service>,
    /// `SLOTS`.
    pub slots: BTreeMap<SlotKey, BackendId>,
    /// `BACKENDS`.
    pub backends: BTreeMap<BackendId, Backend>,
    /// Numbers of sets, from `IDS`.
    pub set_ids: BTreeMap<Hash, SetId>,
    /// Numbers of backends, from `IDS`.
    pub backend_ids: BTreeMap<Hash, BackendId>,
    /// Numbers in use, of sets and of backends.
    used: [BTreeSet<u32>; 2],
    /// Where the search for a free number begins.
    cursor: u32,
}

impl ServiceActual {
    /// From the maps' content; entries of `IDS` of other kinds are passed over.
    pub fn new(
        ids: impl IntoIterator<Item = (IdKey, u32)>,
        services: impl IntoIterator<Item = (ServiceKey, Service)>,
        slots: impl IntoIterator<Item = (SlotKey, BackendId)>,
        backends: impl IntoIterator<Item = (BackendId, Backend)>,
    ) -> Self {
        let mut actual = Self {
            services: services.into_iter().collect(),
            slots: slots.into_iter().collect(),
            backends: backends.into_iter().collect(),
            ..Self::default()
        };
        for (key, id) in ids {
            actual.put_id(key, id);
        }
        actual
    }

    /// Does in the mirror what the write does in the kernel.
    pub fn apply(&mut self, write: &ServiceWrite) {
        match *write {
            ServiceWrite::PutId(key, id) => self.put_id(key, id),
            ServiceWrite::DeleteId(key) => self.delete_id(key),
            ServiceWrite::PutBackend(id, backend) => {
                self.backends.insert(id, backend);
            }
            ServiceWrite::DeleteBackend(id) => {
                self.backends.remove(&id);
            }
            ServiceWrite::PutSlot(key, backend) => {
                self.slots.insert(key, backend);
            }
            ServiceWrite::DeleteSlot(key) => {
                self.slots.remove(&key);
            }
            ServiceWrite::PutService(key, service) => {
                self.services.insert(key, service);
            }
            ServiceWrite::DeleteService(key) => {
                self.services.remove(&key);
            }
        }
    }

    /// The keys of a set's slots.
    pub(super) fn slots_of(&self, set: SetId) -> impl Iterator<Item = SlotKey> {
        self.slots.range(slots(set)).map(|(key, _)| *key)
    }

    /// The last number given out; the next free one is looked for behind it, so that a number that
    /// became free is the last to be used again.
    pub(super) fn cursor(&self) -> u32 {
        self.cursor
    }

    /// Whether a set has this number.
    pub(super) fn is_set(&self, id: u32) -> bool {
        self.used[0].contains(&id)
    }

    /// Whether a backend has this number.
    pub(super) fn is_backend(&self, id: u32) -> bool {
        self.used[1].contains(&id)
    }

    fn put_id(&mut self, key: IdKey, id: u32) {
        if key.kind == IdKind::Set as u32 {
            self.set_ids.insert(Hash(key.hash), SetId(id));
            self.used[0].insert(id);
        } else if key.kind == IdKind::Backend as u32 {
            self.backend_ids.insert(Hash(key.hash), BackendId(id));
            self.used[1].insert(id);
        } else {
            return;
        }
        self.cursor = self.cursor.max(id);
    }

    fn delete_id(&mut self, key: IdKey) {
        if key.kind == IdKind::Set as u32 {
            if let Some(SetId(id)) = self.set_ids.remove(&Hash(key.hash)) {
                self.used[0].remove(&id);
            }
        } else if let Some(BackendId(id)) = self.backend_ids.remove(&Hash(key.hash)) {
            self.used[1].remove(&id);
        }
    }
}

fn slots(set: SetId) -> RangeInclusive<SlotKey> {
    SlotKey { set, index: 0 }..=SlotKey {
        set,
        index: u32::MAX,
    }
}
