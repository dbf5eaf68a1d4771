//! Weir's agent: a pipeline that the folders show.
//!
//! ```text
//! source/ → state/ → compile/ (pure) → dataplane/ (the kernel's maps, programs, links)
//!                        ▲                 ▲
//! cni/ (unix socket) → engine/ (the one loop that applies)     node/ (links, addresses, routes)
//! cluster/ (duties for all nodes, by the holder of the Lease) → publish/ (the one writer to the API)
//! ```
//!
//! Every event goes to the engine, which takes in what has piled up, compiles once, and performs
//! the writes in a safe order. Nothing is removed before the source has synced.

mod causes;
pub mod cli;
pub mod cluster;
pub mod cni;
pub mod compile;
pub mod config;
pub mod dataplane;
pub mod engine;
mod fd;
pub mod health;
pub mod install;
pub mod kube_client;
pub mod log;
mod memory;
pub mod metrics;
pub mod node;
pub mod packet;
pub mod publish;
mod refill;
mod rule_words;
pub mod run;
pub mod source;
mod space;
pub mod state;
pub mod verify;
