//! `SOURCE_RANGES`: which clients may use a frontend.

use aya::maps::{Map, MapData, MapError, lpm_trie};
use weir_abi::{map, service::RangeKey};

use super::{
    Error,
    pins::Pins,
    table::{self, Writes, optional},
};

const NAME: &str = map::SOURCE_RANGES;

/// The trie.
pub struct SourceRanges {
    map: lpm_trie::LpmTrie<MapData, [u32; 6], u32>,
    size: u32,
    writes: Writes,
}

impl SourceRanges {
    /// Opens the pinned map.
    ///
    /// # Errors
    /// It is not pinned, or not of this shape.
    pub fn open(pins: &Pins, writes: &Writes) -> Result<Self, Error> {
        let (data, size) = table::open(pins, NAME)?;
        let map = Map::from_map_data(data)
            .and_then(lpm_trie::LpmTrie::try_from)
            .map_err(|e| Error::map(NAME, size, "open", &e))?;
        Ok(Self {
            map,
            size,
            writes: writes.clone(),
        })
    }

    /// Every prefix.
    ///
    /// # Errors
    /// The kernel's.
    pub fn entries(&self) -> Result<Vec<RangeKey>, Error> {
        let keys: Result<Vec<_>, MapError> = self.map.iter().map(|entry| Ok(entry?.0)).collect();
        let keys = keys.map_err(|e| Error::map(NAME, self.size, "list", &e))?;
        Ok(keys.iter().map(from_trie).collect())
    }

    /// Writes the prefixes of a number to which nothing refers yet: all, or none if one fails.
    ///
    /// # Errors
    /// [`Error::Full`], or the kernel's.
    pub fn put(&mut self, keys: &[RangeKey]) -> Result<(), Error> {
        for (done, key) in keys.iter().enumerate() {
            self.writes.count();
            if let Err(e) = self.map.insert(&to_trie(key), 1, 0) {
                // The number may get other prefixes next.
                self.delete(&keys[..done])?;
                return Err(Error::map(NAME, self.size, "update", &e));
            }
        }
        Ok(())
    }

    /// Removes prefixes; one that is gone is fine.
    ///
    /// # Errors
    /// The kernel's.
    pub fn delete(&mut self, keys: &[RangeKey]) -> Result<(), Error> {
        for key in keys {
            self.writes.count();
            optional(self.map.remove(&to_trie(key)))
                .map_err(|e| Error::map(NAME, self.size, "delete", &e))?;
        }
        Ok(())
    }
}

fn to_trie(key: &RangeKey) -> lpm_trie::Key<[u32; 6]> {
    let [a, b, c, d] = key.addr;
    lpm_trie::Key::new(key.prefix_len, [key.ranges, key.family, a, b, c, d])
}

fn from_trie(key: &lpm_trie::Key<[u32; 6]>) -> RangeKey {
    let [ranges, family, a, b, c, d] = key.data();
    RangeKey {
        prefix_len: key.prefix_len(),
        ranges,
        family,
        addr: [a, b, c, d],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trie_key_has_the_bytes_of_the_abi_and_comes_back_the_same() {
        for (text, len) in [("10.1.2.0", 24), ("fd00:1::", 64), ("::", 0)] {
            let ip: std::net::IpAddr = text.parse().unwrap();
            let key = RangeKey::prefix(7, ip.into(), len);
            let trie = to_trie(&key);
            assert_eq!(from_trie(&trie), key);
            assert_eq!(trie.prefix_len(), 64 + len);
        }
    }
}
