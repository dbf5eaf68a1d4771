//! A small cluster on one machine: nodes and pods are network namespaces, wired by the real CNI
//! plugin, served by real agents, reached through real sockets. Tests, the demo and measurements
//! use it.
//!
//! Namespaces, mounts and bpffs instances are anonymous: processes hold them, and the processes
//! die with the lab, even if it is killed with -9. On the machine itself a lab makes one thing, a
//! cgroup named after its process; see [`registry`] and [`cgroup::sweep`].
//!
//! ```no_run
//! use weir_lab::{Lab, Listen, PodSpec, Probe, Proto};
//!
//! let lab = Lab::builder().nodes(2).start()?;
//! let web = Listen { proto: Proto::Tcp, port: 80 };
//! let server = lab.add_pod(&PodSpec::new("shop", "web", 0).port(web, "http"))?;
//! let client = lab.add_pod(&PodSpec::new("shop", "client", 1))?;
//! println!("{:?}", client.probe(Probe::tcp(server.v4(), 80))?);
//! # anyhow::Ok(())
//! ```

mod builder;
pub mod cgroup;
pub mod client;
pub mod cluster;
pub mod control;
pub mod demo;
mod fabric;
pub mod far;
pub mod hold;
pub mod keep;
pub mod lab;
pub mod leftovers;
pub mod netlink;
pub mod node;
pub mod pod;
pub mod registry;
pub mod runtime;
pub mod server;
pub mod service;
pub mod spawn;
pub mod wire;

use std::path::PathBuf;

use anyhow::{Result, bail};

pub use builder::LabBuilder;
pub use client::OutsideClient;
pub use cluster::Cluster;
pub use fabric::Families;
pub use far::FarMachine;
pub use lab::Lab;
pub use node::Node;
pub use pod::{Pod, PodSpec};
pub use service::{Backend, ServiceSpec};
pub use wire::{
    Exchange, ExchangeReport, Listen, Load, LoadReport, Outcome, Ping, Probe, Proto, Requests, Seen,
};

/// The path of one of Weir's programs: in `WEIR_BIN_DIR`, else beside the running program, else
/// (for a test, which cargo puts in `deps/`) in the folder above.
///
/// # Errors
/// When it is in none of these; the message says how to build it.
pub fn bin(name: &str) -> Result<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("WEIR_BIN_DIR")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    if folders.is_empty() {
        let this = std::env::current_exe()?;
        folders.extend(this.ancestors().skip(1).take(2).map(PathBuf::from));
    }
    for folder in &folders {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!(
        "no program {name} in {folders:?}: build it with `cargo xtask build`, or set WEIR_BIN_DIR"
    )
}
