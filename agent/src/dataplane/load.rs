//! Loads the object: maps are those that are pinned, if they are what the programs expect.
//!
//! A restart of the same version loads nothing: an empty folder beside the pins is named for the
//! hash of the object they came from. (A program's tag does not serve: subprograms are laid out in
//! another order at each load.) Where the hash differs, every program is loaded, and pinned in the
//! place of the former one.

use crate::causes::chain;
use std::{fs, path::PathBuf};

use aya::{Ebpf, EbpfLoader, VerifierLogLevel, programs::Program};
use aya_obj::EbpfSectionKind;
use weir_net::bpf;

use super::{
    Error,
    pins::{self, Pins},
    resize,
    sizes::{self, MapLimits, Sizes},
};

/// Ends the name of a program's pin that is about to take another's place (a bpffs has no dots).
const NEXT: &str = "-next";
/// `BPF_MAP_TYPE_LRU_HASH`.
const LRU_HASH: u32 = 9;
/// Begins the name of the folder that tells which object the pins came from.
const MARKER: &str = "object-";

/// What `load` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Programs in the object.
    pub programs: usize,
    /// Those that were pinned, because they are new or differ.
    pub replaced: usize,
}

/// Loads the object and pins its maps and programs. Maps that are there keep their sizes, within
/// the limits.
///
/// # Errors
/// The object does not parse; a pinned map is of another shape, or holds more than its limit; the
/// verifier refuses a program. The maps are then as they were.
pub fn load(object: &[u8], pins: &Pins, limits: &MapLimits) -> Result<Loaded, Error> {
    let size = |map: &str, first, pinned| limits.at_start(map, first, pinned);
    load_sized(object, pins, &size)
}

/// Gives maps these sizes, and has every program replaced by one that uses them. Whoever has a map
/// or a program open opens it again, and the links are given the new programs, before anything is
/// written: until then the old programs see what was there.
///
/// # Errors
/// As [`load`]; maps and programs are then as they were.
pub fn grow(object: &[u8], pins: &Pins, sizes: &Sizes) -> Result<Loaded, Error> {
    let size = |map: &str, first, pinned: Option<u32>| {
        let wanted = sizes.get(map).copied();
        wanted.or(pinned).unwrap_or(first)
    };
    load_sized(object, pins, &size)
}

/// The size of a map, by its name, its size in the object, and the size of what is pinned.
type SizeOf<'a> = &'a dyn Fn(&str, u32, Option<u32>) -> u32;

fn load_sized(object: &[u8], pins: &Pins, size: SizeOf<'_>) -> Result<Loaded, Error> {
    // A log slows the verifier down by an order of magnitude; a refusal is asked again with one.
    match load_with(VerifierLogLevel::DISABLE, object, pins, size) {
        Err(Error::Program { .. }) => load_with(VerifierLogLevel::default(), object, pins, size),
        other => other,
    }
}

/// Names what the pinned programs came from: the object, and the loader that changed it on the way.
fn marker(object: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    hasher.update(object);
    let hash = hasher.finalize().to_hex();
    format!("{MARKER}{}", &hash[..16])
}

/// Whether the pinned programs came from this object.
pub(super) fn is_in_force(object: &[u8], pins: &Pins) -> Result<bool, Error> {
    Ok(pins.markers(MARKER)? == [marker(object)])
}

/// The names of the object's maps, all of which are pinned in the shape that its programs expect.
/// Of what size they are is the agent's business.
pub(super) fn pinned_maps(object: &[u8], pins: &Pins) -> Result<Vec<String>, Error> {
    let maps = map_definitions(object)?;
    for definition in &maps {
        let path = pins.map(&definition.name);
        match definition.pinned(pins)? {
            Some(pinned) if pinned.is_laid_out_as(&definition.shape) => {}
            Some(pinned) => {
                let needed = &definition.shape;
                return Err(Error::pin(
                    path,
                    format!(
                        "this map is {pinned}, but these programs need {needed}: use the release that made it"
                    ),
                ));
            }
            None => return Err(Error::pin(path, "not pinned: has an agent run here?")),
        }
    }
    Ok(maps.into_iter().map(|map| map.name).collect())
}

