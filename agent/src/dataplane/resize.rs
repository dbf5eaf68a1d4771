//! Maps that the agent alone writes can get another size: the new one is made beside the old,
//! filled, and put in its place once every program that is to use it is loaded.
//!
//! Nothing is written meanwhile, so that the two say the same: a start that follows one that was cut
//! short, wherever it was cut, takes whichever is pinned under the map's name.

use std::{fs, hash::Hash};

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
    sizes::{RESIZABLE, Resizable},
    table::{Elements, Table, Trie, Writes},
};

/// Ends the name of a map that is to take another's place (a bpffs has no dots).
const NEXT: &str = "-next";

/// The size of a map as it is pinned; `None` if it is not.
///
/// # Errors
/// The file system's, or the kernel's.
pub fn pinned_size(pins: &Pins, name: &str) -> Result<Option<u32>, Error> {
    let path = pins.map(name);
    if !exists(&path)? {
        return Ok(None);
    }
    let info = bpf::map_info_pinned(&path).map_err(|e| Error::pin(&path, e))?;
    Ok(Some(info.max_entries))
}

/// Where a map is pinned that is to take another's place.
pub(super) fn next(pins: &Pins, name: &str) -> std::path::PathBuf {
    pins.map(&format!("{name}{NEXT}"))
}

/// Forgets the maps that did not take the others' places.
///
/// # Errors
/// The file system's.
pub fn drop_next(pins: &Pins) -> Result<(), Error> {
    RESIZABLE
        .iter()
        .try_for_each(|resizable| pins::unpin(&next(pins, resizable.map)))
}

/// Puts the new maps in the places of the old ones.
///
/// # Errors
/// The file system's.
pub fn take(pins: &Pins) -> Result<(), Error> {
    for Resizable { map: name, .. } in RESIZABLE {
        let next = next(pins, name);
        if exists(&next)? {
            fs::rename(&next, pins.map(name)).map_err(|e| Error::pin(&next, e))?;
        }
    }
    Ok(())
}

/// Fills the new maps from those whose places they are to take.
///
/// # Errors
/// A map is too small for what the old one holds, or the kernel's.
pub fn fill(pins: &Pins) -> Result<(), Error> {
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

fn exists(path: &std::path::Path) -> Result<bool, Error> {
    fs::exists(path).map_err(|e| Error::pin(path, e))
}

fn table<K, V>(pins: &Pins, name: &'static str) -> Result<(), Error>
where
    K: Pod + Eq + Hash,
    V: Pod + PartialEq,
{
    let next = next(pins, name);
    if !exists(&next)? {
        return Ok(());
    }
    let writes = Writes::default();
    let from: Table<K, V> = Table::open(pins, name, &writes)?;
    let mut to: Table<K, V> = Table::open_at(&next, name, &writes)?;
    from.entries()?
        .iter()
        .try_for_each(|(key, value)| to.insert(key, value))
}

fn trie<V: Pod + PartialEq>(pins: &Pins, name: &'static str) -> Result<(), Error> {
    let next = next(pins, name);
    if !exists(&next)? {
        return Ok(());
    }
    let writes = Writes::default();
    let from: Trie<V> = Trie::open(pins, name, &writes)?;
    let mut to: Trie<V> = Trie::open_at(&next, name, &writes)?;
    from.entries()?
        .iter()
        .try_for_each(|(key, value)| to.insert(key, value))
}

fn array<V: Pod + Default + PartialEq>(pins: &Pins, name: &'static str) -> Result<(), Error> {
    let next = next(pins, name);
    if !exists(&next)? {
        return Ok(());
    }
    let writes = Writes::default();
    let from: Elements<V> = Elements::open(pins, name, &writes)?;
    let mut to: Elements<V> = Elements::open_at(&next, name, &writes)?;
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
