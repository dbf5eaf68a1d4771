//! Ranges of addresses, and the pool of one family that they make.

use std::{fmt, net::IpAddr};

use weir_net::IpNetwork;

/// A run of addresses that pods may get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    subnet: IpNetwork,
    first: u128,
    last: u128,
    /// A gateway that somebody put into the configuration: never given out.
    reserved: Option<u128>,
}

impl Range {
    /// A range of a subnet. Without `start` and `end` it is what host-local takes: everything but
    /// the network address and, for IPv4, the broadcast address. (No first address is kept for a
    /// gateway, as Weir's is link-local.) `/31` and `/32`, `/127` and `/128` have neither, and all
    /// their addresses count.
    pub fn new(
        subnet: IpNetwork,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self, String> {
        if subnet.network() != subnet.ip() {
            let canonical = format!("{}/{}", subnet.network(), subnet.prefix());
            return Err(format!(
                "subnet {subnet} has host bits set; {canonical} is meant?"
            ));
        }
        let bits = width(subnet.ip());
        let host_bits = bits - u32::from(subnet.prefix());
        let network = number(subnet.ip());
        let top = network | low_ones(host_bits);
        let (mut first, mut last) = (network, top);
        if host_bits >= 2 {
            first += 1;
            last -= u128::from(subnet.is_ipv4());
        }
        let inside = |what: &str, address: IpAddr| {
            if address.is_ipv4() == subnet.is_ipv4() && subnet.contains(address) {
                Ok(number(address))
            } else {
                Err(format!("{what} {address} is not in subnet {subnet}"))
            }
        };
        if let Some(start) = start {
            first = first.max(inside("rangeStart", start)?);
        }
        if let Some(end) = end {
            last = last.min(inside("rangeEnd", end)?);
        }
        if first > last {
            return Err(format!(
                "the range in subnet {subnet} is empty: rangeStart is beyond rangeEnd"
            ));
        }
        let reserved = gateway
            .map(|gateway| inside("gateway", gateway))
            .transpose()?;
        let range = Self {
            subnet,
            first,
            last,
            reserved,
        };
        if range.len() == 0 {
            return Err(format!(
                "the range in subnet {subnet} holds nothing but the gateway"
            ));
        }
        Ok(range)
    }

    fn is_ipv4(&self) -> bool {
        self.subnet.is_ipv4()
    }

    /// How many addresses it can give out.
    fn len(&self) -> u128 {
        let reserved = self
            .reserved
            .is_some_and(|r| (self.first..=self.last).contains(&r));
        // The whole of IPv6 would be one too many to count; nobody can use them up.
        (self.last - self.first).saturating_add(1) - u128::from(reserved)
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && {
            let n = number(address);
            (self.first..=self.last).contains(&n) && Some(n) != self.reserved
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.is_ipv4() == other.is_ipv4() && self.first <= other.last && other.first <= self.last
    }

    fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let ipv4 = self.is_ipv4();
        (self.first..=self.last)
            .filter(|n| Some(*n) != self.reserved)
            .map(move |n| address(n, ipv4))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (
            address(self.first, self.is_ipv4()),
            address(self.last, self.is_ipv4()),
        );
        write!(f, "{} ({first}-{last})", self.subnet)
    }
}

/// The ranges of one family, in the order they are used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    ranges: Vec<Range>,
}

impl Pool {
    /// A pool of one family's ranges, which do not overlap.
    fn new(ranges: Vec<Range>) -> Result<Self, String> {
        let Some(first) = ranges.first() else {
            return Err("a set of ranges is empty".into());
        };
        if let Some(other) = ranges.iter().find(|r| r.is_ipv4() != first.is_ipv4()) {
            return Err(format!(
                "{first} and {other} stand in one set, which is of one family"
            ));
        }
        Ok(Self { ranges })
    }

    /// Pools of sets of ranges, as host-local has them: a pod gets an address of each set. Weir
    /// gives a pod at most one address of a family, so there are at most two sets.
    pub fn from_sets(sets: Vec<Vec<Range>>) -> Result<Vec<Self>, String> {
        let all: Vec<&Range> = sets.iter().flatten().collect();
        for (at, range) in all.iter().enumerate() {
            if let Some(other) = all[..at].iter().find(|other| other.overlaps(range)) {
                return Err(format!("ranges {other} and {range} overlap"));
            }
        }
        let mut pools = sets
            .into_iter()
            .map(Self::new)
            .collect::<Result<Vec<_>, _>>()?;
        if pools.is_empty() {
            return Err("there are no ranges".into());
        }
        pools.sort_by_key(|pool| !pool.is_ipv4());
        if pools.len() > 2 || pools.len() == 2 && pools[0].is_ipv4() == pools[1].is_ipv4() {
            return Err(
                "there is more than one set of ranges of a family, and a pod gets one address of each: \
                 put the ranges into one set, to be used up in turn"
                    .into(),
            );
        }
        Ok(pools)
    }

