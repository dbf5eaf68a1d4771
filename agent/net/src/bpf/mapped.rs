//! An array map in our own memory.

#![expect(unsafe_code, reason = "mmap and shared memory have no safe wrapper")]

use std::{
    num::NonZeroUsize,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::object::map_info;
use crate::error::{Error, Result};

/// `BPF_MAP_TYPE_ARRAY`.
const ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;

/// A `BPF_F_MMAPABLE` array map in this process's memory: each 8-byte word of each element is read
/// and written by one aligned load or store, so that a program sees the old word or the new one and
/// nothing between. (`BPF_MAP_UPDATE_ELEM` copies an element in pieces of any size.)
#[derive(Debug)]
pub struct MappedArray {
    base: NonNull<AtomicU64>,
    /// Bytes mapped.
    len: usize,
    entries: u32,
    /// 8-byte words in an element.
    words: u32,
}

// SAFETY: the memory is shared with the kernel's programs anyway and is only touched by atomic
// loads and stores; the mapping belongs to no thread.
unsafe impl Send for MappedArray {}
// SAFETY: as above.
unsafe impl Sync for MappedArray {}

impl MappedArray {
    /// Maps an array of elements of whole 8-byte words. The map stays alive as long as this does.
    pub fn new(map: BorrowedFd<'_>) -> Result<Self> {
        let info = map_info(map)?;
        let object = format!("map {}", info.name);
        if info.map_type != ARRAY || info.flags & MMAPABLE == 0 || info.value_size % 8 != 0 {
            let reason = format!(
                "type {} flags {:#x} value size {}: not an mmapable array of 8-byte words",
                info.map_type, info.flags, info.value_size
            );
            return Err(Error::Answer {
                call: "mmap",
                object,
                reason,
            });
        }
        let fail = |e: std::io::Error| Error::call("mmap", &object, e);
        let bytes = u64::from(info.value_size) * u64::from(info.max_entries);
        let len = usize::try_from(bytes).ok().and_then(NonZeroUsize::new);
        let len = len.ok_or_else(|| fail(std::io::ErrorKind::InvalidInput.into()))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice changes no existing memory;
        // the kernel checks that the map is as long (rounded to pages).
        let base = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, map, 0) };
        let base = base.map_err(|e| fail(e.into()))?.cast::<AtomicU64>();
        let (entries, words) = (info.max_entries, info.value_size / 8);
        Ok(Self {
            base,
            len: len.get(),
            entries,
            words,
        })
    }

    /// Number of elements.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Reads word `word` of element `index`; none beyond the end.
    pub fn get(&self, index: u32, word: u32) -> Option<u64> {
        self.cell(index, word)
            .map(|cell| cell.load(Ordering::Acquire))
    }

    /// Writes word `word` of element `index` in one store, after all earlier writes of this thread;
    /// false beyond the end.
    #[must_use]
    pub fn set(&self, index: u32, word: u32, value: u64) -> bool {
        self.cell(index, word)
            .map(|cell| cell.store(value, Ordering::Release))
            .is_some()
    }

    fn cell(&self, index: u32, word: u32) -> Option<&AtomicU64> {
        if index >= self.entries || word >= self.words {
            return None;
        }
        let offset = index as usize * self.words as usize + word as usize;
        // SAFETY: offset < entries * words, the number of words mapped; the mapping is page
        // aligned, lives as long as `self`, and every access to it is atomic.
        Some(unsafe { self.base.add(offset).as_ref() })
    }
}

impl Drop for MappedArray {
    fn drop(&mut self) {
        // SAFETY: base and len are those of the mapping, which nothing refers to any more. It
        // cannot fail for a whole mapping.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}