/// Whether everything that the marker stands for is pinned.
fn is_loaded(object: &[u8], maps: &[Definition], pins: &Pins) -> Result<Option<usize>, Error> {
    if !is_in_force(object, pins)? {
        return Ok(None);
    }
    for definition in maps {
        if !definition.is_pinned(pins)? {
            return Ok(None);
        }
    }
    let object = aya_obj::Object::parse(object).map_err(|e| Error::Object(chain(&e)))?;
    let all = object.programs.keys().all(|name| pins.prog(name).exists());
    Ok(all.then_some(object.programs.len()))
}

fn load_with(
    level: VerifierLogLevel,
    object: &[u8],
    pins: &Pins,
    size: SizeOf<'_>,
) -> Result<Loaded, Error> {
    let mut maps = map_definitions(object)?;
    for map in &mut maps {
        map.resize(pins, size)?;
    }
    if let Some(programs) = is_loaded(object, &maps, pins)? {
        return Ok(Loaded {
            programs,
            replaced: 0,
        });
    }
    let in_force = pins.markers(MARKER)?;
    pins.set_marker(MARKER, None)?;
    let names = match prepare(level, object, pins, &maps) {
        Ok(names) => names,
        Err(error) => {
            // Nothing has been replaced yet: the old programs go on with the old maps.
            drop_next(pins)?;
            if let [marker] = &in_force[..] {
                pins.set_marker(MARKER, Some(marker))?;
            }
            return Err(error);
        }
    };
    resize::take(pins)?;
    for name in &names {
        let (path, next) = (pins.prog(name), pins.prog(&format!("{name}{NEXT}")));
        fs::rename(&next, &path).map_err(|e| Error::pin(&path, e))?;
    }
    for name in pins::names(&pins.progs())? {
        if !names.contains(&name) {
            pins::unpin(&pins.prog(&name))?;
        }
    }
    pins.set_marker(MARKER, Some(&marker(object)))?;
    Ok(Loaded {
        programs: names.len(),
        replaced: names.len(),
    })
}

/// Makes the maps, fills those that have another size than before, and pins each program beside the one that is in
/// force. Returns the programs' names.
fn prepare(
    level: VerifierLogLevel,
    object: &[u8],
    pins: &Pins,
    maps: &[Definition],
) -> Result<Vec<String>, Error> {
    drop_next(pins)?;
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(level);
    for definition in maps {
        loader.map_pin_path(&definition.name, definition.place(pins)?);
        loader.map_max_entries(&definition.name, definition.shape.entries);
    }
    let mut ebpf = loader.load(object).map_err(|e| Error::Object(chain(&e)))?;
    resize::fill(pins)?;
    let mut names = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        names.push(name.to_owned());
        pin_next(name, program, pins)?;
    }
    Ok(names)
}

/// Forgets the maps and programs that did not take the others' places.
fn drop_next(pins: &Pins) -> Result<(), Error> {
    resize::drop_next(pins)?;
    for name in pins::names(&pins.progs())? {
        if name.ends_with(NEXT) {
            pins::unpin(&pins.prog(&name))?;
        }
    }
    Ok(())
}

/// Loads every program of the object through the verifier and keeps nothing: maps are made for it
/// and go with it. Returns the programs' names.
///
/// # Errors
/// As [`load`].
pub fn verify(object: &[u8]) -> Result<Vec<String>, Error> {
    let mut ebpf: Ebpf = EbpfLoader::new()
        .load(object)
        .map_err(|e| Error::Object(chain(&e)))?;
    let mut names = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        verified(name, program)?;
        names.push(name.to_owned());
    }
    names.sort();
    Ok(names)
}

/// A map as the object declares it.
struct Definition {
    name: String,
    shape: Shape,
}

#[derive(Debug, PartialEq, Eq)]
struct Shape {
    map_type: u32,
    key: u32,
    value: u32,
    entries: u32,
}

impl Shape {
    /// Whether programs can use the one for the other.
    fn is_laid_out_as(&self, other: &Self) -> bool {
        (self.map_type, self.key, self.value) == (other.map_type, other.key, other.value)
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            map_type,
            key,
            value,
            entries,
        } = self;
        write!(
            f,
            "type {map_type}, key {key} B, value {value} B, {entries} entries"
        )
    }
}

