//! Pinned maps as typed tables. Every write of the agent goes through here and is counted, so that
//! a restart can show that it rewrote nothing.

use std::{
    collections::HashMap as Entries,
    hash::Hash,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, lpm_trie},
};
use weir_abi::policy::LpmKey;

use super::{Error, pins::Pins};

/// How many map writes the agent has made since it started, by everyone.
#[derive(Clone, Debug, Default)]
pub struct Writes(Arc<AtomicU64>);

impl Writes {
    /// So far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Opens a pinned map.
pub(super) fn open(pins: &Pins, name: &'static str) -> Result<(MapData, u32), Error> {
    open_at(&pins.map(name))
}

fn open_at(path: &Path) -> Result<(MapData, u32), Error> {
    let named = |e: &MapError| Error::pin(path, crate::causes::chain(e));
    let data = MapData::from_pin(path).map_err(|e| named(&e))?;
    let size = data.info().map_err(|e| named(&e))?.max_entries();
    Ok((data, size))
}

/// A hash map.
pub struct Table<K, V> {
    name: &'static str,
    size: u32,
    map: HashMap<MapData, K, V>,
    writes: Writes,
}

impl<K: Pod + Eq + Hash, V: Pod + PartialEq> Table<K, V> {
    /// Opens the pinned map of that name.
    ///
    /// # Errors
    /// It is not pinned, or not of this shape.
    pub fn open(pins: &Pins, name: &'static str, writes: &Writes) -> Result<Self, Error> {
        Self::open_at(&pins.map(name), name, writes)
    }

    /// The same, pinned under another name.
    pub(super) fn open_at(path: &Path, name: &'static str, writes: &Writes) -> Result<Self, Error> {
        let (data, size) = open_at(path)?;
        let map = Map::from_map_data(data)
            .and_then(HashMap::try_from)
            .map_err(|e| Error::map(name, size, "open", &e))?;
        Ok(Self {
            name,
            size,
            map,
            writes: writes.clone(),
        })
    }

    /// How many entries fit.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// One entry.
    ///
    /// # Errors
    /// The kernel's.
    pub fn get(&self, key: &K) -> Result<Option<V>, Error> {
        optional(self.map.get(key, 0)).map_err(|e| Error::map(self.name, self.size, "look-up", &e))
    }

    /// Adds or replaces an entry.
    ///
    /// # Errors
    /// [`Error::Full`], or the kernel's.
    pub fn insert(&mut self, key: &K, value: &V) -> Result<(), Error> {
        self.writes.count();
        self.map
            .insert(key, value, 0)
            .map_err(|e| Error::map(self.name, self.size, "update", &e))
    }

    /// Removes an entry; one that is gone is fine.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&mut self, key: &K) -> Result<(), Error> {
        self.writes.count();
        optional(self.map.remove(key))
            .map(|_| ())
            .map_err(|e| Error::map(self.name, self.size, "delete", &e))
    }

    /// Every entry.
    ///
    /// # Errors
    /// The kernel's.
    pub fn entries(&self) -> Result<Entries<K, V>, Error> {
        let all: Result<_, MapError> = self.map.iter().collect();
        all.map_err(|e| Error::map(self.name, self.size, "list", &e))
    }
}

/// An LPM trie keyed by [`LpmKey`].
pub struct Trie<V> {
    name: &'static str,
    size: u32,
    map: lpm_trie::LpmTrie<MapData, [u8; 20], V>,
    writes: Writes,
}

impl<V: Pod + PartialEq> Trie<V> {
    /// Opens the pinned map of that name.
    ///
    /// # Errors
    /// It is not pinned, or not of this shape.
    pub fn open(pins: &Pins, name: &'static str, writes: &Writes) -> Result<Self, Error> {
        Self::open_at(&pins.map(name), name, writes)
    }

    /// The same, pinned under another name.
    pub(super) fn open_at(path: &Path, name: &'static str, writes: &Writes) -> Result<Self, Error> {
        let (data, size) = open_at(path)?;
        let map = Map::from_map_data(data)
            .and_then(lpm_trie::LpmTrie::try_from)
            .map_err(|e| Error::map(name, size, "open", &e))?;
        Ok(Self {
            name,
            size,
            map,
            writes: writes.clone(),
        })
    }

    /// How many entries fit.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The entry of the longest prefix that holds the key.
    ///
    /// # Errors
    /// The kernel's.
    pub fn get(&self, key: &LpmKey) -> Result<Option<V>, Error> {
        optional(self.map.get(&to_trie(key), 0))
            .map_err(|e| Error::map(self.name, self.size, "look-up", &e))
    }

