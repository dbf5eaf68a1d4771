//! Loads the object: maps are those that are pinned, if they are what the programs expect.
//!
//! A restart of the same version loads nothing: an empty folder beside the pins is named for the
//! hash of the object they came from. (A program's tag does not serve: subprograms are laid out in
//! another order at each load.) Where the hash differs, every program is loaded, and pinned in the
//! place of the former one.

use std::fs;

use aya::{Ebpf, EbpfLoader, VerifierLogLevel, programs::Program};
use aya_obj::EbpfSectionKind;
use weir_net::bpf;

use super::{
    Error,
    error::chain,
    pins::{self, Pins},
    resize::{self, Sizes},
};

/// Ends the name of a program's pin that is about to take another's place (a bpffs has no dots).
const NEXT: &str = "-next";
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

/// Loads the object and pins its maps and programs.
///
/// # Errors
/// The object does not parse; a pinned map is of another shape; the verifier refuses a program.
pub fn load(object: &[u8], pins: &Pins, sizes: &Sizes) -> Result<Loaded, Error> {
    // A log slows the verifier down by an order of magnitude; a refusal is asked again with one.
    match load_with(VerifierLogLevel::DISABLE, object, pins, sizes) {
        Err(Error::Program { .. }) => load_with(VerifierLogLevel::default(), object, pins, sizes),
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
    let maps = map_definitions(object, &Sizes::new())?;
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
    sizes: &Sizes,
) -> Result<Loaded, Error> {
    let maps = map_definitions(object, sizes)?;
    let size = |name: &str| {
        maps.iter()
            .find(|m| m.name == name)
            .map(|m| m.shape.entries)
    };
    if let Some(programs) = is_loaded(object, &maps, pins)? {
        return Ok(Loaded {
            programs,
            replaced: 0,
        });
    }
    pins.set_marker(MARKER, None)?;
    resize::set_aside(pins, size)?;
    for definition in &maps {
        definition.compare(pins)?;
    }
    for name in pins::names(&pins.progs())? {
        if name.ends_with(NEXT) {
            pins::unpin(&pins.prog(&name))?;
        }
    }
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(level);
    for definition in &maps {
        loader.map_pin_path(&definition.name, pins.map(&definition.name));
        loader.map_max_entries(&definition.name, definition.shape.entries);
    }
    let mut ebpf = loader.load(object).map_err(|e| Error::Object(chain(&e)))?;
    resize::fill(pins)?;
    let mut loaded = Loaded::default();
    let mut names = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        names.push(name.to_owned());
        load_program(name, program, pins)?;
        loaded.programs += 1;
        loaded.replaced += 1;
    }
    for name in pins::names(&pins.progs())? {
        if !names.contains(&name) {
            pins::unpin(&pins.prog(&name))?;
        }
    }
    resize::forget(pins)?;
    pins.set_marker(MARKER, Some(&marker(object)))?;
    Ok(loaded)
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

fn map_definitions(object: &[u8], sizes: &Sizes) -> Result<Vec<Definition>, Error> {
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
                entries: sizes
                    .get(name.as_str())
                    .copied()
                    .unwrap_or(map.max_entries()),
            },
        })
        .collect();
    maps.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(maps)
}

impl Definition {
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

    /// aya takes whatever is pinned under the name for the map.
    fn compare(&self, pins: &Pins) -> Result<(), Error> {
        match self.pinned(pins)? {
            Some(pinned) if pinned != self.shape => Err(Error::pin(
                pins.map(&self.name),
                format!(
                    "this map is {pinned}, but this release's programs need {}: run the release that made it, or drain the node and remove the folder",
                    self.shape
                ),
            )),
            _ => Ok(()),
        }
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
        _ => Err(named(
            "a kind of program that this agent does not attach".into(),
        )),
    }
}

/// Loads one program and pins it, in the place of the former one.
fn load_program(name: &str, program: &mut Program, pins: &Pins) -> Result<(), Error> {
    verified(name, program)?;
    let (path, next) = (pins.prog(name), pins.prog(&format!("{name}{NEXT}")));
    program
        .pin(&next)
        .map_err(|e| Error::pin(&next, chain(&e)))?;
    fs::rename(&next, &path).map_err(|e| Error::pin(&path, e))
}