fn map_definitions(object: &[u8]) -> Result<Vec<Definition>, Error> {
    let object = aya_obj::Object::parse(object).map_err(|e| Error::Object(chain(&e)))?;
    let mut maps: Vec<Definition> = object
        .maps
        .iter()
        // A program's own data is no state: it goes with the program.
        .filter(|(_, map)| {
            !matches!(
                map.section_kind(),
                EbpfSectionKind::Rodata | EbpfSectionKind::Data | EbpfSectionKind::Bss
            )
        })
        .map(|(name, map)| Definition {
            name: name.clone(),
            shape: Shape {
                map_type: map.map_type(),
                key: map.key_size(),
                value: map.value_size(),
                entries: map.max_entries(),
            },
        })
        .collect();
    maps.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(maps)
}

impl Definition {
    /// Gives the map the size that it shall have here. One that the kernel itself clears out is
    /// taken as it is: what it holds is worth more than another size.
    fn resize(&mut self, pins: &Pins, size: SizeOf<'_>) -> Result<(), Error> {
        let first = self.shape.entries;
        if sizes::resizable_map(&self.name).is_some() {
            let pinned = resize::pinned_size(pins, &self.name)?;
            self.shape.entries = size(&self.name, first, pinned);
        } else if self.shape.map_type == LRU_HASH
            && let Some(pinned) = self.pinned(pins)?
        {
            self.shape.entries = pinned.entries;
        }
        Ok(())
    }

    /// The shape of the map that is pinned under this name.
    fn pinned(&self, pins: &Pins) -> Result<Option<Shape>, Error> {
        let path = pins.map(&self.name);
        if !fs::exists(&path).map_err(|e| Error::pin(&path, e))? {
            return Ok(None);
        }
        let info = bpf::map_info_pinned(&path).map_err(|e| Error::pin(&path, e))?;
        Ok(Some(Shape {
            map_type: info.map_type,
            key: info.key_size,
            value: info.value_size,
            entries: info.max_entries,
        }))
    }

    fn is_pinned(&self, pins: &Pins) -> Result<bool, Error> {
        Ok(self.pinned(pins)?.as_ref() == Some(&self.shape))
    }

    /// Where the map is pinned, or is to be: beside one of another size. aya takes whatever is
    /// pinned there for the map.
    fn place(&self, pins: &Pins) -> Result<PathBuf, Error> {
        let path = pins.map(&self.name);
        let Some(pinned) = self.pinned(pins)? else {
            return Ok(path);
        };
        if pinned == self.shape {
            return Ok(path);
        }
        if pinned.is_laid_out_as(&self.shape) && sizes::resizable_map(&self.name).is_some() {
            let (from, to) = (pinned.entries, self.shape.entries);
            tracing::info!(map = self.name, from, to, "resizing");
            return Ok(resize::next(pins, &self.name));
        }
        Err(Error::pin(
            path,
            format!(
                "this map is {pinned}, but this release's programs need {}: run the release that made it, or drain the node and remove the folder",
                self.shape
            ),
        ))
    }
}

fn verified(name: &str, program: &mut Program) -> Result<(), Error> {
    let named = |message: String| Error::Program {
        program: name.to_owned(),
        message,
    };
    match program {
        Program::SchedClassifier(p) => p.load().map_err(|e| named(chain(&e))),
        Program::CgroupSockAddr(p) => p.load().map_err(|e| named(chain(&e))),
        Program::CgroupSock(p) => p.load().map_err(|e| named(chain(&e))),
        Program::Xdp(p) => p.load().map_err(|e| named(chain(&e))),
        _ => Err(named(
            "a kind of program that this agent does not attach".into(),
        )),
    }
}

/// Loads one program and pins it beside the one that is in force.
fn pin_next(name: &str, program: &mut Program, pins: &Pins) -> Result<(), Error> {
    verified(name, program)?;
    let next = pins.prog(&format!("{name}{NEXT}"));
    program.pin(&next).map_err(|e| Error::pin(&next, chain(&e)))
}
