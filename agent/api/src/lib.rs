//! What Weir's programs say to each other: the socket API (HTTP/JSON under `/v1/`), the node file,
//! the CNI conflist, and a small blocking client. `docs/api.md` is the same for people.
//!
//! Unknown fields are ignored and new ones are optional, so that a plugin and an agent of adjacent
//! releases work together.
#![forbid(unsafe_code)]

pub mod client;
pub mod endpoint;
pub mod error;
pub mod live;
pub mod node_file;
pub mod policy;
pub mod service;
pub mod status;
pub mod verdict;

use std::time::Duration;

/// Where the agent listens, unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/weir/agent.sock";
/// Where Weir keeps its state, unless told otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/weir";
/// Weir's folder in the bpffs, unless told otherwise.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/weir";

/// How long the plugin waits for the agent's answer to an adoption; the agent must give up before.
pub const ADOPT_WAIT: Duration = Duration::from_secs(30);
