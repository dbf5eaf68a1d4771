//! The bpf(2) calls that aya 0.14 lacks: an atomic update of a cgroup link, what an object says of
//! itself, and a mapped array.
//!
//! Objects are named by descriptors, so that aya's and these work side by side: `fd()` of aya's
//! types, or [`get_pinned`].

mod mapped;
mod object;
mod sys;

pub use mapped::MappedArray;
pub use object::{
    LinkInfo, LinkTarget, MapInfo, ProgInfo, get_pinned, link_info, link_update, map_info,
    map_info_pinned, prog_info,
};
