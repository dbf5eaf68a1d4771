//! A longest-prefix-match table with the keys of the kernel's tries.

use std::collections::HashMap;

use weir_abi::Addr;
use weir_abi::policy::LpmKey;

/// Prefixes of both families, each with a value.
#[derive(Clone, Debug)]
pub struct Lpm<V> {
    entries: HashMap<LpmKey, V>,
    /// How many entries have each length, by (is it IPv6, bits of the address).
    lengths: [[u32; 129]; 2],
}

impl<V> Default for Lpm<V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            lengths: [[0; 129]; 2],
        }
    }
}

/// (is it IPv6, bits of the address); a key that no code of ours makes counts as its family's
/// nearest.
fn shape(key: &LpmKey) -> (usize, usize) {
    let bits = key.prefix_len.saturating_sub(LpmKey::FAMILY_BITS);
    (usize::from(key.family == 6), bits.min(128) as usize)
}

/// `key` cut down to `bits` bits of the address.
fn cut(key: &LpmKey, bits: usize) -> LpmKey {
    let mut addr = key.addr;
    for (i, word) in addr.iter_mut().enumerate() {
        let kept = bits.saturating_sub(i * 32).min(32);
        let mask = u32::MAX.checked_shl(32 - kept as u32).unwrap_or(0);
        *word &= mask.to_be();
    }
    LpmKey {
        prefix_len: LpmKey::FAMILY_BITS + bits as u32,
        family: key.family,
        zero: [0; 3],
        addr,
    }
}

impl<V> Lpm<V> {
    /// The number of prefixes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds or replaces a prefix.
    pub fn insert(&mut self, key: LpmKey, value: V) {
        let (family, bits) = shape(&key);
        if self.entries.insert(key, value).is_none() {
            self.lengths[family][bits] += 1;
        }
    }

    /// Removes a prefix.
    pub fn remove(&mut self, key: &LpmKey) -> Option<V> {
        let value = self.entries.remove(key)?;
        let (family, bits) = shape(key);
        self.lengths[family][bits] -= 1;
        Some(value)
    }

    /// The value of exactly this prefix.
    pub fn get(&self, key: &LpmKey) -> Option<&V> {
        self.entries.get(key)
    }

    /// All prefixes, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&LpmKey, &V)> {
        self.entries.iter()
    }

    /// The values of all prefixes that hold `key` (itself included), longest first.
    pub fn holding(&self, key: &LpmKey) -> impl Iterator<Item = &V> {
        let (family, bits) = shape(key);
        (0..=bits)
            .rev()
            .filter(move |bits| self.lengths[family][*bits] > 0)
            .filter_map(move |bits| self.entries.get(&cut(key, bits)))
    }

    /// The value of the longest prefix that holds `key`, itself included.
    pub fn longest(&self, key: &LpmKey) -> Option<&V> {
        self.holding(key).next()
    }

    /// The value of the longest prefix that holds an address.
    pub fn lookup(&self, addr: Addr) -> Option<&V> {
        self.longest(&LpmKey::host(addr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn prefix(text: &str, len: u8) -> LpmKey {
        LpmKey::prefix(addr(text), len)
    }

    #[test]
    fn the_longest_prefix_wins_and_families_never_mix() {
        let mut table = Lpm::default();
        assert!(table.is_empty());
        for (i, (text, len)) in [
            ("::", 0),
            ("10.0.0.0", 8),
            ("10.128.0.0", 9),
            ("fd00::", 64),
        ]
        .into_iter()
        .enumerate()
        {
            table.insert(prefix(text, len), i);
        }
        assert_eq!(table.len(), 4);
        assert!(!table.is_empty());
        for (text, expect) in [
            ("10.127.255.255", Some(1)),
            ("10.128.0.0", Some(2)),
            ("11.0.0.0", None),
            ("fd00::1", Some(3)),
            ("fd00:0:0:1::", Some(0)),
        ] {
            assert_eq!(table.lookup(addr(text)).copied(), expect, "{text}");
        }
    }

    #[test]
    fn all_holding_prefixes_come_longest_first_and_end_with_the_whole_family() {
        let mut table = Lpm::default();
        for len in [0, 8, 31, 32] {
            table.insert(
                prefix(if len == 0 { "0.0.0.0" } else { "10.0.0.0" }, len),
                len,
            );
        }
        let all = |key| table.holding(&key).copied().collect::<Vec<_>>();
        assert_eq!(all(LpmKey::host(addr("10.0.0.0"))), [32, 31, 8, 0]);
        assert_eq!(all(LpmKey::host(addr("10.0.0.1"))), [31, 8, 0]);
        assert_eq!(all(prefix("10.0.0.0", 9)), [8, 0]);
        assert_eq!(all(prefix("8.0.0.0", 7)), [0]);
    }

    #[test]
    fn a_removed_prefix_uncovers_the_next() {
        let mut table = Lpm::default();
        table.insert(prefix("fd00::", 16), 1);
        table.insert(prefix("fd00:1::", 32), 2);
        table.insert(prefix("fd00:1::", 32), 3);
        assert_eq!(table.lookup(addr("fd00:1::1")), Some(&3));
        assert_eq!(table.remove(&prefix("fd00:1::", 32)), Some(3));
        assert_eq!(table.remove(&prefix("fd00:1::", 32)), None);
        assert_eq!(table.lookup(addr("fd00:1::1")), Some(&1));
        assert_eq!(table.get(&prefix("fd00::", 16)), Some(&1));
        assert_eq!(table.iter().count(), 1);
    }

    #[test]
    fn lengths_that_no_prefix_has_any_more_are_not_looked_for() {
        let mut table = Lpm::default();
        for text in ["10.0.0.0", "11.0.0.0"] {
            table.insert(prefix(text, 8), ());
            table.insert(prefix(text, 8), ());
        }
        assert_eq!(table.lengths[0][8], 2);
        table.remove(&prefix("10.0.0.0", 8));
        assert_eq!(table.lengths[0][8], 1);
        table.remove(&prefix("11.0.0.0", 8));
        assert_eq!(table.lengths, Lpm::<()>::default().lengths);
        assert!(table.is_empty());
    }
}
