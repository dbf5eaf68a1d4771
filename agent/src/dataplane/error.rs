//! What can go wrong with the kernel, each naming its object and the remedy.

use crate::causes::chain;
use std::{io, path::PathBuf};

use super::sizes::Shortage;

/// Why the dataplane could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable eBPF object.
    #[error("eBPF object: {0}")]
    Object(String),
    /// The kernel is below the floor.
    #[error("kernel {found} is too old: Weir needs Linux {floor} or later ({feature})")]
    Kernel {
        /// This machine's.
        found: String,
        /// What is needed.
        floor: &'static str,
        /// What is missing.
        feature: &'static str,
    },
    /// A file or directory of the bpffs.
    #[error("{path}: {message}", path = .path.display())]
    Pin {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The map does not take another entry.
    #[error("map {map} is full ({size} entries): {}; nothing that was programmed is lost", remedy(.map))]
    Full {
        /// Its name.
        map: &'static str,
        /// Its size.
        size: u32,
    },
    /// Maps are too small for what is to be written; nothing was.
    #[error("{}", too_small(.0))]
    TooSmall(Vec<Shortage>),
    /// A map operation failed.
    #[error("map {map}: {action}: {error}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What was tried.
        action: &'static str,
        /// Why not.
        error: String,
    },
    /// The verifier or the loader refuses a program.
    #[error("program {program}: {message}")]
    Program {
        /// Its name.
        program: String,
        /// Why.
        message: String,
    },
    /// A program could not be attached.
    #[error("attaching {program} to {target}: {message}")]
    Attach {
        /// Its name.
        program: String,
        /// The device or cgroup.
        target: String,
        /// Why.
        message: String,
    },
}

impl Error {
    pub(crate) fn pin(path: impl Into<PathBuf>, message: impl ToString) -> Self {
        Self::Pin {
            path: path.into(),
            message: message.to_string(),
        }
    }

    /// From a failed map operation; `E2BIG` is what a full hash, and `ENOSPC` what a full trie
    /// says.
    pub(crate) fn map(
        map: &'static str,
        size: u32,
        action: &'static str,
        error: &aya::maps::MapError,
    ) -> Self {
        match errno(error) {
            Some(libc::E2BIG | libc::ENOSPC) => Self::Full { map, size },
            _ => Self::Map {
                map,
                action,
                error: chain(error),
            },
        }
    }
}

fn too_small(shortages: &[Shortage]) -> String {
    let one = |shortage: &Shortage| {
        let Shortage { map, size, needed } = shortage;
        let remedy = remedy(map);
        format!("map {map} is full ({size} entries, {needed} needed): {remedy}")
    };
    let all: Vec<String> = shortages.iter().map(one).collect();
    format!("{}; nothing that was programmed is lost", all.join("; "))
}

fn remedy(map: &str) -> String {
    match super::sizes::resizable_map(map) {
        Some(map) => format!("raise --{} and restart the agent", map.flag),
        None => "its size is fixed in this release: fewer pods or addresses are needed".into(),
    }
}

fn errno(error: &aya::maps::MapError) -> Option<i32> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        if let Some(e) = e.downcast_ref::<io::Error>() {
            return e.raw_os_error();
        }
        source = e.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_map_is_named_with_its_size_and_the_flag_to_raise() {
        let text = Error::Full {
            map: weir_abi::map::PEERS,
            size: 7,
        }
        .to_string();
        assert!(
            text.contains("PEERS") && text.contains("7 entries"),
            "{text}"
        );
        assert!(text.contains("--max-peers"), "{text}");
        let text = Error::Full {
            map: weir_abi::map::ENDPOINTS,
            size: 7,
        }
        .to_string();
        assert!(
            text.contains("ENDPOINTS") && text.contains("fixed"),
            "{text}"
        );
    }
}
