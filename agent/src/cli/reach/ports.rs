//! Sets of ports, and how they are written.

use serde::Serialize;
use weir_abi::Proto;
use weir_abi::policy::Interval;

/// One past the last key.
pub(in super::super) const END: u32 = 1 << 24;
/// The protocols that have ports, in the order in which they are written.
const WITH_PORTS: [(Proto, &str); 3] = [
    (Proto::TCP, "TCP"),
    (Proto::UDP, "UDP"),
    (Proto::SCTP, "SCTP"),
];

/// (protocol, port) pairs as ascending disjoint ranges of [`Interval::key`]s, first to one past the
/// last.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(in super::super) struct PortSet(Vec<(u32, u32)>);

/// A stretch of one protocol's ports, as JSON has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(in super::super) struct PortRange {
    /// `TCP`, `UDP`, `SCTP`, or `other`: all those without ports, such as ICMP.
    pub protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u16>,
}

impl PortSet {
    /// One port.
    pub fn port(proto: Proto, port: u16) -> Self {
        let key = Interval::key(proto, port);
        Self(vec![(key, key + 1)])
    }

    /// Adds a range that begins at or after the end of all others.
    pub fn push(&mut self, start: u32, end: u32) {
        match self.0.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => self.0.push((start, end)),
        }
    }

    /// Adds whatever range.
    pub fn add(&mut self, other: &Self) {
        let mut all = std::mem::take(&mut self.0);
        all.extend(&other.0);
        all.sort_unstable();
        for (start, end) in all {
            match self.0.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => self.0.push((start, end)),
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn is_everything(&self) -> bool {
        self.0 == [(0, END)]
    }

    /// What both hold.
    pub fn and(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for a in &self.0 {
            for b in &other.0 {
                let (start, end) = (a.0.max(b.0), a.1.min(b.1));
                if start < end {
                    both.push(start, end);
                }
            }
        }
        both
    }

    fn rest(&self) -> Self {
        let mut rest = Self::default();
        let mut next = 0;
        for (start, end) in self.0.iter().copied().chain([(END, END)]) {
            if next < start {
                rest.push(next, start);
            }
            next = end;
        }
        rest
    }

    /// The ports of one protocol, first and last.
    fn of(&self, proto: Proto) -> Vec<(u16, u16)> {
        let all = (Interval::key(proto, 0), Interval::key(proto, u16::MAX) + 1);
        let cut = |(start, end): &(u32, u32)| {
            let (start, end) = ((*start).max(all.0), (*end).min(all.1));
            (start < end).then(|| ((start - all.0) as u16, (end - 1 - all.0) as u16))
        };
        self.0.iter().filter_map(cut).collect()
    }

    /// Whether it has the protocols without ports: policies never tell them apart.
    fn has_others(&self) -> bool {
        let icmp = Interval::key(Proto::ICMP, 0);
        self.0
            .iter()
            .any(|(start, end)| (*start..*end).contains(&icmp))
    }

    /// For programs.
    pub fn ranges(&self) -> Vec<PortRange> {
        let mut all = Vec::new();
        for (proto, protocol) in WITH_PORTS {
            all.extend(self.of(proto).into_iter().map(|(first, last)| PortRange {
                protocol,
                first: Some(first.max(1)),
                last: Some(last),
            }));
        }
        all.extend(self.has_others().then_some(PortRange {
            protocol: "other",
            first: None,
            last: None,
        }));
        all
    }

    fn parts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        for (proto, name) in WITH_PORTS {
            let ranges = self.of(proto);
            if ranges == [(0, u16::MAX)] {
                parts.push(name.to_owned());
            } else if !ranges.is_empty() {
                let one = |(first, last): &(u16, u16)| match ((*first).max(1), *last) {
                    (first, last) if first == last => first.to_string(),
                    (first, last) => format!("{first}-{last}"),
                };
                let all: Vec<String> = ranges.iter().map(one).collect();
                parts.push(format!("{}/{name}", all.join(",")));
            }
        }
        parts.extend(self.has_others().then(|| "ICMP and others".to_owned()));
        parts
    }

    /// For people: `all`, `none`, `80,443/TCP, 53/UDP`, `all but 22/TCP`.
    pub fn words(&self) -> String {
        if self.is_empty() {
            return "none".to_owned();
        }
        if self.is_everything() {
            return "all".to_owned();
        }
        let (parts, others) = (self.parts().join(", "), self.rest().parts().join(", "));
        // Where much passes it is what does not that is worth saying.
        if self.has_others() && "all but ".len() + others.len() < parts.len() {
            format!("all but {others}")
        } else {
            parts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(Proto, u16, u16)]) -> PortSet {
        let mut set = PortSet::default();
        for (proto, first, last) in ranges {
            let mut one = PortSet::default();
            one.push(
                Interval::key(*proto, *first),
                Interval::key(*proto, *last) + 1,
            );
            set.add(&one);
        }
        set
    }

    #[test]
    fn sets_are_written_in_the_shortest_way_that_is_exact() {
        let check = |set: &PortSet, text: &str| assert_eq!(set.words(), text);
        let some = set(&[
            (Proto::TCP, 443, 443),
            (Proto::TCP, 80, 80),
            (Proto::UDP, 53, 60),
        ]);
        check(&some, "80,443/TCP, 53-60/UDP");
        check(&some.rest(), "all but 80,443/TCP, 53-60/UDP");
        check(&PortSet::default(), "none");
        check(&PortSet::default().rest(), "all");
        check(&set(&[(Proto::TCP, 0, u16::MAX)]), "TCP");
        check(&set(&[(Proto::TCP, 0, u16::MAX)]).rest(), "all but TCP");
        check(&set(&[(Proto::TCP, 0, 79)]), "1-79/TCP");
        check(&set(&[(Proto::ICMP, 0, 0)]), "ICMP and others");
    }

    #[test]
    fn neighbours_are_one_range() {
        let ports = set(&[
            (Proto::TCP, 80, 80),
            (Proto::TCP, 81, 90),
            (Proto::TCP, 85, 85),
        ]);
        assert_eq!(ports.words(), "80-90/TCP");
        let range = |protocol, first, last| PortRange {
            protocol,
            first,
            last,
        };
        assert_eq!(ports.ranges(), [range("TCP", Some(80), Some(90))]);
        let rest = ports.rest().ranges();
        assert_eq!(rest.len(), 5, "{rest:?}");
        assert_eq!(rest[4], range("other", None, None));
    }

    #[test]
    fn what_both_hold_is_in_each() {
        let a = set(&[(Proto::TCP, 80, 90), (Proto::UDP, 53, 53)]);
        let b = set(&[(Proto::TCP, 85, 100)]);
        let both = a.and(&b);
        assert_eq!(both.words(), "85-90/TCP");
        assert!(a.rest().and(&a).is_empty());
    }
}
