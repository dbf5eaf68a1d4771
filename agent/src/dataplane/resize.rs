//! Maps that the agent alone writes can get another size: the new one is made beside the old,
//! filled, and taken by the programs as they are replaced.
//!
//! The old map is renamed first and removed last, so that a start that was cut short is begun again
//! from it, wherever it was cut.

use std::{collections::BTreeMap, fs, hash::Hash};

use aya::Pod;
use weir_abi::{
    Addr, map,
    policy::{ClassId, Decision, DecisionKey, IdKey, Interval, RuleId, RuleInfo},
    service::{Backend, Service, ServiceKey, Slot},
};
use weir_net::bpf;

use super::{
    Error,
    pins::{self, Pins},
    table::{Elements, Table, Trie, Writes},
};

/// Configured sizes, by map name; a map that is not in it has the ABI's size.
pub type Sizes = BTreeMap<&'static str, u32>;

/// Ends the name of the map that is being replaced.
const OLD: &str = "-old";

/// Maps whose size can be configured, with the flag that does it.
pub const RESIZABLE: [(&str, &str); 9] = [
    (map::PEERS, "max-peers"),
    (map::CIDRS, "max-cidrs"),
    (map::DECISIONS, "max-decisions"),
    (map::INTERVALS, "max-intervals"),
    (map::RULES, "max-rules"),
    (map::IDS, "max-ids"),
    (map::SERVICES, "max-services"),
    (map::SLOTS, "max-service-slots"),
    (map::BACKENDS, "max-backends"),
];

/// The flag that sets a map's size, if there is one.
pub fn flag(map: &str) -> Option<&'static str> {
    RESIZABLE
        .iter()
        .find(|(name, _)| *name == map)
        .map(|(_, flag)| *flag)
}

fn old(pins: &Pins, name: &str) -> std::path::PathBuf {
    pins.map(&format!("{name}{OLD}"))
}

/// Sets the pinned maps aside whose size is to change. `wanted` gives the size of a map.
///
/// # Errors
/// The file system's, or the kernel's.
pub fn set_aside(pins: &Pins, wanted: impl Fn(&str) -> Option<u32>) -> Result<(), Error> {
    for (name, _) in RESIZABLE {
        let (path, old) = (pins.map(name), old(pins, name));
        if exists(&old)? {
            pins::unpin(&path)?;
            continue;
        }
        let Some(wanted) = wanted(name).filter(|_| path.exists()) else {
            continue;
        };
        let info = bpf::map_info_pinned(&path).map_err(|e| Error::pin(&path, e))?;
        if info.max_entries != wanted {
            tracing::info!(map = name, from = info.max_entries, to = wanted, "resizing");
            fs::rename(&path, &old).map_err(|e| Error::pin(&path, e))?;
        }
    }
    Ok(())
}

/// Fills the new maps from those set aside. On failure the old ones take their places again.
///
/// # Errors
/// A map is too small for what the old one holds, or the kernel's.
pub fn fill(pins: &Pins) -> Result<(), Error> {
    let filled = fill_all(pins);
    if filled.is_err() {
        for (name, _) in RESIZABLE {
            let (path, old) = (pins.map(name), old(pins, name));
            if exists(&old)? {
                fs::rename(&old, &path).map_err(|e| Error::pin(&old, e))?;
            }
        }
    }
    filled
}

fn fill_all(pins: &Pins) -> Result<(), Error> {
    table::<Addr, ClassId>(pins, map::PEERS)?;
    trie::<ClassId>(pins, map::CIDRS)?;
    table::<DecisionKey, Decision>(pins, map::DECISIONS)?;
    array::<Interval>(pins, map::INTERVALS)?;
    table::<RuleId, RuleInfo>(pins, map::RULES)?;
    table::<IdKey, u32>(pins, map::IDS)?;
    table::<ServiceKey, Service>(pins, map::SERVICES)?;
    array::<Slot>(pins, map::SLOTS)?;
    array::<Backend>(pins, map::BACKENDS)
}

/// Forgets the old maps, once the programs that use the new ones are pinned.
///
/// # Errors
/// The file system's.
pub fn forget(pins: &Pins) -> Result<(), Error> {
    RESIZABLE
        .iter()
        .try_for_each(|(name, _)| pins::unpin(&old(pins, name)))
}

fn exists(path: &std::path::Path) -> Result<bool, Error> {
    fs::exists(path).map_err(|e| Error::pin(path, e))
}

fn table<K, V>(pins: &Pins, name: &'static str) -> Result<(), Error>
where
    K: Pod + Eq + Hash,
    V: Pod + PartialEq,
{
    let old = old(pins, name);
    if !exists(&old)? {
        return Ok(());
    }
    let writes = Writes::default();
    let from: Table<K, V> = Table::open_at(&old, name, &writes)?;
    let mut to: Table<K, V> = Table::open(pins, name, &writes)?;
    from.entries()?
        .iter()
        .try_for_each(|(key, value)| to.insert(key, value))
}

fn trie<V: Pod + PartialEq>(pins: &Pins, name: &'static str) -> Result<(), Error> {
    let old = old(pins, name);
    if !exists(&old)? {
        return Ok(());
    }
    let writes = Writes::default();
    let from: Trie<V> = Trie::open_at(&old, name, &writes)?;
    let mut to: Trie<V> = Trie::open(pins, name, &writes)?;
    from.entries()?
        .iter()
        .try_for_each(|(key, value)| to.insert(key, value))
}

fn array<V: Pod + Default + PartialEq>(pins: &Pins, name: &'static str) -> Result<(), Error> {
    let old = old(pins, name);
    if !exists(&old)? {
        return Ok(());
    }
    let writes = Writes::default();
    let from: Elements<V> = Elements::open_at(&old, name, &writes)?;
    let mut to: Elements<V> = Elements::open(pins, name, &writes)?;
    for index in 0..from.size() {
        let value = from.get(index)?;
        if value != V::default() {
            if index >= to.size() {
                return Err(Error::Full {
                    map: name,
                    size: to.size(),
                });
            }
            to.set(index, value)?;
        }
    }
    Ok(())
}
