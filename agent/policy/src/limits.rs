//! How much the kernel's maps can hold.

use weir_abi::map;

/// The sizes of the policy maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Elements of `INTERVALS`.
    pub intervals: u32,
    /// Entries of `PEERS`.
    pub peers: u32,
    /// Entries of `CIDRS`.
    pub cidrs: u32,
    /// Entries of `DECISIONS`.
    pub decisions: u32,
    /// Entries of `RULES`.
    pub rules: u32,
    /// Entries of `IDS`, all kinds together.
    pub ids: u32,
}

impl Limits {
    /// The size of a policy map, by its name; 0 of another.
    pub fn of(&self, map: &str) -> u32 {
        match map {
            map::INTERVALS => self.intervals,
            map::PEERS => self.peers,
            map::CIDRS => self.cidrs,
            map::DECISIONS => self.decisions,
            map::RULES => self.rules,
            map::IDS => self.ids,
            _ => 0,
        }
    }
}

impl Default for Limits {
    /// The sizes up to which the agent lets the maps grow if it is not told another.
    fn default() -> Self {
        Self {
            intervals: 1 << 22,
            peers: 1 << 20,
            cidrs: 1 << 20,
            decisions: 1 << 22,
            rules: 1 << 20,
            ids: 1 << 22,
        }
    }
}

/// A change that does not fit into the maps. Nothing has been written: what is in force stays in force.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "map {map} is too small for the policies of this node: {needed} entries needed, size {size}; \
     raise {flag}. The policy in force stays as it is"
)]
pub struct CapacityError {
    /// Name of the map.
    pub map: &'static str,
    /// Its size.
    pub size: u32,
    /// What the change needs at its peak.
    pub needed: usize,
    /// The agent's flag that sets the size.
    pub flag: &'static str,
}

impl CapacityError {
    /// An error if `needed` is more than `size`.
    pub(crate) fn check(map: &'static str, needed: usize, size: u32) -> Result<(), Self> {
        if needed <= size as usize {
            return Ok(());
        }
        let flag = match map {
            map::INTERVALS => "--max-intervals",
            map::PEERS => "--max-peers",
            map::CIDRS => "--max-cidrs",
            map::DECISIONS => "--max-decisions",
            map::RULES => "--max-rules",
            _ => "--max-ids",
        };
        Err(Self {
            map,
            size,
            needed,
            flag,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_map_size_and_flag() {
        assert_eq!(CapacityError::check(map::PEERS, 7, 7), Ok(()));
        for (name, flag) in [
            (map::INTERVALS, "--max-intervals"),
            (map::PEERS, "--max-peers"),
            (map::CIDRS, "--max-cidrs"),
            (map::DECISIONS, "--max-decisions"),
            (map::RULES, "--max-rules"),
            (map::IDS, "--max-ids"),
        ] {
            let text = CapacityError::check(name, 8, 7).unwrap_err().to_string();
            for part in [name, "8 entries", "size 7", flag] {
                assert!(text.contains(part), "{text}");
            }
        }
    }
}
