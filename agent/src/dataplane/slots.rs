//! `POLICY_SLOTS`, mapped into memory: each word is changed by one aligned 8-byte store.

use std::os::fd::AsFd as _;

use weir_abi::{map, policy::PolicySlot};
use weir_net::bpf::MappedArray;

use super::{
    Error,
    pins::Pins,
    table::{self, Writes},
};

/// Word of [`PolicySlot::groups`].
const GROUPS: u32 = 0;
/// Word of [`PolicySlot::epoch`].
const EPOCH: u32 = 1;

/// The mapped array.
pub struct Slots {
    array: MappedArray,
    writes: Writes,
}

impl Slots {
    /// Maps the pinned array.
    ///
    /// # Errors
    /// It is not pinned, or was not made with `BPF_F_MMAPABLE`.
    pub fn open(pins: &Pins, writes: &Writes) -> Result<Self, Error> {
        let (data, _) = table::open(pins, map::POLICY_SLOTS)?;
        let array = MappedArray::new(data.fd().as_fd())
            .map_err(|e| Error::pin(pins.map(map::POLICY_SLOTS), e))?;
        Ok(Self {
            array,
            writes: writes.clone(),
        })
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.array.entries()
    }

    /// One slot; `None` outside the array.
    pub fn get(&self, slot: u32) -> Option<PolicySlot> {
        let groups = self.array.get(slot, GROUPS)?;
        let epoch = self.array.get(slot, EPOCH)?;
        Some(PolicySlot { groups, epoch })
    }

    /// Stores the `groups` word.
    ///
    /// # Errors
    /// The slot is outside the array.
    pub fn set_groups(&mut self, slot: u32, groups: u64) -> Result<(), Error> {
        self.set(slot, GROUPS, groups)
    }

    /// Stores the `epoch` word.
    ///
    /// # Errors
    /// The slot is outside the array.
    pub fn set_epoch(&mut self, slot: u32, epoch: u64) -> Result<(), Error> {
        self.set(slot, EPOCH, epoch)
    }

    fn set(&mut self, slot: u32, word: u32, value: u64) -> Result<(), Error> {
        self.writes.count();
        if self.array.set(slot, word, value) {
            return Ok(());
        }
        Err(Error::Full {
            map: map::POLICY_SLOTS,
            size: self.array.entries(),
        })
    }
}
