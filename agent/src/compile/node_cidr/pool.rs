//! Address ranges to give out from.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use weir_net::IpNetwork;

/// A range, cut into pieces of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    cidr: IpNetwork,
    bits: u8,
}

impl Pool {
    /// Of pieces with prefixes of `bits`. Host bits of `cidr` are masked.
    ///
    /// # Errors
    /// The pieces are larger than the range, or hold no pod: what to give instead.
    pub fn new(cidr: IpNetwork, bits: u8) -> Result<Self, String> {
        let cidr = IpNetwork::new(cidr.network(), cidr.prefix()).unwrap_or(cidr);
        let pool = Self { cidr, bits };
        let (least, most) = (cidr.prefix(), if cidr.is_ipv4() { 30 } else { 126 });
        if !(least..=most).contains(&bits) {
            return Err(format!(
                "{cidr} cannot be cut into /{bits}: --{} must be {least} to {most}",
                pool.mask_flag()
            ));
        }
        Ok(pool)
    }

    /// Prefix length of its pieces.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// The key that says how large its pieces are.
    pub fn mask_flag(&self) -> &'static str {
        if self.cidr.is_ipv4() {
            "node-cidr-mask-size"
        } else {
            "node-cidr-mask-size-ipv6"
        }
    }

    /// Whether they are of one family.
    pub fn is_family_of(&self, cidr: &IpNetwork) -> bool {
        self.cidr.is_ipv4() == cidr.is_ipv4()
    }

    /// The first free piece after that one, and around.
    pub(super) fn free(&self, taken: &Taken, after: Option<&IpNetwork>) -> Option<IpNetwork> {
        let inside = after.filter(|cidr| overlapping(&self.cidr, cidr));
        let from = inside.map_or(0, |cidr| self.index(range(cidr).1) + 1);
        self.search(taken, from, self.count())
            .or_else(|| self.search(taken, 0, from.min(self.count())))
    }

    /// The first free one of pieces `from..to`.
    fn search(&self, taken: &Taken, from: u128, to: u128) -> Option<IpNetwork> {
        let mut index = from;
        while index < to {
            let piece = self.piece(index)?;
            let Some(end) = taken.overlap(&piece) else {
                return Some(piece);
            };
            index = self.index(end).max(index) + 1;
        }
        None
    }

    fn count(&self) -> u128 {
        1 << (self.bits - self.cidr.prefix())
    }

    /// Of an address, given as number; the last for what lies behind the range.
    fn index(&self, address: u128) -> u128 {
        let (first, last) = range(&self.cidr);
        (address.clamp(first, last) - first) >> self.shift()
    }

    fn shift(&self) -> u8 {
        let width = if self.cidr.is_ipv4() { 32 } else { 128 };
        width - self.bits
    }

    fn piece(&self, index: u128) -> Option<IpNetwork> {
        let number = range(&self.cidr).0 + (index << self.shift());
        let address = match u32::try_from(number) {
            Ok(number) if self.cidr.is_ipv4() => IpAddr::V4(number.into()),
            _ => IpAddr::V6(number.into()),
        };
        IpNetwork::new(address, self.bits).ok()
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cidr.fmt(f)
    }
}

/// At most one range per family, in the order of preference. Without any, nothing is given out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pools(Vec<Pool>);

impl Pools {
    /// Of pools in order.
    ///
    /// # Errors
    /// Two of one family.
    pub fn new(pools: Vec<Pool>) -> Result<Self, String> {
        let v4 = pools.iter().filter(|pool| pool.cidr.is_ipv4()).count();
        if v4 > 1 || pools.len() - v4 > 1 {
            return Err("expected at most one CIDR of each family".into());
        }
        Ok(Self(pools))
    }

    /// Whether nothing is given out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.0.iter()
    }

    /// Those of whose family there is none.
    pub(super) fn missing<'a>(&'a self, cidrs: &'a [IpNetwork]) -> impl Iterator<Item = &'a Pool> {
        self.iter()
            .filter(|pool| !cidrs.iter().any(|cidr| pool.is_family_of(cidr)))
    }

    /// Whether any holds a part of it.
    pub(super) fn overlap(&self, cidr: &IpNetwork) -> bool {
        self.iter().any(|pool| overlapping(&pool.cidr, cidr))
    }

    /// Puts CIDRs in the order of preference.
    pub(super) fn sort(&self, cidrs: &mut [IpNetwork]) {
        cidrs.sort_by_key(|cidr| self.iter().position(|pool| pool.is_family_of(cidr)));
    }
}

/// Addresses that are in use, as ranges that do not overlap.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// By whether it is IPv4: first address to last.
    ranges: [BTreeMap<u128, u128>; 2],
}

impl Taken {
    pub fn insert(&mut self, cidr: IpNetwork) {
        let (first, last) = range(&cidr);
        // Blocks that overlap are one within the other.
        if self.overlap(&cidr).is_some_and(|end| end > last) {
            return;
        }
        let ranges = &mut self.ranges[usize::from(cidr.is_ipv4())];
        let inside: Vec<u128> = ranges
            .range(first..=last)
            .map(|(first, _)| *first)
            .collect();
        for first in inside {
            ranges.remove(&first);
        }
        // The one that ends where this one does may have begun before it.
        let before = ranges.range(..first).next_back();
        if before.is_none_or(|(_, end)| *end < last) {
            ranges.insert(first, last);
        }
    }

    /// The last address of a range that overlaps.
    pub fn overlap(&self, cidr: &IpNetwork) -> Option<u128> {
        let (first, last) = range(cidr);
        let ranges = &self.ranges[usize::from(cidr.is_ipv4())];
        let (_, end) = ranges.range(..=last).next_back()?;
        (*end >= first).then_some(*end)
    }
}

/// Whether two blocks have an address in common.
pub(super) fn overlapping(a: &IpNetwork, b: &IpNetwork) -> bool {
    let ((first_a, last_a), (first_b, last_b)) = (range(a), range(b));
    a.is_ipv4() == b.is_ipv4() && first_a <= last_b && first_b <= last_a
}

/// First and last address as numbers.
fn range(cidr: &IpNetwork) -> (u128, u128) {
    let number = |ip| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    (number(cidr.network()), number(cidr.broadcast()))
}
