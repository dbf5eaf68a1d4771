//! The address space: blocks of addresses, and addresses that lie in one block but in no smaller
//! one.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_abi::Addr;
use weir_abi::policy::LpmKey;

/// A block of addresses of one family, in the order of family, first address and length: a block
/// stands before those inside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Block {
    v6: bool,
    first: u128,
    len: u8,
}

const fn width(v6: bool) -> u8 {
    if v6 { 128 } else { 32 }
}

fn number(addr: IpAddr) -> (bool, u128) {
    match addr {
        IpAddr::V4(v4) => (false, u32::from(v4).into()),
        IpAddr::V6(v6) => (true, v6.into()),
    }
}

fn address(v6: bool, number: u128) -> IpAddr {
    if v6 {
        Ipv6Addr::from(number).into()
    } else {
        Ipv4Addr::from(number as u32).into()
    }
}

impl Block {
    /// The block of that many leading bits; none if there are not so many. Host bits are cut off.
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        let (v6, number) = number(addr);
        if len > width(v6) {
            return None;
        }
        let block = Self { v6, first: 0, len };
        Some(Self {
            first: number & !block.host_bits(),
            ..block
        })
    }

    /// A single address.
    pub fn host(addr: IpAddr) -> Self {
        let (v6, first) = number(addr);
        let len = width(v6);
        Self { v6, first, len }
    }

    /// `ADDRESS/LENGTH`; none if it is not that.
    pub fn parse(text: &str) -> Option<Self> {
        let (addr, len) = text.split_once('/')?;
        Self::new(addr.parse().ok()?, len.parse().ok()?)
    }

    /// The block of a key of the kernel's tries.
    pub fn of_key(key: &LpmKey) -> Option<Self> {
        let LpmKey {
            prefix_len,
            family,
            zero: _,
            addr,
        } = key;
        let len = u8::try_from(prefix_len.checked_sub(LpmKey::FAMILY_BITS)?).ok()?;
        let addr = match family {
            4 => Addr::from_v4_word(addr[0]).to_ip(),
            6 => Ipv6Addr::from_octets(Addr(*addr).octets()).into(),
            _ => return None,
        };
        Self::new(addr, len)
    }

    fn host_bits(&self) -> u128 {
        let bits = width(self.v6) - self.len;
        1_u128.checked_shl(bits.into()).map_or(u128::MAX, |n| n - 1)
    }

    fn last(&self) -> u128 {
        self.first | self.host_bits()
    }

    /// Whether an address lies in it.
    pub fn holds(&self, addr: IpAddr) -> bool {
        let (v6, number) = number(addr);
        v6 == self.v6 && (self.first..=self.last()).contains(&number)
    }

    /// Whether it is the whole of a family.
    pub fn is_everything(&self) -> bool {
        self.len == 0
    }

    /// Whether it holds IPv6 addresses.
    pub fn is_v6(&self) -> bool {
        self.v6
    }

    /// The whole of a family.
    pub fn everything(v6: bool) -> Self {
        Self {
            v6,
            first: 0,
            len: 0,
        }
    }

    /// An address that lies in it and in none of the smaller blocks of `others`. The first address
    /// of a network is not anyone's, so it comes last; of a whole family one that is kept for
    /// examples (RFC 5737, RFC 3849) comes first.
    pub fn free(&self, others: &BTreeSet<Self>) -> Option<IpAddr> {
        let example = match self.v6 {
            false => 0xc000_0201,
            true => 0x2001_0db8 << 96 | 1,
        };
        let example = self.is_everything().then_some(example);
        let second = self.first.checked_add(1).filter(|n| *n <= self.last());
        let starts = [example, second].into_iter().flatten();
        let mut starts = starts.map(|from| self.free_from(from, others));
        let found = starts.find(Option::is_some).flatten();
        let found = found.or_else(|| self.free_from(self.first, others));
        found.map(|number| address(self.v6, number))
    }

    fn free_from(&self, from: u128, others: &BTreeSet<Self>) -> Option<u128> {
        let mut next = from;
        let end = Self {
            v6: self.v6,
            first: self.last(),
            len: width(self.v6),
        };
        let inside = others.range(*self..=end).filter(|b| b.len > self.len);
        for block in inside {
            if next < block.first {
                break;
            }
            if next <= block.last() {
                next = block.last().checked_add(1)?;
            }
        }
        (next <= self.last()).then_some(next)
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", address(self.v6, self.first), self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Block {
        Block::parse(text).unwrap()
    }

    #[test]
    fn blocks_are_masked_and_hold_their_own_family_only() {
        assert_eq!(block("10.1.2.3/8").to_string(), "10.0.0.0/8");
        assert_eq!(block("fd00::1/64").to_string(), "fd00::/64");
        assert!(block("::/0").holds("fd00::1".parse().unwrap()));
        assert!(!block("::/0").holds("10.0.0.1".parse().unwrap()));
        assert!(block("10.0.0.0/31").holds("10.0.0.1".parse().unwrap()));
        assert!(!block("10.0.0.0/31").holds("10.0.0.2".parse().unwrap()));
        for wrong in ["10.0.0.0/33", "10.0.0.0", "x/8", "::/129", "1.2.3.4/-1"] {
            assert_eq!(Block::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_tries_key_and_a_block_are_the_same() {
        for text in [
            "0.0.0.0/0",
            "10.1.0.0/16",
            "10.1.0.9/32",
            "::/0",
            "fd00:1::/64",
            "::/96",
        ] {
            let block = block(text);
            let (addr, len) = text.split_once('/').unwrap();
            let addr: IpAddr = addr.parse().unwrap();
            let mut key = LpmKey::prefix(addr.into(), len.parse().unwrap());
            assert_eq!(Block::of_key(&key), Some(block), "{text}");
            key.family = 5;
            assert_eq!(Block::of_key(&key), None);
        }
    }

    #[test]
    fn a_free_address_avoids_all_smaller_blocks() {
        let free = |of: &str, others: &[&str]| {
            let others = others.iter().map(|o| block(o)).collect();
            block(of).free(&others).map(|a| a.to_string())
        };
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(free("10.0.0.0/8", &[]), is("10.0.0.1"));
        assert_eq!(
            free("10.0.0.0/8", &["10.0.0.0/8", "0.0.0.0/0"]),
            is("10.0.0.1")
        );
        assert_eq!(
            free("10.0.0.0/8", &["10.0.0.0/9", "10.0.0.0/24"]),
            is("10.128.0.0")
        );
        assert_eq!(
            free(
                "10.0.0.0/24",
                &["10.0.0.0/25", "10.0.0.128/26", "10.0.0.192/32"]
            ),
            is("10.0.0.193")
        );
        assert_eq!(free("10.0.0.0/31", &["10.0.0.1/32"]), is("10.0.0.0"));
        assert_eq!(free("10.0.0.0/31", &["10.0.0.1/32", "10.0.0.0/32"]), None);
        assert_eq!(free("10.0.0.7/32", &["10.0.0.0/8"]), is("10.0.0.7"));
        assert_eq!(free("::/0", &["::/1", "8000::/1"]), None);
        assert_eq!(free("::/0", &["::/1", "0.0.0.0/0"]), is("8000::"));
        assert_eq!(free("::/0", &["8000::/1"]), is("2001:db8::1"));
        assert_eq!(free("0.0.0.0/0", &[]), is("192.0.2.1"));
        assert_eq!(free("0.0.0.0/0", &["128.0.0.0/1"]), is("0.0.0.1"));
        assert_eq!(free("0.0.0.0/0", &["0.0.0.0/1", "128.0.0.0/1"]), None);
    }
}
