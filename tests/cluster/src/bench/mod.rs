//! What Weir costs in a real cluster: `weir-cluster bench`.

mod memory;
mod pod_start;
mod stats;
mod timed;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::count::Count;

pub use timed::{TimedArgs, timed};

/// Arguments of `bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// How long pods take to start, and the plugin's share, beside the reference plugins; makes
    /// clusters of its own
    PodStart(pod_start::PodStartArgs),
    /// The agent's memory, idle and with many objects in the API server
    Memory(memory::MemoryArgs),
}

/// Measures and prints.
///
/// # Errors
/// A cluster cannot be made or asked. No time and no size is an error.
pub async fn run(args: &BenchArgs) -> Result<Count> {
    match &args.what {
        What::PodStart(args) => pod_start::run(args).await?,
        What::Memory(args) => memory::run(args).await?,
    }
    Ok(Count::default())
}