    /// Whether its addresses are IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.ranges.first().is_some_and(Range::is_ipv4)
    }

    /// `IPv4` or `IPv6`.
    pub fn family(&self) -> &'static str {
        if self.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    /// Whether it can give out an address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    /// How many addresses it can give out.
    pub fn len(&self) -> u128 {
        self.ranges
            .iter()
            .fold(0, |sum, range| sum.saturating_add(range.len()))
    }

    /// Its addresses, in the order they are used up.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ranges.iter().flat_map(Range::iter)
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.ranges.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{range}")?;
        }
        Ok(())
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn low_ones(bits: u32) -> u128 {
    1u128.checked_shl(bits).map_or(u128::MAX, |bit| bit - 1)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(number: u128, ipv4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(bits) if ipv4 => IpAddr::V4(bits.into()),
        _ => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subnet: &str) -> Result<Range, String> {
        Range::new(subnet.parse().unwrap(), None, None, None)
    }

    fn all(range: &Range) -> Vec<String> {
        range.iter().map(|a| a.to_string()).collect()
    }

    #[test]
    fn network_and_broadcast_addresses_are_left_out_and_the_first_host_is_not() {
        let v4 = range("10.1.2.0/29").unwrap();
        assert_eq!(all(&v4).len(), 6);
        assert_eq!(
            (all(&v4)[0].as_str(), all(&v4)[5].as_str()),
            ("10.1.2.1", "10.1.2.6")
        );
        let v6 = range("fd00::/125").unwrap();
        assert_eq!(
            (all(&v6)[0].as_str(), all(&v6)[6].as_str(), v6.len()),
            ("fd00::1", "fd00::7", 7)
        );
    }

    #[test]
    fn tiny_subnets_give_all_they_have() {
        assert_eq!(
            all(&range("10.0.0.4/31").unwrap()),
            ["10.0.0.4", "10.0.0.5"]
        );
        assert_eq!(all(&range("10.0.0.4/32").unwrap()), ["10.0.0.4"]);
        assert_eq!(all(&range("fd00::4/127").unwrap()), ["fd00::4", "fd00::5"]);
        assert_eq!(all(&range("fd00::4/128").unwrap()), ["fd00::4"]);
        assert_eq!(
            all(&range("10.0.0.4/30").unwrap()),
            ["10.0.0.5", "10.0.0.6"]
        );
    }

    #[test]
    fn the_whole_address_space_counts_without_overflow() {
        assert_eq!(range("0.0.0.0/0").unwrap().len(), (1 << 32) - 2);
        assert_eq!(range("::/0").unwrap().len(), u128::MAX);
        assert_eq!(
            range("::/0").unwrap().iter().next(),
            Some("::1".parse().unwrap())
        );
        let top = Range::new(
            "ff00::/8".parse().unwrap(),
            Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap()),
            None,
            None,
        );
        assert_eq!(top.unwrap().iter().count(), 1);
    }

    #[test]
    fn start_and_end_bound_the_range_and_a_gateway_is_kept_back() {
        let subnet = "10.0.0.0/24".parse().unwrap();
        let ip = |text: &str| Some(text.parse().unwrap());
        let r = Range::new(subnet, ip("10.0.0.10"), ip("10.0.0.12"), ip("10.0.0.11")).unwrap();
        assert_eq!(all(&r), ["10.0.0.10", "10.0.0.12"]);
        assert_eq!(r.len(), 2);
        assert!(!r.contains("10.0.0.11".parse().unwrap()));
        assert_eq!(r.to_string(), "10.0.0.0/24 (10.0.0.10-10.0.0.12)");
        // The network and the broadcast address stay out, also when they are named.
        let r = Range::new(subnet, ip("10.0.0.0"), ip("10.0.0.255"), None).unwrap();
        assert_eq!(r.len(), 254);
    }

    #[test]
    fn c6_ranges_that_make_no_sense_are_refused() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let cases = [
            ("10.0.0.1/24", None, None, None, "host bits"),
            ("10.0.0.0/24", ip("10.0.1.1"), None, None, "rangeStart"),
            ("10.0.0.0/24", None, ip("fd00::1"), None, "rangeEnd"),
            (
                "10.0.0.0/24",
                ip("10.0.0.9"),
                ip("10.0.0.8"),
                None,
                "beyond",
            ),
            ("10.0.0.0/32", None, None, ip("10.0.0.0"), "gateway"),
            ("10.0.0.0/24", None, None, ip("10.0.1.0"), "gateway"),
        ];
        for (subnet, start, end, gateway, word) in cases {
            let error = Range::new(subnet.parse().unwrap(), start, end, gateway).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn c6_sets_are_of_one_family_do_not_overlap_and_are_at_most_one_a_family() {
        let r = |text: &str| range(text).unwrap();
        let refused = |sets: Vec<Vec<Range>>| Pool::from_sets(sets).unwrap_err();
        assert!(refused(vec![vec![r("10.0.0.0/24"), r("10.0.0.128/25")]]).contains("overlap"));
        assert!(refused(vec![vec![r("10.0.0.0/24")], vec![r("10.0.0.0/24")]]).contains("overlap"));
        assert!(refused(vec![vec![r("10.0.0.0/24"), r("fd00::/64")]]).contains("one family"));
        assert!(
            refused(vec![vec![r("10.0.0.0/24")], vec![r("10.0.1.0/24")]]).contains("more than one")
        );
        assert!(refused(vec![]).contains("no ranges"));
        assert!(refused(vec![vec![]]).contains("empty"));
        let pools = Pool::from_sets(vec![
            vec![r("fd00::/64")],
            vec![r("10.0.0.0/24"), r("10.0.1.0/24")],
        ]);
        let pools = pools.unwrap();
        assert_eq!((pools[0].family(), pools[1].family()), ("IPv4", "IPv6"));
        assert_eq!(pools[0].len(), 508);
    }
}
