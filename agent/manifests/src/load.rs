//! Files and directories.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::object::{Key, Object};
use crate::parse::{Located, Note, parse_bytes};

/// What a file or a directory tree holds.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// Every object once, by name.
    pub objects: BTreeMap<Key, Located>,
    /// Documents that do not parse.
    pub errors: Vec<Note>,
    /// What is easily a mistake.
    pub warnings: Vec<Note>,
    /// Kinds and fields that were passed over.
    pub passed_over: Vec<Note>,
}

/// A path that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct ReadError {
    /// The file or directory.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Loads a file, or a directory tree in the order of names.
///
/// # Errors
/// [`ReadError`] if something cannot be read; what does not parse is in [`Manifests::errors`].
pub fn load(path: &Path) -> Result<Manifests, ReadError> {
    let mut all = Manifests::default();
    for file in files(path)? {
        let bytes = std::fs::read(&file).map_err(|source| ReadError {
            path: file.clone(),
            source,
        })?;
        all.add_file(&file, &bytes);
    }
    all.imply_namespaces();
    Ok(all)
}

/// Whether a directory's file of this name is read: `.yaml`, `.yml` or `.json` in any case, and not
/// hidden (editors and mounted ConfigMaps keep their own files under names with a dot).
pub fn is_manifest(file: &Path) -> bool {
    let hidden = file
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase());
    !hidden && matches!(extension.as_deref(), Some("yaml" | "yml" | "json"))
}

/// The files that [`load`] reads: the path itself if it is a file, else all manifests below it,
/// sorted by name, hidden ones left out.
///
/// # Errors
/// [`ReadError`] if a directory cannot be read.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let mut found = Vec::new();
    walk(path, true, &mut HashSet::new(), &mut found)?;
    Ok(found)
}

fn walk(
    path: &Path,
    top: bool,
    seen: &mut HashSet<PathBuf>,
    found: &mut Vec<PathBuf>,
) -> Result<(), ReadError> {
    let failed = |source| ReadError {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        if top || is_manifest(path) {
            found.push(path.to_owned());
        }
        return Ok(());
    }
    // A symbolic link may lead back to where it came from.
    if !seen.insert(std::fs::canonicalize(path).map_err(failed)?) {
        return Ok(());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    names.sort();
    for name in names {
        if !name.to_string_lossy().starts_with('.') {
            walk(&path.join(name), false, seen, found)?;
        }
    }
    Ok(())
}

impl Manifests {
    /// Adds what a file holds; `file` is only named.
    pub fn add_file(&mut self, file: &Path, bytes: &[u8]) {
        let parsed = parse_bytes(file, bytes);
        self.errors.extend(parsed.errors);
        self.warnings.extend(parsed.warnings);
        self.passed_over.extend(parsed.passed_over);
        for located in parsed.objects {
            let key = located.object.key();
            let (file, line) = (located.file.clone(), located.line);
            if let Some(old) = self.objects.insert(key.clone(), located) {
                self.warnings.push(Note {
                    file,
                    line,
                    text: format!(
                        "{key} replaces the one at {}:{}",
                        old.file.display(),
                        old.line
                    ),
                });
            }
        }
    }

    /// A namespace that is used but not given exists, with the label that every namespace has.
    pub fn imply_namespaces(&mut self) {
        const LABEL: &str = "kubernetes.io/metadata.name";
        let mut implied: Vec<Located> = Vec::new();
        for located in self.objects.values() {
            let Some(name) = located.object.metadata().namespace.clone() else {
                continue;
            };
            implied.push(Located {
                object: Object::Namespace(Namespace {
                    metadata: ObjectMeta {
                        name: Some(name),
                        ..ObjectMeta::default()
                    },
                    ..Namespace::default()
                }),
                file: located.file.clone(),
                line: located.line,
            });
        }
        for located in implied {
            self.objects.entry(located.object.key()).or_insert(located);
        }
        for located in self.objects.values_mut() {
            if let Object::Namespace(namespace) = &mut located.object {
                let name = namespace.metadata.name.clone().unwrap_or_default();
                let labels = namespace.metadata.labels.get_or_insert_default();
                labels.insert(LABEL.to_owned(), name);
            }
        }
    }
}
