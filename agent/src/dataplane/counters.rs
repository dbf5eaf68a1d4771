//! `COUNTERS`, summed over CPUs.

use aya::maps::{Map, MapData, PerCpuArray};
use weir_abi::{counter::Counter, map};

use super::{Error, pins::Pins, table};

/// The open map.
pub struct Counters {
    size: u32,
    map: PerCpuArray<MapData, u64>,
}

/// Counters, each with its label: `action` is what became of the packet.
pub const NAMES: &[(Counter, &str, &str)] = &[
    (Counter::Delivered, "forwarded", "delivered"),
    (Counter::Forwarded, "forwarded", "to-node"),
    (Counter::ToStack, "forwarded", "to-stack"),
    (Counter::DropMalformed, "dropped", "malformed"),
    (Counter::DropSpoofed, "dropped", "spoofed"),
    (Counter::DropPolicyIngress, "dropped", "policy-ingress"),
    (Counter::DropPolicyEgress, "dropped", "policy-egress"),
    (Counter::DropNoRow, "dropped", "no-policy-row"),
    (Counter::DropFragment, "dropped", "fragment"),
    (Counter::DropMappedV4, "dropped", "mapped-ipv4"),
    (Counter::DropConntrackFull, "dropped", "conntrack-full"),
    (Counter::DropPortsExhausted, "dropped", "ports-exhausted"),
    (Counter::RefusedNoEndpoint, "refused", "no-endpoint"),
    (Counter::DropInvalidState, "dropped", "invalid-state"),
    (Counter::DropForbiddenIcmp, "dropped", "forbidden-icmp"),
    (Counter::DropOwnSource, "dropped", "own-source"),
    (Counter::DropInternal, "dropped", "internal"),
    (Counter::DropNotForPod, "dropped", "not-for-pod"),
    (Counter::DropUnknownEndpoint, "dropped", "unknown-endpoint"),
    (Counter::DropOtherProtocol, "dropped", "other-protocol"),
    (Counter::IgnoredNoise, "ignored", "noise"),
    (Counter::AnsweredNeighbour, "answered", "neighbour"),
    (Counter::AnsweredIcmp, "answered", "icmp-error"),
    (Counter::DropNoLocalBackend, "dropped", "no-local-backend"),
    (Counter::DropSourceRange, "dropped", "source-range"),
    (Counter::DropNoRoute, "dropped", "no-route"),
    (Counter::DropRateLimited, "dropped", "rate-limited"),
    (Counter::DropForgedTunnel, "dropped", "forged-tunnel"),
    (Counter::DropNoTunnel, "dropped", "no-tunnel"),
    (Counter::DropNoKey, "dropped", "no-key"),
];

/// What becomes of a packet, and where to or why, by the number of the counter that it raises.
pub fn labels(number: u32) -> (&'static str, &'static str) {
    let named = NAMES.iter().find(|(counter, ..)| *counter as u32 == number);
    named.map_or(("unknown", "unknown"), |(_, action, reason)| {
        (action, reason)
    })
}

impl Counters {
    /// Opens the pinned map.
    ///
    /// # Errors
    /// It is not pinned, or not of this shape.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let (data, size) = table::open(pins, map::COUNTERS)?;
        let map = Map::from_map_data(data)
            .and_then(PerCpuArray::try_from)
            .map_err(|e| Error::map(map::COUNTERS, size, "open", &e))?;
        Ok(Self { size, map })
    }

    /// One counter, summed over CPUs.
    ///
    /// # Errors
    /// The kernel's.
    pub fn get(&self, counter: Counter) -> Result<u64, Error> {
        let values = self
            .map
            .get(&(counter as u32), 0)
            .map_err(|e| Error::map(map::COUNTERS, self.size, "look-up", &e))?;
        Ok(values.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_one_name() {
        let mut names: Vec<_> = NAMES
            .iter()
            .map(|(_, action, reason)| (action, reason))
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
        let counters: Vec<_> = NAMES.iter().map(|(counter, ..)| *counter).collect();
        assert_eq!(counters, Counter::ALL);
        let mut numbers: Vec<_> = NAMES.iter().map(|(c, _, _)| *c as u32).collect();
        numbers.dedup();
        assert!(numbers.is_sorted() && numbers.len() == NAMES.len());
    }
}
