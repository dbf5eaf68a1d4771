//! `SLOTS` and `BACKENDS`, mapped into memory: a word is changed by one aligned 8-byte store, without
//! a system call.

use std::os::fd::AsFd as _;

use weir_abi::{
    map,
    service::{Backend, BackendId, SetId, Slot},
};
use weir_net::bpf::MappedArray;

use super::{
    Error,
    pins::Pins,
    table::{self, Writes},
};

/// Last word of a [`Backend`].
const LAST: u32 = Backend::WORDS as u32 - 1;

/// One mapped array.
struct Mapped {
    name: &'static str,
    array: MappedArray,
    writes: Writes,
}

impl Mapped {
    fn open(pins: &Pins, name: &'static str, writes: &Writes) -> Result<Self, Error> {
        let (data, _) = table::open(pins, name)?;
        let array =
            MappedArray::new(data.fd().as_fd()).map_err(|e| Error::pin(pins.map(name), e))?;
        Ok(Self {
            name,
            array,
            writes: writes.clone(),
        })
    }

    /// Stores the words in their order, and counts one write.
    fn set(&self, index: u32, words: impl IntoIterator<Item = (u32, u64)>) -> Result<(), Error> {
        self.writes.count();
        for (word, value) in words {
            if !self.array.set(index, word, value) {
                return Err(Error::Full {
                    map: self.name,
                    size: self.array.entries(),
                });
            }
        }
        Ok(())
    }
}

/// `SLOTS`.
pub struct SlotArray(Mapped);

impl SlotArray {
    /// Maps the pinned array.
    ///
    /// # Errors
    /// It is not pinned, or was not made with `BPF_F_MMAPABLE`.
    pub fn open(pins: &Pins, writes: &Writes) -> Result<Self, Error> {
        Mapped::open(pins, map::SLOTS, writes).map(Self)
    }

    /// How many elements it has.
    pub fn size(&self) -> u32 {
        self.0.array.entries()
    }

    /// All slots.
    pub fn entries(&self) -> Vec<Slot> {
        let slots = 0..self.0.array.entries();
        let word = |index| Slot::unpack(self.0.array.get(index, 0).unwrap_or_default());
        slots.map(word).collect()
    }

    /// Writes a set to which nothing refers yet.
    ///
    /// # Errors
    /// [`Error::Full`]; nothing is written then.
    pub fn put(&self, set: SetId, slots: &[Slot]) -> Result<(), Error> {
        self.fits(set, slots.len())?;
        let words = slots.iter().map(|slot| slot.pack());
        (set.0..)
            .zip(words)
            .try_for_each(|(at, word)| self.0.set(at, [(0, word)]))
    }

    /// Empties the slots of a set that no program can be reading.
    ///
    /// # Errors
    /// [`Error::Full`] if it is not in the array.
    pub fn delete(&self, set: SetId, len: u32) -> Result<(), Error> {
        self.fits(set, len as usize)?;
        (set.0..set.0 + len).try_for_each(|at| self.0.set(at, [(0, 0)]))
    }

    fn fits(&self, set: SetId, len: usize) -> Result<(), Error> {
        let size = self.0.array.entries();
        if set.0 as usize + len <= size as usize {
            return Ok(());
        }
        Err(Error::Full {
            map: map::SLOTS,
            size,
        })
    }
}

/// `BACKENDS`.
pub struct BackendArray(Mapped);

impl BackendArray {
    /// Maps the pinned array.
    ///
    /// # Errors
    /// It is not pinned, or was not made with `BPF_F_MMAPABLE`.
    pub fn open(pins: &Pins, writes: &Writes) -> Result<Self, Error> {
        Mapped::open(pins, map::BACKENDS, writes).map(Self)
    }

    /// How many elements it has.
    pub fn size(&self) -> u32 {
        self.0.array.entries()
    }

    /// All backends.
    pub fn entries(&self) -> Vec<(BackendId, Backend)> {
        let ids = (1..self.0.array.entries()).map(BackendId);
        ids.filter_map(|id| Some((id, self.get(id)?))).collect()
    }

    /// One backend.
    pub fn get(&self, id: BackendId) -> Option<Backend> {
        let mut words = [0; Backend::WORDS];
        for (word, value) in (0..).zip(&mut words) {
            *value = self.0.array.get(id.0, word)?;
        }
        Backend::unpack(words)
    }

    /// Writes a backend. A program sees the old one, none, or the new one; if only the state differs,
    /// the old or the new state.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn put(&self, id: BackendId, backend: &Backend) -> Result<(), Error> {
        let [a, b, c, last] = backend.pack();
        let state_of_old = |old: Backend| Backend {
            state: backend.state,
            ..old
        };
        if self.get(id).map(state_of_old) == Some(*backend) {
            return self.0.set(id.0, [(LAST, last)]);
        }
        self.0
            .set(id.0, [(LAST, 0), (0, a), (1, b), (2, c), (LAST, last)])
    }

    /// Empties an element.
    ///
    /// # Errors
    /// [`Error::Full`] if it is not in the array.
    pub fn delete(&self, id: BackendId) -> Result<(), Error> {
        self.0.set(id.0, [(LAST, 0), (0, 0), (1, 0), (2, 0)])
    }
}
