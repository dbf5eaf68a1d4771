//! Address blocks.

use std::fmt;
use std::net::IpAddr;

/// An address block of one family, host bits masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    network: IpAddr,
    len: u32,
}

/// The address as a number, and how many bits it has.
fn bits(addr: IpAddr) -> (u128, u32) {
    match addr {
        IpAddr::V4(v4) => (u32::from(v4).into(), 32),
        IpAddr::V6(v6) => (v6.into(), 128),
    }
}

/// `bits` without its lowest `host` bits.
fn network_part(bits: u128, host: u32) -> u128 {
    bits.checked_shr(host).unwrap_or(0)
}

impl Cidr {
    /// Parses `ADDRESS/LENGTH`; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} is no CIDR: {why}");
        let (addr, len) = text
            .split_once('/')
            .ok_or_else(|| wrong("a length such as /24 is missing"))?;
        let addr: IpAddr = addr
            .parse()
            .map_err(|_| wrong("the part before the slash is no IP address"))?;
        if let IpAddr::V6(v6) = addr
            && v6.to_ipv4_mapped().is_some()
        {
            return Err(wrong("write an IPv4-mapped address as IPv4"));
        }
        let digits = !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit());
        let (number, width) = bits(addr);
        let len: u32 = match len.parse() {
            Ok(n) if digits && n <= width && (len == "0" || !len.starts_with('0')) => n,
            _ => return Err(wrong(&format!("the length must be 0 to {width}"))),
        };
        let host = width - len;
        let masked = network_part(number, host).checked_shl(host).unwrap_or(0);
        let network = match addr {
            // The value has at most 32 bits here, as it came from an IPv4 address.
            IpAddr::V4(_) => IpAddr::V4((masked as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(masked.into()),
        };
        Ok(Self { network, len })
    }

    /// Whether the block holds the address. Families never mix.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let (net, width) = bits(self.network);
        let (number, other_width) = bits(addr);
        let host = width - self.len;
        width == other_width && network_part(net, host) == network_part(number, host)
    }

    /// Whether `self` is a part of `outer`, and smaller.
    pub fn is_strictly_within(&self, outer: &Self) -> bool {
        outer.contains(self.network) && self.len > outer.len
    }

    pub fn is_v4(&self) -> bool {
        self.network.is_ipv4()
    }

    /// Whether it is the whole family.
    pub fn is_everything(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).unwrap()
    }

    fn holds(block: &str, addr: &str) -> bool {
        cidr(block).contains(addr.parse().unwrap())
    }

    #[test]
    fn a_block_holds_its_first_and_last_address_and_not_their_neighbours() {
        assert!(holds("10.1.2.0/23", "10.1.2.0"));
        assert!(holds("10.1.2.0/23", "10.1.3.255"));
        assert!(!holds("10.1.2.0/23", "10.1.1.255"));
        assert!(!holds("10.1.2.0/23", "10.1.4.0"));
        assert!(holds("fd00:1::/64", "fd00:1::ffff:ffff:ffff:ffff"));
        assert!(!holds("fd00:1::/64", "fd00:1:0:1::"));
    }

    #[test]
    fn lengths_at_both_ends_work() {
        assert!(holds("0.0.0.0/0", "255.255.255.255"));
        assert!(holds("::/0", "ffff::1"));
        assert!(holds("192.0.2.7/32", "192.0.2.7"));
        assert!(!holds("192.0.2.7/32", "192.0.2.6"));
        assert!(holds("fd00::7/128", "fd00::7"));
        assert!(!holds("fd00::7/128", "fd00::6"));
    }

    #[test]
    fn families_never_mix() {
        assert!(!holds("::/0", "10.0.0.1"));
        assert!(!holds("0.0.0.0/0", "::1"));
        assert!(!holds("::/0", "0.0.0.0"));
    }

    #[test]
    fn host_bits_are_masked() {
        assert_eq!(cidr("10.1.2.3/8").to_string(), "10.0.0.0/8");
        assert_eq!(cidr("fd00::1/16").to_string(), "fd00::/16");
    }

    #[test]
    fn what_the_api_server_refuses_is_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0/8",
            "010.0.0.0/8",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            " 10.0.0.0/8",
            "fd00::/129",
            "fd00::%eth0/64",
            "::ffff:10.0.0.0/104",
            "10.0.0.0/8/8",
            "example.com/8",
        ] {
            assert!(Cidr::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn an_except_must_be_smaller_than_its_block() {
        assert!(cidr("10.1.0.0/16").is_strictly_within(&cidr("10.0.0.0/8")));
        assert!(!cidr("10.0.0.0/8").is_strictly_within(&cidr("10.0.0.0/8")));
        assert!(!cidr("10.0.0.0/7").is_strictly_within(&cidr("10.0.0.0/8")));
        assert!(!cidr("11.0.0.0/16").is_strictly_within(&cidr("10.0.0.0/8")));
        assert!(!cidr("::/8").is_strictly_within(&cidr("0.0.0.0/0")));
    }
}
