//! What Weir has on the node's file systems for others to find: the plugin in the runtime's binary
//! directory, and the configuration by which the runtime calls it.

pub mod binaries;
pub mod bpffs;
pub mod cleanup;
pub mod conflist;
mod files;
