//! Conntrack entries.