    /// Adds or replaces an entry.
    ///
    /// # Errors
    /// [`Error::Full`], or the kernel's.
    pub fn insert(&mut self, key: &LpmKey, value: &V) -> Result<(), Error> {
        self.writes.count();
        self.map
            .insert(&to_trie(key), value, 0)
            .map_err(|e| Error::map(self.name, self.size, "update", &e))
    }

    /// Removes an entry; one that is gone is fine.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&mut self, key: &LpmKey) -> Result<(), Error> {
        self.writes.count();
        optional(self.map.remove(&to_trie(key)))
            .map(|_| ())
            .map_err(|e| Error::map(self.name, self.size, "delete", &e))
    }

    /// Every entry.
    ///
    /// # Errors
    /// The kernel's.
    pub fn entries(&self) -> Result<Entries<LpmKey, V>, Error> {
        let named = |e: &MapError| Error::map(self.name, self.size, "list", e);
        let mut entries = Entries::new();
        for entry in self.map.iter() {
            let (key, value) = entry.map_err(|e| named(&e))?;
            entries.insert(from_trie(&key), value);
        }
        Ok(entries)
    }
}

/// An array whose elements may be written because nothing refers to them yet.
pub struct Elements<V: Pod> {
    name: &'static str,
    size: u32,
    map: Array<MapData, V>,
    writes: Writes,
}

impl<V: Pod> Elements<V> {
    /// Opens the pinned map of that name.
    ///
    /// # Errors
    /// It is not pinned, or not of this shape.
    pub fn open(pins: &Pins, name: &'static str, writes: &Writes) -> Result<Self, Error> {
        Self::open_at(&pins.map(name), name, writes)
    }

    /// The same, pinned under another name.
    pub(super) fn open_at(path: &Path, name: &'static str, writes: &Writes) -> Result<Self, Error> {
        let (data, size) = open_at(path)?;
        let map = Map::from_map_data(data)
            .and_then(Array::try_from)
            .map_err(|e| Error::map(name, size, "open", &e))?;
        Ok(Self {
            name,
            size,
            map,
            writes: writes.clone(),
        })
    }

    /// How many entries fit.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// One element.
    ///
    /// # Errors
    /// The index is outside, or the kernel's.
    pub fn get(&self, index: u32) -> Result<V, Error> {
        self.map
            .get(&index, 0)
            .map_err(|e| Error::map(self.name, self.size, "look-up", &e))
    }

    /// Writes an element.
    ///
    /// # Errors
    /// The index is outside, or the kernel's.
    pub fn set(&mut self, index: u32, value: V) -> Result<(), Error> {
        self.writes.count();
        self.map
            .set(index, value, 0)
            .map_err(|e| Error::map(self.name, self.size, "update", &e))
    }
}

pub(super) fn optional<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(None),
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

fn to_trie(key: &LpmKey) -> lpm_trie::Key<[u8; 20]> {
    let LpmKey {
        prefix_len,
        family,
        zero,
        addr,
    } = *key;
    let mut data = [0; 20];
    data[0] = family;
    data[1..4].copy_from_slice(&zero);
    for (chunk, word) in data[4..].chunks_exact_mut(4).zip(addr) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    lpm_trie::Key::new(prefix_len, data)
}

fn from_trie(key: &lpm_trie::Key<[u8; 20]>) -> LpmKey {
    let data = key.data();
    let word = |i: usize| {
        u32::from_ne_bytes([
            data[4 + 4 * i],
            data[5 + 4 * i],
            data[6 + 4 * i],
            data[7 + 4 * i],
        ])
    };
    LpmKey {
        prefix_len: key.prefix_len(),
        family: data[0],
        zero: [data[1], data[2], data[3]],
        addr: [word(0), word(1), word(2), word(3)],
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_trie_key_has_the_bytes_of_the_abi_and_comes_back_the_same() {
        for (text, len) in [("10.1.2.0", 24), ("fd00:1::", 64), ("::", 0)] {
            let address: IpAddr = text.parse().unwrap();
            let key = LpmKey::prefix(address.into(), len);
            let trie = to_trie(&key);
            assert_eq!(from_trie(&trie), key);
            assert_eq!(trie.prefix_len(), 32 + u32::from(len));
        }
        let data = to_trie(&LpmKey::prefix(
            "10.1.2.0".parse::<IpAddr>().unwrap().into(),
            24,
        ))
        .data();
        assert_eq!(data[..8], [4, 0, 0, 0, 10, 1, 2, 0]);
    }
}
