//! The thin part that touches the kernel's BPF objects: load, pins, attach, map reads and writes.
//! What to write is decided elsewhere, as plain data.

pub mod attach;
pub mod cgroup;
pub mod config_words;
mod counters;
pub mod drop_log;
pub mod endpoints;
mod error;
pub mod features;
pub mod filters;
mod incarnations;
mod links;
pub mod live;
pub mod load;
pub mod netns;
pub mod nodes;
pub mod object;
pub mod pins;
pub mod policy;
mod read;
pub mod resize;
pub mod service;
mod service_arrays;
pub mod sizes;
pub mod slots;
pub mod sock_conns;
mod source_ranges;
pub mod table;
pub mod view;
pub mod xdp;

pub use counters::{Counters, NAMES as COUNTER_NAMES};
pub use error::Error;
pub use features::Features;
pub use live::Live;
pub use view::PinnedView;
