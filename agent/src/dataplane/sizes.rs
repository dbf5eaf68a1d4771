//! How large maps are that can get another size: they begin small and grow up to a limit.

use std::collections::BTreeMap;

use weir_abi::map;
use weir_policy::Limits;

/// Sizes, by map name.
pub type Sizes = BTreeMap<&'static str, u32>;

/// A table that is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Its name.
    pub map: &'static str,
    /// Its size, in entries.
    pub size: u32,
    /// How many entries it should hold at least.
    pub needed: usize,
}

/// A map that can get another size.
#[derive(Clone, Copy, Debug)]
pub struct Resizable {
    /// Its name.
    pub map: &'static str,
    /// The key that sets its limit.
    pub flag: &'static str,
    /// The limit where no key sets one, in entries.
    pub limit: u32,
}

const fn resizable(map: &'static str, flag: &'static str, limit: u32) -> Resizable {
    Resizable { map, flag, limit }
}

/// Maps that the agent alone writes.
pub const RESIZABLE: [Resizable; 9] = [
    resizable(map::PEERS, "max-peers", 1 << 20),
    resizable(map::CIDRS, "max-cidrs", 1 << 20),
    resizable(map::DECISIONS, "max-decisions", 1 << 22),
    resizable(map::INTERVALS, "max-intervals", 1 << 22),
    resizable(map::RULES, "max-rules", 1 << 20),
    resizable(map::IDS, "max-ids", 1 << 22),
    resizable(map::SERVICES, "max-services", 1 << 20),
    resizable(map::SLOTS, "max-service-slots", 1 << 22),
    resizable(map::BACKENDS, "max-backends", 1 << 20),
];

/// What is known of a map, if it can get another size.
pub fn resizable_map(map: &str) -> Option<&'static Resizable> {
    RESIZABLE.iter().find(|resizable| resizable.map == map)
}

/// Up to which sizes maps grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapLimits {
    /// Those that are configured.
    configured: Sizes,
}

/// Sizes of arrays are multiples of this.
const ARRAY_STEP: u32 = 4096;

impl MapLimits {
    /// With these configured; the others are as [`RESIZABLE`] has them.
    pub fn new(configured: Sizes) -> Self {
        Self { configured }
    }

    /// The limit of a map; `None` for one whose size is fixed.
    pub fn of(&self, map: &str) -> Option<u32> {
        let configured = self.configured.get(map).copied();
        configured.or_else(|| Some(resizable_map(map)?.limit))
    }

    /// Those of the policy maps.
    pub fn policy(&self) -> Limits {
        let limit = |map| self.of(map).unwrap_or(0);
        Limits {
            intervals: limit(map::INTERVALS),
            peers: limit(map::PEERS),
            cidrs: limit(map::CIDRS),
            decisions: limit(map::DECISIONS),
            rules: limit(map::RULES),
            ids: limit(map::IDS),
        }
    }

    /// The size that a map begins with when the agent starts. `first` is the ABI's, `pinned` what
    /// is there: that stays, unless a limit was configured below it.
    pub fn at_start(&self, map: &str, first: u32, pinned: Option<u32>) -> u32 {
        let limit = match pinned {
            Some(_) => self.configured.get(map).copied(),
            None => self.of(map),
        };
        let size = pinned.unwrap_or(first);
        limit.map_or(size, |limit| size.min(limit))
    }

    /// The size that a map of `size` entries gets so that `needed` fit, or the limit: of a hash, a power
    /// of two with a quarter of room; of the Services' arrays, which take their memory at once, half of
    /// room. `None` if they do not fit below the limit, or fit already.
    pub fn grown(&self, map: &str, size: u32, needed: usize) -> Option<u32> {
        let limit = self.of(map)?;
        let needed = u32::try_from(needed).ok().filter(|n| *n <= limit)?;
        let grown = if [map::SLOTS, map::BACKENDS].contains(&map) {
            needed
                .saturating_add(needed / 2)
                .checked_next_multiple_of(ARRAY_STEP)
        } else {
            needed
                .saturating_add(needed / 4)
                .checked_next_power_of_two()
        };
        let grown = grown.unwrap_or(limit);
        Some(grown.min(limit)).filter(|grown| *grown > size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> MapLimits {
        MapLimits::new(Sizes::from([(map::RULES, 1000)]))
    }

    #[test]
    fn a_plan_without_a_node_has_the_room_that_a_node_gives_by_default() {
        assert_eq!(MapLimits::default().policy(), Limits::default());
    }

    #[test]
    fn a_map_begins_with_the_abis_size_or_below_at_its_limit() {
        assert_eq!(limits().at_start(map::RULES, 4096, None), 1000);
        assert_eq!(limits().at_start(map::RULES, 64, None), 64);
        assert_eq!(limits().at_start(map::PEERS, 64, None), 64);
        assert_eq!(limits().at_start(map::ENDPOINTS, 64, None), 64);
    }

    #[test]
    fn a_size_that_is_there_stays_unless_a_smaller_limit_is_configured() {
        assert_eq!(limits().at_start(map::PEERS, 64, Some(1 << 16)), 1 << 16);
        assert_eq!(limits().at_start(map::PEERS, 64, Some(16)), 16);
        assert_eq!(limits().at_start(map::PEERS, 64, Some(1 << 24)), 1 << 24);
        assert_eq!(limits().at_start(map::RULES, 64, Some(512)), 512);
        assert_eq!(limits().at_start(map::RULES, 64, Some(4096)), 1000);
    }

    #[test]
    fn growth_goes_to_a_power_of_two_with_a_quarter_of_room_or_to_the_limit() {
        let grown = |size, needed| limits().grown(map::PEERS, size, needed);
        assert_eq!(grown(64, 65), Some(128));
        assert_eq!(grown(64, 102), Some(128));
        assert_eq!(grown(64, 103), Some(128));
        assert_eq!(grown(64, 104), Some(256));
        assert_eq!(grown(64, 120_000), Some(1 << 18));
        let array = |needed| limits().grown(map::BACKENDS, 1 << 16, needed);
        assert_eq!(
            (array(120_000), array(65_000)),
            (Some(180_224), Some(98_304))
        );
        assert_eq!(limits().grown(map::RULES, 64, 900), Some(1000));
        assert_eq!(limits().grown(map::RULES, 64, 1000), Some(1000));
    }

    #[test]
    fn nothing_grows_over_its_limit_nor_where_its_size_is_fixed_nor_without_need() {
        assert_eq!(limits().grown(map::RULES, 64, 1001), None);
        assert_eq!(limits().grown(map::RULES, 1000, 1000), None);
        assert_eq!(limits().grown(map::PEERS, 64, usize::MAX), None);
        assert_eq!(limits().grown(map::ENDPOINTS, 64, 65), None);
        assert_eq!(limits().grown(map::PEERS, 128, 65), None);
    }
}
