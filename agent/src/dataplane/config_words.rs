//! `CONFIG`, mapped into memory: what the programs are told of the configuration.

use std::os::fd::AsFd as _;

use weir_abi::map;
use weir_net::bpf::MappedArray;

use super::{
    Error,
    pins::Pins,
    table::{self, Writes},
};

/// The mapped array.
pub struct ConfigWords {
    array: MappedArray,
    writes: Writes,
}

impl ConfigWords {
    /// Maps the pinned array.
    ///
    /// # Errors
    /// It is not pinned, or was not made with `BPF_F_MMAPABLE`.
    pub fn open(pins: &Pins, writes: &Writes) -> Result<Self, Error> {
        let (data, _) = table::open(pins, map::CONFIG)?;
        let array = MappedArray::new(data.fd().as_fd())
            .map_err(|e| Error::pin(pins.map(map::CONFIG), e))?;
        Ok(Self {
            array,
            writes: writes.clone(),
        })
    }

    /// Makes a word say one more than it does.
    ///
    /// # Errors
    /// The word is outside the array.
    pub fn advance(&self, word: u32) -> Result<(), Error> {
        let now = self.array.get(word, 0).unwrap_or_default();
        self.ensure(word, now.wrapping_add(1))
    }

    /// Makes a word ([`weir_abi::node::config`]) say this.
    ///
    /// # Errors
    /// The word is outside the array.
    pub fn ensure(&self, word: u32, value: u64) -> Result<(), Error> {
        if self.array.get(word, 0) == Some(value) {
            return Ok(());
        }
        self.writes.count();
        if self.array.set(word, 0, value) {
            return Ok(());
        }
        Err(Error::Full {
            map: map::CONFIG,
            size: self.array.entries(),
        })
    }
}
