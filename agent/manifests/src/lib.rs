//! The one loader of Kubernetes manifests: `--source dir:`, `demo --manifests` and
//! `weir policy … --manifests` all read through it.
//!
//! [`load`] reads a file or a directory tree; [`parse_bytes`] one file, for those who watch files
//! themselves. [`expand`] turns workloads into pods. Files are read as Kubernetes reads them (YAML
//! 1.1 as in sigs.k8s.io/yaml), documents that do not parse are named by file and line, and the
//! rest still counts.
#![forbid(unsafe_code)]

mod expand;
mod load;
mod object;
mod parse;
mod salvage;
mod scalar;
mod service;
mod value;
pub mod yaml;

pub use expand::{Workload, WorkloadKind, expand};
pub use load::{Manifests, ReadError, files, is_manifest, load};
pub use object::{Key, Object};
pub use parse::{Located, Note, Parsed, parse_bytes, parse_each, parse_text};
pub use service::{ClusterIps, endpoint_slices};
pub use value::Value;
